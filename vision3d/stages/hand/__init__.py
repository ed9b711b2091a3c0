"""Hands in photos: joints and a mesh in meters, after ReJSHand (An et al. 2025, arXiv 2503.05995)."""
