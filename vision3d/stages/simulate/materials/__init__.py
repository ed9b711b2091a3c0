"""Laws of materials: stress, energy and plastic flow, and the options that name them."""
