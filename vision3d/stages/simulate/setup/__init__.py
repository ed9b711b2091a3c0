"""Sets up a simulation from a scene and options."""
