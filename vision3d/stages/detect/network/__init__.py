"""Networks of detection: features of pillars or voxels, the bird's-eye image, and the head."""
