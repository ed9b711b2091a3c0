"""Gaussians bound to the faces of a mesh, refined on images: the static stage of DreamMesh4D (arXiv 2410.06756).

Papers: DreamMesh4D, Li et al. 2024; SuGaR, Guedon and Lepetit 2024 (arXiv 2311.12775), for the binding.

Differences from DreamMesh4D: colors come from the texture; images of many cameras can be used as well as one, with masks and
held-out views; colors are compared as in Gaussian splatting (mean absolute difference and SSIM) instead of mean squares;
the Laplacian is that of displacements, so the given mesh has zero loss; vertices at seams move together; no total
variation of colors, depths and normals; learning rates decay to a tenth; training starts on images of half the size.
"""
