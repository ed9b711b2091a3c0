"""File formats, one module each. Everything that is read is converted to vision3d's conventions."""
