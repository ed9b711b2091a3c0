"""Hands in photos: joints, mesh and a rig, after ReJSHand (arXiv 2503.05995)."""
