"""Metrics of hand meshes and joints."""
