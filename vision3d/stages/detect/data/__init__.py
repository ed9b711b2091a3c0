"""Training data of detection: labelled sweeps, their random changes, and targets."""
