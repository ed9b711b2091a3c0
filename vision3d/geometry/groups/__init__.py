"""Groups of maps: charts, exponentials and logarithms, invariant measures."""
