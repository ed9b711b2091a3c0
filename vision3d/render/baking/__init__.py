"""From rendered views to textures: what cameras see of a scene, atlases, texels."""
