"""Boxes around objects in point clouds."""
