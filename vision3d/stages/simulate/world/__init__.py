"""World of the particles: the grid, solids, distance fields, and the time step limit."""
