"""Sparse voxels: orders and groups for sequence operators, submanifold convolution, merging, expanding and generation."""
