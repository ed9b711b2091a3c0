"""Boxes of objects in point clouds, after LION (Liu et al. 2024, arXiv 2407.18232)."""
