"""Gaussians bound to the faces of a mesh, refined to pictures: the static stage of DreamMesh4D (arXiv 2410.06756).

Papers: DreamMesh4D, Li et al. 2024; SuGaR, Guedon and Lepetit 2024 (arXiv 2311.12775), for the binding.

What differs from DreamMesh4D: colours come from the texture; pictures from many cameras count as well as one, and masks and
held-out views with them; colours are compared as in Gaussian splatting (mean absolute difference and SSIM) in place of mean
squares; the Laplacian is that of the shifts, so the mesh as it is given costs nothing; vertices at seams go together; no
total variation of colours, depths and normals; rates fall to a tenth; pictures begin at half their size.
"""
