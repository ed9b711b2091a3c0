"""What particles live in: the grid, solids, distance fields, and how long a time step may be."""
