"""Meshes and Gaussians in one image, with per-pixel occlusion of Gaussians by meshes."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Float, Int32
from torch import Tensor

from vision3d.core.errors import DeviceError, InputError
from vision3d.geometry.cameras import CameraModel
from vision3d.render.maps import depth_to_normals
from vision3d.render.meshes import shading as shades
from vision3d.render.meshes.api import Fragments, rasterize
from vision3d.render.meshes.lights import Lights
from vision3d.render.meshes.positions import screen_positions
from vision3d.render.meshes.silhouettes import antialias as blend_silhouettes, edge_neighbors
from vision3d.render.meshes.veils import Layers, Veil, split_opaque
from vision3d.render.timeline import Timeline
from vision3d.render.views import View, check_views, draw, one_each, render_views
from vision3d.scene import Cameras, FrameSequence, GaussianScene, Mesh, MeshGaussians, Scene, SkinnedMesh

Drawable = GaussianScene | Mesh | MeshGaussians | SkinnedMesh


def render_scene(
    objects: Scene | Drawable | FrameSequence | Timeline | Sequence[Drawable | FrameSequence],
    cameras: Cameras,
    *,
    backgrounds: Float[Tensor, "3"] | Float[Tensor, "c 3"] | Sequence[float] | None = None,
    render_mode: str = "RGB",
    shading: str = "smooth",
    lights: Lights | None = None,
    antialias: bool = True,
    sh_degree: int | None = None,
    near_plane: float = 0.01,
    alpha_max: float = 0.99,
    backend: str = "auto",
) -> Iterator[View]:
    """Render Gaussians and meshes together from each camera, one at a time, with gradients for tensors that require them.

    A Gaussian contributes to a pixel only if its depth (of its center, as for the blending order) is less than that of the mesh
    there; the mesh gets the remaining transmittance: C = sum_i T_i alpha_i c_i + T mesh. Of meshes, the nearest is visible;
    faces with an alpha below 1 are blended over what is behind them, one connected piece at a time, below all Gaussians.
    Without meshes this is `render_views`.

    Gradients flow to everything visible; through the silhouettes of meshes with `antialias`. Occlusion of Gaussians has none.

    Args:
        objects: Gaussians, meshes, and Gaussians on meshes (rendered as Gaussians), or a scene of them, whose other objects are
            ignored. All Gaussians have one mode (flat counts as 3dgs) and are on the device of the cameras. If something is
            animated (a `FrameSequence`, or a `SkinnedMesh` whose first clip is played and repeated), there is one view per
            frame, from one camera or from one camera per frame. A `Timeline` of the objects sets the frames.
        cameras: Without lens distortion; pinhole or ortho if there are meshes.
        backgrounds: sRGB background color, for all cameras or one each; black when None.
        render_mode: RGB, D, ED, RGB+D or RGB+ED.
        shading: For meshes: smooth, flat, none, normals, uvs or depth; see `vision3d.render.meshes.shade`.
        lights: For smooth and flat; `Lights()` when None.
        antialias: Blend the silhouettes of meshes with their surroundings, where Gaussians do not cover them.
        sh_degree: Degree of the harmonics to use; all when None.
        near_plane: Minimum visible depth [m].
        alpha_max: Maximum alpha of one Gaussian.
        backend: auto, native or reference.

    Returns:
        Views as from `render_views`. Alpha is 1 where a mesh is visible; the depth of meshes is not antialiased. Normals are
        those of meshes and of Gaussians, weighted like colors; None if there are 3D Gaussians and the mode is not an ED one.

    Raises:
        InputError: Nothing to render, Gaussians have different modes, or the cameras are not supported.
        DeviceError: Objects are on different devices than the cameras.

    Example:
        >>> from vision3d import Cameras, GaussianScene, Mesh
        >>> objects = [GaussianScene.load("room.ply"), Mesh.load("chair.glb")]
        >>> for view in render_scene(objects, Cameras.load("cameras.json"), render_mode="RGB+ED"):
        ...     print(view.image.shape, view.depth.median())
    """
    timeline = objects if isinstance(objects, Timeline) else Timeline.of(objects)
    if timeline is not None:
        backgrounds = one_each(backgrounds, len(timeline), cameras.viewmats)
        style = {
            "render_mode": render_mode, "shading": shading, "lights": lights, "antialias": antialias, "sh_degree": sh_degree,
            "near_plane": near_plane, "alpha_max": alpha_max, "backend": backend,
        }  # fmt: skip
        return _in_time(timeline, timeline.cameras(cameras), backgrounds, style)
    assert not isinstance(objects, Timeline)
    gaussians, meshes = split_objects(objects)
    check_views(gaussians, cameras, render_mode)
    for value in (*meshes, *([] if gaussians is None else [gaussians])):
        if value.device != cameras.viewmats.device:
            raise DeviceError(f"objects: got one on {value.device}, want {cameras.viewmats.device} as the cameras")
    if not meshes and gaussians is not None:
        return render_views(
            gaussians, cameras, backgrounds=backgrounds, render_mode=render_mode, sh_degree=sh_degree, near_plane=near_plane,
            alpha_max=alpha_max, backend=backend,
        )  # fmt: skip
    if cameras.model not in ("pinhole", "ortho"):
        raise InputError(f"cameras: got model {cameras.model}; meshes are drawn in pinhole and ortho cameras only")
    shades.check_shading(shading)
    if shading == "uvs" and any(mesh.uvs is None for mesh in meshes):
        raise InputError("shading: got uvs, but a mesh has none; want smooth, flat, none, normals or depth")
    backdrop = one_each(backgrounds, len(cameras), meshes[0].vertices)
    style = {"shading": shading, "lights": lights, "backend": backend}
    degree = None if gaussians is None else min(gaussians.sh_degree, 4 if sh_degree is None else sh_degree)
    splatting = {"sh_degree": degree, "near_plane": near_plane, "alpha_max": alpha_max, "backend": backend}
    opaque, veils = split_opaque(meshes)
    opaque = opaque or [_nothing(meshes[0])]
    return _views(gaussians, _Meshes.of(opaque), veils, cameras, backdrop, render_mode, antialias, style, splatting)


def _nothing(like: Mesh) -> Mesh:
    """A mesh that is never visible."""
    return Mesh(torch.zeros_like(like.vertices[:1]), torch.zeros_like(like.faces[:1]))


def _in_time(timeline: Timeline, cameras: Cameras, backgrounds: Tensor | None, style: dict[str, Any]) -> Iterator[View]:
    for i in range(len(timeline)):
        background = None if backgrounds is None else backgrounds[i]
        yield from render_scene(timeline.at(i), cameras[i : i + 1], backgrounds=background, **style)


def _placed(value: Drawable) -> GaussianScene | Mesh:
    if isinstance(value, SkinnedMesh):
        return value.at_rest()
    return value.to_gaussians() if isinstance(value, MeshGaussians) else value


def split_objects(
    objects: Scene | Drawable | FrameSequence | Sequence[Drawable | FrameSequence],
) -> tuple[GaussianScene | None, list[Mesh]]:
    """All Gaussians merged, and the meshes, in world coordinates; skins of a scene become meshes in their rest pose.

    Animated objects must be resolved to a frame first (`Timeline.at`).

    Raises:
        InputError: Nothing to render, a sequence of an unsupported type, or Gaussians have different modes.
    """
    if isinstance(objects, Scene):
        placed = [
            (_placed(value), objects.transforms.get(name))
            for name, value in objects.objects.items()
            if isinstance(value, Drawable)
        ]
        parts = [value if matrix is None else value.transform(matrix) for value, matrix in placed]
    else:
        parts = [objects] if isinstance(objects, Drawable | FrameSequence) else list(objects)
    for value in parts:
        if not isinstance(value, Drawable):
            raise InputError(
                f"objects: got {type(value).__name__}, want GaussianScene, Mesh, MeshGaussians, SkinnedMesh or FrameSequence"
            )
    bound = [_placed(value) for value in parts if isinstance(value, Drawable)]
    meshes = [value for value in bound if isinstance(value, Mesh)]
    splats = [value for value in bound if isinstance(value, GaussianScene)]
    if not parts:
        raise InputError("objects: got nothing to draw, want Gaussians or meshes")
    if not splats:
        return None, meshes
    if len({value.mode for value in splats}) > 1:  # 2dgs and others need different rasterizers
        splats = [replace(value, mode="3dgs") if value.mode == "flat" else value for value in splats]
    return splats[0].merge(*splats[1:]), meshes


@dataclass(frozen=True, eq=False)
class _Meshes:
    """Several meshes as one surface of V welded vertices and F faces."""

    surfaces: list[shades.Surface]
    first_faces: list[int]
    vertices: Float[Tensor, "v 3"]
    faces: Int32[Tensor, "f 3"]
    """Welded positions, so that texture seams are not silhouettes."""
    neighbors: Int32[Tensor, "f 3"]

    @classmethod
    def of(cls, meshes: Sequence[Mesh]) -> "_Meshes":
        welded, faces, first_faces, count = [], [], [], 0
        for mesh in meshes:
            _, place = torch.unique(mesh.vertices.detach(), dim=0, return_inverse=True)
            first_faces.append(sum(map(len, faces)))
            faces.append(place[mesh.faces] + count)
            welded.append(mesh.vertices[shades.first_of_each(place)])
            count += len(welded[-1])
        joined = torch.cat(faces).int()
        return cls([shades.Surface.of(mesh) for mesh in meshes], first_faces, torch.cat(welded), joined, edge_neighbors(joined))

    def shade(
        self, fragments: Fragments, viewmats: Tensor, Ks: Tensor, model: CameraModel, **style: Any
    ) -> tuple[Float[Tensor, "1 h w 3"], Float[Tensor, "1 h w 3"]]:
        """Colors and normals; zero where no mesh is visible."""
        color = normal = 0.0
        for surface, first in zip(self.surfaces, self.first_faces):
            ids = fragments.face_ids - first
            ids = torch.where((ids >= 0) & (ids < surface.mesh.num_faces), ids, -1)
            seen = ids >= 0
            if not bool(seen.any()):
                continue
            # All depths are kept: the colors of shading depth share one range.
            own = Fragments(ids, fragments.barycentrics * seen[..., None], fragments.depths)
            positions = screen_positions(surface.mesh.vertices, viewmats, Ks, model)
            part = shades.shade(surface, positions, own, viewmats, camera_model=model, **style)
            color, normal = color + part[0], normal + part[1]
        nothing = fragments.barycentrics.new_zeros(fragments.barycentrics.shape)
        return nothing + color, nothing + normal


def _views(
    gaussians: GaussianScene | None,
    meshes: _Meshes,
    veils: list[Veil],
    cameras: Cameras,
    backdrop: Tensor | None,
    render_mode: str,
    antialias: bool,
    style: dict[str, Any],
    splatting: dict[str, Any],
) -> Iterator[View]:
    backend, near_plane = splatting["backend"], splatting["near_plane"]
    for i, (width, height) in enumerate(zip(cameras.width.tolist(), cameras.height.tolist())):
        viewmats, Ks = cameras.viewmats[i : i + 1], cameras.Ks[i : i + 1]
        positions = screen_positions(meshes.vertices, viewmats, Ks, cameras.model)
        fragments = rasterize(positions, meshes.faces, width, height, near_plane=near_plane, backend=backend)
        hit = fragments.face_ids >= 0
        color, normal = meshes.shade(fragments, viewmats, Ks, cameras.model, **style)
        if backdrop is not None:
            color = torch.where(hit[..., None], color, backdrop[i])
        layers = Layers(color, normal, hit.to(color.dtype), fragments.depths)
        layers = layers.under(veils, hit, viewmats, Ks, (width, height), cameras.model, near_plane, **style)
        color, normal, alpha, depth = layers.color, layers.normal, layers.alpha, layers.depth
        left = alpha
        if gaussians is not None:
            limits = torch.where(hit, fragments.depths, torch.inf).detach()
            splats = _splats(gaussians, cameras.model, viewmats, Ks, width, height, limits, **splatting)
            through = 1 - splats.alpha
            color = splats.color + through[..., None] * color
            left = through * alpha
            alpha, depth = torch.where(hit, 1, splats.alpha + left), splats.depth + through * depth
            normal = _normals(gaussians, splats, normal, left, viewmats, Ks, cameras.model, render_mode)
        covered = alpha
        if antialias and render_mode not in ("D", "ED"):
            # Gaussians cover silhouettes behind them.
            shown = torch.nn.functional.max_pool2d(left, 3, 1, 1)[..., None]
            layers = torch.cat([color, alpha[..., None]], -1)
            blended = blend_silhouettes(layers, positions, meshes.faces, fragments, neighbors=meshes.neighbors, backend=backend)
            color, alpha = torch.lerp(layers, blended, shown).split([3, 1], -1)
            alpha = alpha[..., 0]
        if render_mode.endswith("ED"):
            depth = depth / torch.where(hit, 1, covered).clamp(min=1e-10)
        yield View(
            None if render_mode in ("D", "ED") else color[0],
            alpha[0],
            None if render_mode == "RGB" else depth[0],
            None if normal is None else normal[0],
        )


@dataclass(frozen=True, eq=False)
class _Splats:
    """Gaussians in front of the meshes: colors and depths are weighted."""

    color: Float[Tensor, "1 h w 3"]
    alpha: Float[Tensor, "1 h w"]
    depth: Float[Tensor, "1 h w"]
    normal: Float[Tensor, "1 h w 3"] | None


def _splats(
    scene: GaussianScene,
    model: CameraModel,
    viewmats: Tensor,
    Ks: Tensor,
    width: int,
    height: int,
    limits: Float[Tensor, "1 h w"],
    **options: Any,
) -> _Splats:
    gaussians = (scene.means, scene.quats, scene.scales, scene.opacities, scene.sh)
    options |= {"render_mode": "RGB+D", "max_depths": limits}
    rendered, alpha, normal = draw(scene, gaussians, model, viewmats, Ks, width, height, **options)
    return _Splats(rendered[..., :-1], alpha[..., 0], rendered[..., -1], normal)


def _normals(
    scene: GaussianScene,
    splats: _Splats,
    of_meshes: Tensor,
    left: Tensor,
    viewmats: Tensor,
    Ks: Tensor,
    model: CameraModel,
    render_mode: str,
) -> Tensor | None:
    """Weighted normals of the 2D Gaussians and the meshes; for 3D Gaussians those of their expected depth."""
    if splats.normal is not None:
        return splats.normal + left[..., None] * of_meshes
    if not render_mode.endswith("ED"):
        return None
    surface = depth_to_normals(splats.depth / splats.alpha.clamp(min=1e-10), viewmats, Ks, model)
    return torch.lerp(surface, of_meshes, left[..., None])
