"""Optimization: losses, metrics, schedules, the optimizer, and densification strategies for Gaussians."""
