"""Meshes as binary glTF 2.0 (.glb).

A Mesh becomes one node with one primitive: POSITION, NORMAL, TEXCOORD_0 and COLOR_0 as float32, indices as uint32, the
texture as an embedded 8-bit PNG. Axes are preserved, so reading and writing a file does not change it; only a mesh whose
scene is known to have another up axis is rotated (`write_mesh`), since glTF is y-up. glTF's vertex colors are linear light;
ours are sRGB and are converted. Alpha is read according to the material's alphaMode: dropped for OPAQUE, 0 or 1 for MASK. It
is written as MASK if it is 0 or 1 everywhere, else as BLEND.
"""

import io
from pathlib import Path
from typing import Any, cast, get_args

import numpy as np
import torch
from torch import Tensor

from vision3d.core.errors import FileFormatError, InputError, ShapeError
from vision3d.io import gltf_draco, gltf_instances, gltf_meshopt
from vision3d.io.gltf_builder import Builder
from vision3d.io.gltf_container import Gltf, peek_json
from vision3d.io.gltf_material import MATTE, Material, surface
from vision3d.io.gltf_pose import RestPose
from vision3d.io.mesh_repair import with_finite_values
from vision3d.scene.mesh import Mesh
from vision3d.scene.texture_atlas import merge_textured
from vision3d.scene.upright import Axis, from_y_up, to_y_up

_TRIANGLES, _STRIP, _FAN = 4, 5, 6
_SCENE_UP = "vision3d_scene_up"
_READ_EXTENSIONS = {
    gltf_draco.EXTENSION, gltf_instances.EXTENSION, *gltf_meshopt.EXTENSIONS,
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
        MissingDependencyError: It is compressed with Draco or meshopt, and DracoPy or meshopt is not installed.
    """
    return _read_parts(opened(path))


@np.errstate(all="ignore")  # validation of the meshes detects non-finite values
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
    return [
        (gltf.whole(gltf.item("nodes", i), "mesh", f"nodes[{i}]"), pose) for i in nodes for pose in RestPose.of(gltf, i, worlds)
    ]


def placed_at(gltf: Gltf, matrix: np.ndarray) -> RestPose:
    """The pose of a mesh that is only transformed by a matrix (4, 4)."""
    return RestPose(gltf, matrix, None, [])


def opened(path: Path | str) -> Gltf:
    """A file of meshes, with compressed primitives unpacked.

    Raises:
        MissingFileError: The file, or a file that it refers to, does not exist.
        FileFormatError: It is damaged or needs an unsupported extension.
        MissingDependencyError: It is compressed with Draco or meshopt, and DracoPy or meshopt is not installed.
    """
    gltf = Gltf(path)
    for name in _IGNORED.keys() & set(_strings(gltf, "extensionsUsed") + _strings(gltf, "extensionsRequired")):
        gltf.note(f"{gltf.path}: {_IGNORED[name]} ({name})")
    required = set(_strings(gltf, "extensionsRequired")) - _READ_EXTENSIONS - _IGNORED.keys()
    unknown = {name for name in required if not name.startswith(_SHADING)}
    if unknown:
        raise FileFormatError(
            gltf.path, f"needs the extensions {', '.join(sorted(unknown))}, which are not read", "extensionsRequired"
        )
    gltf_meshopt.unpack(gltf)
    gltf_draco.unpack(gltf)
    return gltf


def read_mesh(path: Path | str) -> Mesh:
    """All triangles of a .glb file as one mesh, in world coordinates of the rest pose; several textures form one atlas.

    Raises:
        MissingFileError: The file, or a file that it refers to, does not exist.
        FileFormatError: It is damaged, has no triangles, or needs an unsupported extension.
        MissingDependencyError: It is compressed with Draco or meshopt, and DracoPy or meshopt is not installed.
    """
    return mesh_in(opened(path))


def mesh_in(gltf: Gltf) -> Mesh:
    """`read_mesh` of an opened file."""
    parts = list(_read_parts(gltf).values())
    try:
        return merge_textured(parts).validate()
    except InputError as error:
        raise FileFormatError(gltf.path, str(error)) from error


def write_mesh(path: Path | str, mesh: Mesh, scene_up: Axis | None = None, material: Material = MATTE) -> None:
    """Write a mesh atomically; if uvs are given by corner, vertices at seams are duplicated.

    Args:
        path: A .glb, or a .gltf.
        mesh: Written with its own axes, or rotated if `scene_up` is given.
        scene_up: Up axis of the scene of the mesh. It becomes y, as glTF requires, and is recorded in the file, so that
            `in_scene_axes` can rotate the mesh back.
        material: Metallic factor and roughness factor, of the mesh or of the texels at its uvs.

    Raises:
        InputError: The mesh is empty or has invalid values, or factors by texel are given for one without uvs.
    """
    builder = built(mesh if scene_up is None else to_y_up(mesh, scene_up), material)
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


def built(mesh: Mesh, material: Material = MATTE) -> Builder:
    """The builder used by `write_mesh`, to which more can be added; the mesh is node 0."""
    mesh = mesh.validate().split_seams()
    if mesh.num_vertices >= 2**32 - 1:
        raise InputError(f"{mesh.num_vertices} vertices, a .glb holds fewer than 2^32 - 1")
    builder = Builder()
    primitive = primitive_of(builder, mesh)
    primitive["material"] = material_of(builder, mesh, material)
    builder.append("meshes", {"primitives": [primitive]})
    builder.append("nodes", {"mesh": 0})
    builder.append("scenes", {"nodes": [0]})
    return builder


def primitive_of(builder: Builder, mesh: Mesh) -> dict[str, Any]:
    """A primitive, without material, of a mesh with uvs by vertex; its arrays are added to the builder."""
    attributes = {"POSITION": builder.array(_array(mesh.vertices))}
    if mesh.normals is not None:
        attributes["NORMAL"] = builder.array(_array(mesh.normals))
    if mesh.uvs is not None:
        attributes["TEXCOORD_0"] = builder.array(_array(mesh.uvs))
    if mesh.vertex_colors is not None:
        attributes["COLOR_0"] = builder.array(_color_array(mesh.vertex_colors))
    indices = builder.array(mesh.faces.cpu().numpy().astype(np.uint32).reshape(-1), indices=True)
    return {"attributes": attributes, "indices": indices}


def material_of(builder: Builder, mesh: Mesh, factors: Material = MATTE) -> int:
    """Index of a new material with the texture and the alpha mode of a mesh, and its metallic and roughness factors."""
    rough: dict[str, Any] = {}
    if isinstance(factors, Tensor):
        if factors.ndim != 3 or factors.shape[2] != 2 or mesh.uvs is None:
            raise ShapeError("material", tuple(factors.shape), "(H, W, 2) for a mesh with uvs, or two numbers")
        # Red stays 1: programs that read occlusion there find none.
        image = torch.stack([torch.ones_like(factors[..., 0]), factors[..., 1], factors[..., 0]], -1)
        rough["metallicRoughnessTexture"] = {"index": _texture(builder, image)}
    else:
        rough |= dict(zip(("metallicFactor", "roughnessFactor"), factors))
    material: dict[str, Any] = {"pbrMetallicRoughness": rough, "doubleSided": True}
    if mesh.texture is not None:
        rough["baseColorTexture"] = {"index": _texture(builder, mesh.texture)}
    alphas = [value[..., 3] for value in (mesh.texture, mesh.vertex_colors) if value is not None and value.shape[-1] == 4]
    if alphas:
        is_cut_out = all(bool(((alpha == 0) | (alpha == 1)).all()) for alpha in alphas)
        material["alphaMode"] = "MASK" if is_cut_out else "BLEND"
    return builder.append("materials", material)


def _texture(builder: Builder, image: Tensor) -> int:
    """Index of a new texture that repeats."""
    source = builder.append("images", {"bufferView": builder.view(_png(image)), "mimeType": "image/png"})
    if "samplers" not in builder.content:
        builder.append("samplers", {"wrapS": 10497, "wrapT": 10497, "magFilter": 9729, "minFilter": 9987})
    return builder.append("textures", {"source": source, "sampler": 0})


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
    texture, factor, (uv_set, moved), alpha = surface(gltf, material, textures)
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
