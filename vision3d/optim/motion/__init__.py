"""Fitting skins to frames, and retargeting motion between skeletons."""
