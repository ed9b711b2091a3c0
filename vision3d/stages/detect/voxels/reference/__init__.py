"""Plain torch versions of the native operations on voxels."""
