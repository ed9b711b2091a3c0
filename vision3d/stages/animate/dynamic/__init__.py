"""Animation by skinning: a mesh follows a clip with masks through the nodes of a deformation graph.

Papers: DreamMesh4D, Li et al. 2024 (arXiv 2410.06756); embedded deformation, Sumner et al. 2007; dual quaternion skinning,
Kavan et al. 2008; as-rigid-as-possible energy, Sorkine and Alexa 2007.

Differences from DreamMesh4D: nodes come from farthest point sampling along the surface, and their weights use one metric and
fall to zero where another node takes over; nodes rotate about themselves instead of the origin; stretch acts in both
branches; signs of quaternions do not matter; the reference frame is exactly the rest pose; the energy is independent of the
resolution; frames are added one after another; there are terms on neighboring nodes, on acceleration, and on blurred images.
By default each frame has its own parameters instead of a network.
"""
