"""Videos of moving objects against what they should show, by the protocol of Consistent4D."""
