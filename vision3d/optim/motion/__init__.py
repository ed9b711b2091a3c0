"""Fitting of skins to frames, and motion of one skeleton on another."""
