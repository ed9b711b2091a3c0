"""Meshes as binary glTF 2.0 (.glb).

A Mesh becomes one node with one primitive: POSITION, NORMAL, TEXCOORD_0 and COLOR_0 as float32, indices as uint32, the
texture as an embedded 8-bit PNG. Axes are preserved, so reading and writing a file does not change it; only a mesh whose
scene is known to have another up axis is rotated (`write_mesh`), since glTF is y-up. glTF's vertex colors are linear light;
ours are sRGB and are converted. Alpha is read according to the material's alphaMode: dropped for OPAQUE, 0 or 1 for MASK. It
is written as MASK if it is 0 or 1 everywhere, else as BLEND.
"""

import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast, get_args

import numpy as np
import torch
from torch import Tensor

from vision3d.core.errors import FileFormatError, InputError, MissingFileError
from vision3d.io.gltf_container import Builder, Gltf, peek_json
from vision3d.io.gltf_pose import RestPose
from vision3d.io.images import decode_image
from vision3d.io.mesh_repair import with_finite_values
from vision3d.scene.mesh import Mesh
from vision3d.scene.texture_atlas import merge_textured
from vision3d.scene.upright import Axis, from_y_up, to_y_up

_TRIANGLES, _STRIP, _FAN = 4, 5, 6
_SCENE_UP = "vision3d_scene_up"
_READ_EXTENSIONS = {
    "EXT_texture_webp", "KHR_mesh_quantization", "KHR_texture_transform",
    "KHR_texture_basisu", "EXT_texture_astc", "MSFT_texture_dds",  # textures that cannot be read are a warning
}  # fmt: skip
_IGNORED = {"KHR_lights_punctual": "its lights are ignored"}
_SHADING = (
    "KHR_materials_"  # material extensions are read (the diffuse color of specular-glossiness) or do not change the base color
)


def read_parts(path: Path | str) -> dict[str, Mesh]:
    """The meshes of a .glb file by name, one per primitive, in world coordinates of the rest pose, each with its own texture.

    Joints and morph targets of animated files are applied as a viewer shows them without a clip.

    Raises:
        MissingFileError: The file, or a file that it refers to, does not exist.
        FileFormatError: It is damaged, has no triangles, or needs an unsupported extension.
    """
    gltf = Gltf(path)
    refuse_extensions(gltf)
    with np.errstate(all="ignore"):  # validation of the meshes detects non-finite values
        return _read_parts(gltf)


def _read_parts(gltf: Gltf) -> dict[str, Mesh]:
    textures: dict[Any, Tensor] = {}
    parts: dict[str, Mesh] = {}
    numbers: dict[str, int] = {}  # per name, so that naming thousands of instances of a mesh takes linear time
    for index, pose in _placed_meshes(gltf):
        for primitive in gltf.primitives(index):
            if primitive.get("mode", _TRIANGLES) not in (_TRIANGLES, _STRIP, _FAN):
                continue  # points and lines
            name = base = str(gltf.item("meshes", index).get("name") or f"mesh_{index}")
            while name in parts:
                numbers[base] = numbers.get(base, 1) + 1
                name = f"{base}_{numbers[base]}"
            parts[name] = mesh_of(gltf, primitive, textures, pose, index)
    if not parts:
        raise FileFormatError(gltf.path, "holds no triangles", "meshes")
    return parts


def _placed_meshes(gltf: Gltf) -> list[tuple[int, RestPose]]:
    """Each mesh of the file's scene: its index and its pose. Without nodes, meshes are not transformed."""
    if not gltf.items("nodes"):
        return [(i, placed_at(gltf, np.eye(4))) for i in range(len(gltf.items("meshes")))]
    worlds = gltf.worlds()
    nodes = [index for index in worlds if "mesh" in gltf.item("nodes", index)]
    return [(gltf.whole(gltf.item("nodes", i), "mesh", f"nodes[{i}]"), RestPose.of(gltf, i, worlds)) for i in nodes]


def placed_at(gltf: Gltf, matrix: np.ndarray) -> RestPose:
    """The pose of a mesh that is only transformed by a matrix (4, 4)."""
    return RestPose(gltf, matrix, None, [])


def refuse_extensions(gltf: Gltf) -> None:
    """Raise a FileFormatError if the file needs an unsupported extension."""
    for name in _IGNORED.keys() & set(_strings(gltf, "extensionsUsed") + _strings(gltf, "extensionsRequired")):
        gltf.note(f"{gltf.path}: {_IGNORED[name]} ({name})")
    required = set(_strings(gltf, "extensionsRequired")) - _READ_EXTENSIONS - _IGNORED.keys()
    unknown = {name for name in required if not name.startswith(_SHADING)}
    if unknown:
        raise FileFormatError(
            gltf.path, f"needs the extensions {', '.join(sorted(unknown))}, which are not read", "extensionsRequired"
        )


def read_mesh(path: Path | str) -> Mesh:
    """All triangles of a .glb file as one mesh, in world coordinates of the rest pose; several textures form one atlas.

    Raises:
        MissingFileError: The file, or a file that it refers to, does not exist.
        FileFormatError: It is damaged, has no triangles, or its textures do not fit into one atlas (see `read_parts`).
    """
    parts = list(read_parts(path).values())
    try:
        return merge_textured(parts).validate()
    except InputError as error:
        raise FileFormatError(path, str(error)) from error


def write_mesh(path: Path | str, mesh: Mesh, scene_up: Axis | None = None) -> None:
    """Write a mesh atomically; if uvs are given by corner, vertices at seams are duplicated.

    Args:
        path: A .glb, or a .gltf.
        mesh: Written with its own axes, or rotated if `scene_up` is given.
        scene_up: Up axis of the scene of the mesh. It becomes y, as glTF requires, and is recorded in the file, so that
            `in_scene_axes` can rotate the mesh back.

    Raises:
        InputError: The mesh is empty or has invalid values.
    """
    builder = built(mesh if scene_up is None else to_y_up(mesh, scene_up))
    if scene_up is not None:
        builder.extras[_SCENE_UP] = scene_up
    builder.write(path)


def scene_up(path: Path | str) -> Axis | None:
    """The up axis of the scene that the mesh of a .glb or .gltf was made from (`write_mesh`).

    Returns:
        None if the file does not record it, or has another format.

    Raises:
        MissingFileError: The path does not exist.
        FileFormatError: It is damaged.
    """
    if Path(path).suffix.lower() not in (".glb", ".gltf"):
        return None
    asset = peek_json(Path(path)).get("asset")
    extras = asset.get("extras") if isinstance(asset, dict) else None
    up = extras.get(_SCENE_UP) if isinstance(extras, dict) else None
    return cast(Axis, up) if up in get_args(Axis) else None


def in_scene_axes(path: Path | str, mesh: Mesh) -> Mesh:
    """The mesh of a file in the axes of the scene that it was made from, if the file records them (`write_mesh`)."""
    up = scene_up(path)
    return mesh if up is None else from_y_up(mesh, up)


def mesh_bytes(mesh: Mesh) -> bytes:
    """The bytes that `write_mesh` writes to a .glb.

    Raises:
        InputError: The mesh is empty or has invalid values.
    """
    return built(mesh).to_bytes()


def built(mesh: Mesh) -> Builder:
    """The builder used by `write_mesh`, to which more can be added; the mesh is node 0."""
    mesh = mesh.validate().split_seams()
    if mesh.num_vertices >= 2**32 - 1:
        raise InputError(f"{mesh.num_vertices} vertices, a .glb holds fewer than 2^32 - 1")
    builder = Builder()
    attributes = {"POSITION": builder.array(_array(mesh.vertices))}
    if mesh.normals is not None:
        attributes["NORMAL"] = builder.array(_array(mesh.normals))
    if mesh.uvs is not None:
        attributes["TEXCOORD_0"] = builder.array(_array(mesh.uvs))
    if mesh.vertex_colors is not None:
        attributes["COLOR_0"] = builder.array(_color_array(mesh.vertex_colors))
    indices = builder.array(mesh.faces.cpu().numpy().astype(np.uint32).reshape(-1), indices=True)
    material: dict[str, Any] = {"pbrMetallicRoughness": {"metallicFactor": 0.0, "roughnessFactor": 1.0}, "doubleSided": True}
    if mesh.texture is not None:
        image = builder.append("images", {"bufferView": builder.view(_png(mesh.texture)), "mimeType": "image/png"})
        builder.append("samplers", {"wrapS": 10497, "wrapT": 10497, "magFilter": 9729, "minFilter": 9987})
        texture = builder.append("textures", {"source": image, "sampler": 0})
        material["pbrMetallicRoughness"]["baseColorTexture"] = {"index": texture}
    alphas = [value[..., 3] for value in (mesh.texture, mesh.vertex_colors) if value is not None and value.shape[-1] == 4]
    if alphas:
        is_cut_out = all(bool(((alpha == 0) | (alpha == 1)).all()) for alpha in alphas)
        material["alphaMode"] = "MASK" if is_cut_out else "BLEND"
    builder.append("materials", material)
    builder.append("meshes", {"primitives": [{"attributes": attributes, "indices": indices, "material": 0}]})
    builder.append("nodes", {"mesh": 0})
    builder.append("scenes", {"nodes": [0]})
    return builder


def srgb_to_linear(values: np.ndarray) -> np.ndarray:
    """Linear light of sRGB values (IEC 61966-2-1), computed in float64."""
    values = values.astype(np.float64)
    return np.where(values <= 0.04045, values / 12.92, ((np.maximum(values, 0) + 0.055) / 1.055) ** 2.4)


def linear_to_srgb(values: np.ndarray) -> np.ndarray:
    """sRGB values of linear light, computed in float64."""
    values = values.astype(np.float64)
    return np.where(values <= 0.0031308, values * 12.92, 1.055 * np.maximum(values, 0) ** (1 / 2.4) - 0.055)


def mesh_of(gltf: Gltf, primitive: dict[str, Any], textures: dict[Any, Tensor], pose: RestPose, number: int) -> Mesh:
    """A primitive of mesh `number` as a mesh in a pose; images are read once and cached in `textures`."""
    path = gltf.path
    attributes = primitive.get("attributes")
    if not isinstance(attributes, dict) or "POSITION" not in attributes:
        raise FileFormatError(path, "a primitive has no POSITION", "meshes")
    vertices = gltf.array(attributes["POSITION"], (3,)).astype(np.float32)
    if "indices" in primitive:
        indices = gltf.array(primitive["indices"], (1,))[:, 0].astype(np.int64)
    else:
        indices = np.arange(len(vertices))
    if len(indices) and (indices.min() < 0 or indices.max() >= len(vertices)):
        raise FileFormatError(path, f"an index is {indices.max()}, but there are {len(vertices)} vertices", "indices")
    faces = _triangles(path, indices, primitive.get("mode", _TRIANGLES))
    normals = uvs = colors = None
    if "NORMAL" in attributes:
        normals = gltf.array(attributes["NORMAL"], (3,)).astype(np.float32)
    vertices, normals, is_mirrored = pose.applied(primitive, number, vertices, normals)
    if is_mirrored:
        faces = faces[:, ::-1].copy()
    material = gltf.item("materials", primitive["material"]) if "material" in primitive else {}
    texture, factor, (uv_set, moved), alpha = _surface(gltf, material, textures)
    if texture is not None and f"TEXCOORD_{uv_set}" not in attributes:
        texture = None  # a glTF texture needs texture coordinates
    if f"TEXCOORD_{uv_set}" in attributes:
        uvs = gltf.array(attributes[f"TEXCOORD_{uv_set}"], (2,)).astype(np.float32)
        if moved is not None:
            uvs = (uvs @ moved[:, :2].T + moved[:, 2]).astype(np.float32)
    if "COLOR_0" in attributes:
        colors = gltf.array(attributes["COLOR_0"], (3, 4)).astype(np.float32)
        if alpha.mode == "OPAQUE":
            colors = colors[:, :3]
        elif colors.shape[1] == 4:
            colors[:, 3] = alpha.of(colors[:, 3])
    if factor is not None:
        width = 4 if factor[3] != 1 or (colors is not None and colors.shape[1] == 4) else 3
        base = np.ones((len(vertices), width), np.float32)
        if colors is not None and len(colors) == len(vertices):
            base[:, : colors.shape[1]] = colors
        colors = base * factor[:width]
    if colors is not None:
        colors = np.concatenate([linear_to_srgb(colors[:, :3]), colors[:, 3:]], 1).astype(np.float32)
    arrays = {"uvs": uvs, "normals": normals, "vertex_colors": colors}
    for name, values in arrays.items():
        if values is not None and len(values) != len(vertices):
            raise FileFormatError(path, f"a primitive has {len(vertices)} vertices but {len(values)} {name}", "meshes")
    tensors = {name: None if values is None else torch.from_numpy(values) for name, values in arrays.items()}
    mesh = Mesh(torch.from_numpy(vertices), torch.from_numpy(faces), texture=texture, **tensors)
    return with_finite_values(path, mesh)


@dataclass(frozen=True)
class _Alpha:
    """Alpha mode of a material."""

    mode: str
    cutoff: float

    @classmethod
    def of_material(cls, gltf: Gltf, material: dict[str, Any]) -> "_Alpha":
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


def _surface(
    gltf: Gltf, material: dict[str, Any], textures: dict[Any, Tensor]
) -> tuple[Tensor | None, np.ndarray | None, tuple[int, np.ndarray | None], _Alpha]:
    """Texture, color factor (linear RGBA; None when white), uv set with its transform (2, 3), and alpha mode of a material.

    The alpha factor is multiplied into the texture if there is one, so that the cut-off of MASK applies once.
    """
    alpha = _Alpha.of_material(gltf, material)
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
        if source is None and (kind := next(iter(entry.get("extensions") or ()), None)):
            raise FileFormatError(gltf.path, f"has only an image of {str(kind)[:40]}, which is not read", "textures")
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


def _triangles(path: Path, indices: np.ndarray, mode: int) -> np.ndarray:
    if mode == _TRIANGLES:
        if len(indices) % 3:
            raise FileFormatError(path, f"a primitive has {len(indices)} indices, want a multiple of 3", "indices")
        return indices.reshape(-1, 3)
    if len(indices) < 3:
        return np.empty((0, 3), np.int64)
    if mode == _FAN:
        return np.stack([np.full(len(indices) - 2, indices[0]), indices[1:-1], indices[2:]], 1)
    faces = np.stack([indices[:-2], indices[1:-1], indices[2:]], 1)
    faces[1::2] = faces[1::2, [1, 0, 2]]  # every second triangle of a strip has the opposite orientation
    return faces


def _strings(gltf: Gltf, key: str) -> list[str]:
    found = gltf.content.get(key, [])
    return [str(item) for item in found] if isinstance(found, list) else []


def _array(values: Tensor) -> np.ndarray:
    return np.ascontiguousarray(values.detach().to("cpu", torch.float32).numpy())


def _color_array(colors: Tensor) -> np.ndarray:
    values = colors.detach().cpu().clamp(0, 1).double().numpy()
    return np.ascontiguousarray(np.concatenate([srgb_to_linear(values[:, :3]), values[:, 3:]], 1), np.float32)


def _png(texture: Tensor) -> bytes:
    from PIL import Image

    buffer = io.BytesIO()
    values = (texture.detach().cpu().clamp(0, 1) * 255).round().to(torch.uint8)
    Image.fromarray(values.numpy()).save(buffer, "PNG", compress_level=4)
    return buffer.getvalue()
