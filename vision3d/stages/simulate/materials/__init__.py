"""Material laws: stress, energy and plastic flow, and their options."""
