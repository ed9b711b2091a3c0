"""Objects that move by skinning: a mesh follows a clip with masks through the nodes of a deformation graph.

Papers: DreamMesh4D, Li et al. 2024 (arXiv 2410.06756); embedded deformation, Sumner et al. 2007; dual quaternion skinning,
Kavan et al. 2008; as-rigid-as-possible energy, Sorkine and Alexa 2007.

What differs from DreamMesh4D: nodes come from farthest point sampling along the surface, and their weights use one metric and
fall to zero where another node takes over; nodes turn about themselves and not about the origin; stretch acts in both
branches; signs of quaternions do not matter; the reference frame is exactly at rest; the energy does not depend on the
resolution; frames come in one after the other; there is a term on neighbouring nodes, one on their acceleration, and one on
blurred pictures. By default each frame has numbers of its own in place of a network.
"""
