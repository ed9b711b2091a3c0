"""Frames, charts, and files of a run."""
