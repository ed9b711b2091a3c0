"""The whole simulation from a scene and options."""
