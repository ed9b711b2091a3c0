"""Samples to train and evaluate on."""
