"""Materials of glTF files: base color, its texture, and alpha; metallic and roughness factors."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from vision3d.core.errors import FileFormatError, MissingFileError
from vision3d.io.gltf_container import Gltf
from vision3d.io.images import decode_image

Material = tuple[float, float] | Float[Tensor, "h w 2"]
"""Metallic and roughness factor of a mesh, of all of it or of each texel of a texture at its uvs; linear, in [0, 1]."""
MATTE = (0.0, 1.0)
"""The material of a mesh without one."""


@dataclass(frozen=True)
class Alpha:
    """Alpha mode of a material."""

    mode: str
    cutoff: float

    @classmethod
    def of_material(cls, gltf: Gltf, material: dict[str, Any]) -> "Alpha":
        mode, cutoff = material.get("alphaMode", "OPAQUE"), material.get("alphaCutoff", 0.5)
        if mode not in ("OPAQUE", "MASK", "BLEND"):
            raise FileFormatError(gltf.path, f"alphaMode is {str(mode)[:40]!r}, want OPAQUE, MASK or BLEND", "materials")
        if not isinstance(cutoff, int | float) or not np.isfinite(cutoff):
            raise FileFormatError(gltf.path, f"alphaCutoff is {str(cutoff)[:40]!r}, want a number", "materials")
        return cls(mode, float(cutoff))

    def of(self, values: Any, factor: float = 1.0) -> Any:
        """0 or 1 for MASK; otherwise unchanged."""
        if self.mode != "MASK":
            return factor * values
        return (factor * values >= self.cutoff) * np.float32(1)

    def of_texture(self, texture: Tensor, factor: float) -> Tensor:
        """A texture with the visible alpha."""
        if self.mode == "OPAQUE" or (texture.shape[2] == 3 and factor == 1 and (self.mode != "MASK" or self.cutoff <= 1)):
            return texture[..., :3].contiguous()
        values = texture[..., 3] if texture.shape[2] == 4 else torch.ones_like(texture[..., 0])
        return torch.cat(
            [texture[..., :3], torch.from_numpy(self.of(values.numpy(), factor).astype(np.float32))[..., None]], -1
        )


def surface(
    gltf: Gltf, material: dict[str, Any], textures: dict[Any, Tensor]
) -> tuple[Tensor | None, np.ndarray | None, tuple[int, np.ndarray | None], Alpha]:
    """Texture, color factor (linear RGBA; None when white), uv set with its transform (2, 3), and alpha mode of a material.

    The alpha factor is multiplied into the texture if there is one, so that the cut-off of MASK applies once.
    """
    alpha = Alpha.of_material(gltf, material)
    rough = material.get("pbrMetallicRoughness", {})
    glossy = _extension(material, "KHR_materials_pbrSpecularGlossiness")
    if glossy and "pbrMetallicRoughness" not in material:
        rough = {"baseColorFactor": glossy.get("diffuseFactor", [1.0] * 4), "baseColorTexture": glossy.get("diffuseTexture")}
    if not isinstance(rough, dict):
        raise FileFormatError(gltf.path, "pbrMetallicRoughness is not an object", "materials")
    try:
        factor = np.asarray(rough.get("baseColorFactor", [1.0] * 4), np.float32)
        if factor.shape != (4,) or not np.isfinite(factor).all():
            raise ValueError
    except (ValueError, TypeError) as error:
        raise FileFormatError(
            gltf.path, f"baseColorFactor is {rough['baseColorFactor']!r}, want 4 numbers", "materials"
        ) from error
    opacity = 1.0 if alpha.mode == "OPAQUE" else float(factor[3])
    found, places = _texture(gltf, rough.get("baseColorTexture"), textures)
    if found is None:
        factor = np.append(factor[:3], np.float32(alpha.of(opacity)))
        return None, None if (factor == 1).all() else factor, places, alpha
    factor = np.append(factor[:3], np.float32(1))
    key = (found, alpha, opacity)
    if key not in textures:
        textures[key] = alpha.of_texture(textures[found], opacity)
    return textures[key], None if (factor == 1).all() else factor, places, alpha


def read_material(gltf: Gltf) -> Material | None:
    """Metallic and roughness of all meshes of a file; `MATTE` if nothing in it has a material.

    Returns:
        None if its materials differ (`gltf_factors.read_factors`), or if the texture of a material has other uvs than its
        colors or cannot be read.

    Raises:
        FileFormatError: A material is damaged.
    """
    primitives = [primitive for i in range(len(gltf.items("meshes"))) for primitive in gltf.primitives(i)]
    numbers = list(dict.fromkeys(primitive.get("material") for primitive in primitives))
    found = [_factors(gltf, {} if number is None else gltf.item("materials", number)) for number in numbers]
    if all(one == found[0] for one in found):
        metallic, roughness, info, places = found[0] if found else (*MATTE, None, None)
        if info is None:
            return metallic, roughness
        textures: dict[Any, Tensor] = {}
        source, own = _texture(gltf, info, textures)
        if source is None:
            return None
        if _key(own) == places:
            return textures[source][..., [2, 1]] * torch.tensor([metallic, roughness])
    return None


def _factors(gltf: Gltf, material: dict[str, Any]) -> tuple[float, float, Any, Any]:
    """Metallic and roughness factor, their texture, and the uv set with its transform that the mesh is read with."""
    rough = material.get("pbrMetallicRoughness")
    if not isinstance(rough, dict):
        return (*MATTE, None, None)
    values = [rough.get(key, 1.0) for key in ("metallicFactor", "roughnessFactor")]
    if not all(type(value) in (int, float) and 0 <= value <= 1 for value in values):
        raise FileFormatError(gltf.path, f"metallicFactor and roughnessFactor are {str(values)[:60]}, want 0 to 1", "materials")
    info = rough.get("metallicRoughnessTexture")
    places = None if info is None else _key(_texture(gltf, rough.get("baseColorTexture"), {})[1])
    return float(values[0]), float(values[1]), info, places


def _key(places: tuple[int, np.ndarray | None]) -> tuple[int, bytes]:
    """A uv set and its transform, to be compared."""
    uv_set, moved = places
    return uv_set, b"" if moved is None else moved.tobytes()


def _texture(gltf: Gltf, info: Any, textures: dict[Any, Tensor]) -> tuple[int | None, tuple[int, np.ndarray | None]]:
    """Index of the image of a texture in `textures`, and its uv set with its transform. None, with a warning, if it cannot be
    read: a texture must not hide the geometry.
    """
    if info is None:
        return None, (0, None)
    try:
        if not isinstance(info, dict):
            raise FileFormatError(gltf.path, "baseColorTexture is not an object", "materials")
        transform = _extension(info, "KHR_texture_transform")
        uv_set = gltf.whole(transform if "texCoord" in transform else info, "texCoord", "baseColorTexture", 0)
        moved = _uv_transform(gltf, transform) if transform else None
        entry = gltf.item("textures", info.get("index"))
        source = entry.get("source", _extension(entry, "EXT_texture_webp").get("source"))
        others = entry.get("extensions")
        if source is None and isinstance(others, dict) and others:
            raise FileFormatError(
                gltf.path, f"has only an image of {str(next(iter(others)))[:40]}, which is not read", "textures"
            )
        entry = gltf.item("images", source)
        assert isinstance(source, int)
        if source not in textures:
            what = f"texture images[{source}]"
            data = bytes(gltf.view(entry["bufferView"])[0]) if "bufferView" in entry else gltf.resource(entry.get("uri"), what)
            textures[source] = torch.from_numpy(decode_image(gltf.path, data, what))
    except (FileFormatError, MissingFileError) as error:
        gltf.note(f"{error}; read without this texture")
        return None, (0, None)
    return source, (uv_set, moved)


def _extension(entry: dict[str, Any], name: str) -> dict[str, Any]:
    """Contents of an extension of an object; empty if missing."""
    extensions = entry.get("extensions")
    found = extensions.get(name) if isinstance(extensions, dict) else None
    return found if isinstance(found, dict) else {}


def _uv_transform(gltf: Gltf, values: dict[str, Any]) -> np.ndarray:
    """Matrix (2, 3) of KHR_texture_transform: scale, then rotation, then offset."""
    try:
        offset, scale = (np.array(values.get(key, [one] * 2), np.float64) for key, one in (("offset", 0.0), ("scale", 1.0)))
        angle = float(values.get("rotation", 0.0))
        if offset.shape != (2,) or scale.shape != (2,) or not np.isfinite([*offset, *scale, angle]).all():
            raise ValueError
    except (ValueError, TypeError) as error:
        raise FileFormatError(gltf.path, "KHR_texture_transform contains values that are not numbers", "materials") from error
    cosine, sine = np.cos(angle), np.sin(angle)
    return np.column_stack([np.array([[cosine, sine], [-sine, cosine]]) * scale, offset])
