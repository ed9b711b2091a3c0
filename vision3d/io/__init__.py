"""Files: one module a format. What is read comes out in vision3d's conventions, whatever the file's were."""
