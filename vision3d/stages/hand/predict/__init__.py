"""Hands in images and videos: from pixels to joints and meshes in the camera's space."""
