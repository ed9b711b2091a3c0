"""From rendered views to textures: visible parts of a scene, atlases, texels."""
