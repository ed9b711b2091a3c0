"""Videos of moving objects compared with the ground truth, by the protocol of Consistent4D."""
