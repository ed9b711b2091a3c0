"""Plain torch versions of the native operations of `vision3d.optim`."""
