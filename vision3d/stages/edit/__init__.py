"""Edits of the appearance of objects by text."""
