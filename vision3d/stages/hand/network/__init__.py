"""The network of the hand stage: backbone, expansion block, interaction blocks and heads."""
