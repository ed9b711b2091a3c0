"""Networks of hands: backbone, tokens at the joints, interaction, and the heads."""
