"""Plain torch versions of the native operations."""
