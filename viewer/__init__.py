"""Viewers of scenes, installed as `vision3d.viewer`."""
