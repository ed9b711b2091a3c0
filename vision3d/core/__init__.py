"""Foundations of all other packages: errors, configuration, runs, devices, the native module."""
