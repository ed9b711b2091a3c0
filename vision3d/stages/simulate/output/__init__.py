"""Frames, the course of a run, and its files."""
