"""Animated meshes as USD (.usd, .usda, .usdc): time samples of the points, with the package usd-core (extra `usd`).

Axes are kept and declared y-up, as in glTF; lengths are meters. A time code is a frame: the rate is that of the frames in the
middle. The texture is a .png next to the file.
"""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vision3d.core.atomic import atomic_write
from vision3d.core.errors import InputError, MissingDependencyError
from vision3d.io.glb import srgb_to_linear
from vision3d.io.images import write_image
from vision3d.scene.mesh import Mesh
from vision3d.scene.sequence import FrameSequence

SUFFIXES = (".usd", ".usda", ".usdc")


def write_sequence(path: Path | str, sequence: FrameSequence) -> None:
    """Write a mesh, or the mesh under Gaussians, with its points (and normals) in every frame, atomically.

    Raises:
        InputError: No frames, the base is not a mesh, or the suffix is not supported.
        MissingDependencyError: usd-core is not installed.
    """
    path, usd = Path(path), _usd()
    if path.suffix.lower() not in SUFFIXES:
        raise InputError(f"{path}: no USD suffix; want {', '.join(SUFFIXES)}")
    if not len(sequence):
        raise InputError("FrameSequence: has 0 frames, want at least one")
    times = sequence.times.double().cpu().numpy()
    rate = _rate(times)
    stage = usd.Usd.Stage.CreateInMemory()
    usd.UsdGeom.SetStageUpAxis(stage, usd.UsdGeom.Tokens.y)
    usd.UsdGeom.SetStageMetersPerUnit(stage, 1.0)
    stage.SetTimeCodesPerSecond(rate)
    stage.SetFramesPerSecond(rate)
    stage.SetStartTimeCode(float(times[0]) * rate)
    stage.SetEndTimeCode(float(times[-1]) * rate)
    stage.SetDefaultPrim(usd.UsdGeom.Xform.Define(stage, "/root").GetPrim())
    prim = usd.UsdGeom.Mesh.Define(stage, "/root/mesh")
    rest = sequence.mesh_at(0)
    _add_surface(usd, prim, rest)
    if rest.texture is not None:
        write_image(path.with_suffix(".png"), rest.texture)
        _add_texture(usd, stage, prim, f"./{path.stem}.png")
    points, extent = prim.CreatePointsAttr(), prim.CreateExtentAttr()
    normals = prim.CreateNormalsAttr() if rest.normals is not None else None
    prim.SetNormalsInterpolation(usd.UsdGeom.Tokens.vertex)
    for index, time in enumerate(times):
        mesh, code = sequence.mesh_at(index), usd.Usd.TimeCode(float(time) * rate)
        found = usd.Vt.Vec3fArray.FromNumpy(_array(mesh.vertices))
        points.Set(found, code)
        extent.Set(usd.UsdGeom.PointBased.ComputeExtent(found), code)
        if normals is not None and mesh.normals is not None:
            normals.Set(usd.Vt.Vec3fArray.FromNumpy(_array(mesh.normals)), code)
    with atomic_write(path) as temporary:
        stage.GetRootLayer().Export(str(temporary))


def save(path: Path, value: FrameSequence) -> None:
    """Codec: write the frames of a mesh."""
    write_sequence(path, value)


def _usd() -> SimpleNamespace:
    try:
        from pxr import Sdf, Usd, UsdGeom, UsdShade, Vt
    except ImportError as error:
        raise MissingDependencyError("usd-core", "usd", "meshes as USD") from error
    return SimpleNamespace(Sdf=Sdf, Usd=Usd, UsdGeom=UsdGeom, UsdShade=UsdShade, Vt=Vt)


def _rate(times: np.ndarray) -> float:
    """Frames per second in the middle; rounded if it is nearly an integer."""
    rate = 1 / float(np.median(np.diff(times))) if len(times) > 1 else 24.0
    return float(round(rate)) if abs(rate - round(rate)) < 1e-3 * rate and round(rate) else rate


def _add_surface(usd: SimpleNamespace, prim: Any, mesh: Mesh) -> None:
    """Faces, texture coordinates and colors."""
    prim.CreateSubdivisionSchemeAttr(usd.UsdGeom.Tokens.none)
    prim.CreateDoubleSidedAttr(True)
    prim.CreateFaceVertexCountsAttr(usd.Vt.IntArray.FromNumpy(np.full(mesh.num_faces, 3, np.int32)))
    prim.CreateFaceVertexIndicesAttr(usd.Vt.IntArray.FromNumpy(mesh.faces.cpu().numpy().astype(np.int32).reshape(-1)))
    primvars = usd.UsdGeom.PrimvarsAPI(prim)
    if mesh.uvs is not None:
        kind = usd.UsdGeom.Tokens.faceVarying if mesh.uvs.ndim == 3 else usd.UsdGeom.Tokens.vertex
        uvs = torch.stack([mesh.uvs[..., 0], 1 - mesh.uvs[..., 1]], -1).reshape(-1, 2)  # v points up in USD
        coordinates = primvars.CreatePrimvar("st", usd.Sdf.ValueTypeNames.TexCoord2fArray, kind)
        coordinates.Set(usd.Vt.Vec2fArray.FromNumpy(_array(uvs)))
    if mesh.vertex_colors is not None:
        colors = srgb_to_linear(_array(mesh.vertex_colors[:, :3])).astype(np.float32)
        shown = prim.CreateDisplayColorPrimvar(usd.UsdGeom.Tokens.vertex)
        shown.Set(usd.Vt.Vec3fArray.FromNumpy(colors))


def _add_texture(usd: SimpleNamespace, stage: Any, prim: Any, file: str) -> None:
    """A material that samples an image by the primvar st."""
    names = usd.Sdf.ValueTypeNames
    material = usd.UsdShade.Material.Define(stage, "/root/material")
    surface, image, reader = (
        usd.UsdShade.Shader.Define(stage, f"/root/material/{name}") for name in ("surface", "image", "reader")
    )
    surface.CreateIdAttr("UsdPreviewSurface")
    image.CreateIdAttr("UsdUVTexture")
    reader.CreateIdAttr("UsdPrimvarReader_float2")
    reader.CreateInput("varname", names.String).Set("st")
    image.CreateInput("file", names.Asset).Set(file)
    image.CreateInput("sourceColorSpace", names.Token).Set("sRGB")
    for wrap in ("wrapS", "wrapT"):
        image.CreateInput(wrap, names.Token).Set("repeat")
    image.CreateInput("st", names.Float2).ConnectToSource(reader.CreateOutput("result", names.Float2))
    color = surface.CreateInput("diffuseColor", names.Color3f)
    color.ConnectToSource(image.CreateOutput("rgb", names.Float3))
    surface.CreateInput("roughness", names.Float).Set(1.0)
    material.CreateSurfaceOutput().ConnectToSource(surface.CreateOutput("surface", names.Token))
    usd.UsdShade.MaterialBindingAPI.Apply(prim.GetPrim()).Bind(material)


def _array(values: Tensor) -> np.ndarray:
    return np.ascontiguousarray(values.detach().to("cpu", torch.float32).numpy())
