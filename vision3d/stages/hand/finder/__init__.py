"""Finder of hands in whole images."""
