"""Meshes with joints, posed and played."""
