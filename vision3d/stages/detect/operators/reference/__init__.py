"""Operators in plain torch: the recurrences as written, and forms for training on any device."""
