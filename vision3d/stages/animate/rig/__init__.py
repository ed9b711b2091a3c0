"""Posing and playing meshes with joints."""
