"""Boxes of cars, people and cyclists in LiDAR sweeps."""
