"""Scene types prepared for drawing: everything independent of the view is computed once."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int32, Int64
from torch import Tensor

from vision3d.geometry import se3
from vision3d.geometry.mesh import vertex_normals
from vision3d.geometry.spherical_harmonics import rgb_to_sh0, sh0_to_rgb
from vision3d.render.meshes import edge_neighbors, shading
from vision3d.render.meshes.veils import Veil, split_opaque
from vision3d.scene import Boxes, GaussianScene, Mesh, PointCloud
from vision3d.scene.lines import box_lines

COLORS = torch.tensor(
    [[0.98, 0.55, 0.24], [0.30, 0.69, 0.95], [0.45, 0.80, 0.44], [0.93, 0.42, 0.60], [0.70, 0.58, 0.95], [0.95, 0.82, 0.35]]
)
"""Default color of labels, selections and everything without a color."""


@dataclass(frozen=True, eq=False)
class Splats:
    """Activated Gaussians, ordered so that every prefix is an even sample of the scene."""

    means: Float[Tensor, "n 3"]
    quats: Float[Tensor, "n 4"]
    scales: Float[Tensor, "n 3"]
    opacities: Float[Tensor, " n"]
    colors: Float[Tensor, "n 3"]
    """Base colors, without view-dependent harmonics."""
    sh: Float[Tensor, "n k 3"] | None
    """None if colors do not depend on the view."""
    degree: int
    mode: str
    antialiased: bool
    rows: Int64[Tensor, " n"]
    """Index of each Gaussian in the scene."""

    @classmethod
    @torch.no_grad()
    def of(cls, scene: GaussianScene) -> "Splats":
        """The visible Gaussians, ready to render on the CPU."""
        scene = scene.to("cpu")
        # Fainter ones never reach 1/255 and would be projected for nothing.
        seen = (scene.opacities > 1 / 255).nonzero()[:, 0]
        rows = seen[sampling_order(len(seen))]
        base = sh0_to_rgb(scene.sh[:, 0])[rows].float().clamp(min=0).contiguous()
        sh = scene.sh[rows].float().contiguous() if scene.sh_degree else None
        return cls(
            means=scene.means[rows].float().contiguous(),
            quats=torch.nn.functional.normalize(scene.quats[rows].float(), dim=-1).contiguous(),
            scales=scene.scales[rows].float().contiguous(),
            opacities=scene.opacities[rows].float().contiguous(),
            colors=base,
            sh=sh,
            degree=scene.sh_degree,
            mode=scene.mode,
            antialiased=scene.antialiased,
            rows=rows,
        )

    @classmethod
    @torch.no_grad()
    def joined(cls, parts: Sequence["Splats"]) -> "Splats":
        """Several sets of one mode joined, to be blended in one depth order; `rows` counts through all."""
        if len(parts) == 1:
            return parts[0]
        place = torch.cat([torch.arange(len(part)) / max(len(part), 1) for part in parts])
        order = place.argsort(stable=True)
        degree = max(part.degree for part in parts)
        sh = None
        if degree:
            count = (degree + 1) ** 2
            sh = torch.cat([_padded_sh(part, count) for part in parts])[order]
        values = {
            name: torch.cat([getattr(part, name) for part in parts])[order]
            for name in ("means", "quats", "scales", "opacities", "colors")
        }
        return cls(**values, sh=sh, degree=degree, mode=parts[0].mode, antialiased=parts[0].antialiased, rows=order)

    def __len__(self) -> int:
        return len(self.means)


@dataclass(frozen=True, eq=False)
class Surface:
    """A mesh with precomputed view-independent data."""

    shaded: shading.Surface
    corners: Float[Tensor, "w 3"]
    """Its positions: coinciding vertices, as at texture seams, count once."""
    faces: Int32[Tensor, "f 3"]
    """Of places."""
    neighbors: Int32[Tensor, "f 3"]
    place: Int64[Tensor, " v"]
    """Position of each vertex."""
    is_lit: bool = True
    """Whether it is shaded by a light at the camera."""
    veils: tuple[Veil, ...] = ()
    """Its transparent faces, in layers."""
    solid: "Surface | None" = None
    """The opaque faces, if there are transparent ones."""

    @classmethod
    @torch.no_grad()
    def of(cls, mesh: Mesh, before: "Surface | None" = None, *, is_lit: bool = True) -> "Surface":
        """A mesh, ready to render on the CPU.

        Args:
            mesh: The mesh.
            before: Surface of an earlier frame: data of faces and texture is reused if they are the same objects.
            is_lit: See the field.
        """
        mesh = mesh.to("cpu")
        is_same = before is not None and not before.veils and before.shaded.mesh.faces is mesh.faces
        if before is not None and is_same and before.shaded.mesh.texture is mesh.texture:
            corners = mesh.vertices[shading.first_of_each(before.place)]
            normals = mesh.normals
            if normals is None:
                normals = vertex_normals(corners, before.faces.long())[before.place]
            return replace(before, shaded=replace(before.shaded, mesh=mesh, normals=normals), corners=corners)
        _, place = torch.unique(mesh.vertices, dim=0, return_inverse=True)
        faces = place[mesh.faces].int()
        corners = mesh.vertices[shading.first_of_each(place)]
        opaque, veils = split_opaque([mesh])
        solid = cls.of(opaque[0], is_lit=is_lit) if veils and opaque else None
        shaded = shading.Surface.of(mesh)
        return cls(shaded, corners, faces, edge_neighbors(faces), place, is_lit, tuple(veils), solid)


@dataclass(frozen=True, eq=False)
class Dots:
    """Points, drawn as small squares, ordered so that every prefix is an even sample of the cloud."""

    points: Float[Tensor, "n 3"]
    colors: Float[Tensor, "n 3"]
    rows: Int64[Tensor, " n"]
    """Index of each point in the cloud."""
    size: int = 2
    """Size of a square [px] in an image 720 pixels high."""

    @classmethod
    @torch.no_grad()
    def of(cls, cloud: PointCloud, size: int = 2) -> "Dots":
        """A point cloud, colored by its colors, its intensity, or height along z."""
        cloud = cloud.to("cpu")
        rows = sampling_order(len(cloud))
        if cloud.colors is not None:
            colors = cloud.colors.float()
        elif cloud.intensity is not None:
            colors = _ramp(cloud.intensity.float())
        else:
            colors = _ramp(cloud.points[:, 2].float())
        return cls(cloud.points[rows].float().contiguous(), colors[rows].contiguous(), rows, size)

    def __len__(self) -> int:
        return len(self.points)


@dataclass(frozen=True, eq=False)
class Lines:
    """Line segments, each with a color."""

    starts: Float[Tensor, "s 3"]
    ends: Float[Tensor, "s 3"]
    colors: Float[Tensor, "s 3"]
    is_on_top: bool = False
    """Whether they are drawn on top of everything, as bones inside a body."""

    @classmethod
    def of(cls, segments: Float[Tensor, "*n 2 3"], colors: Float[Tensor, "*n 3"], *, is_on_top: bool = False) -> "Lines":
        """Segments given by both end points, with one color each."""
        flat = segments.detach().cpu().float().reshape(-1, 2, 3)
        colors = colors.float().expand(*segments.shape[:-2], 3).reshape(-1, 3)
        return cls(flat[:, 0].contiguous(), flat[:, 1].contiguous(), colors.contiguous(), is_on_top)

    @classmethod
    def of_boxes(cls, boxes: Boxes, matrix: Float[Tensor, "4 4"]) -> "Lines":
        """Edges of boxes and an arrow to their front, colored by label; darker for lower scores."""
        segments = se3.transform_points(matrix, box_lines(boxes.to("cpu")).float().flatten(0, 2)).view(len(boxes), -1, 2, 3)
        labels = torch.zeros(len(boxes), dtype=torch.int64) if boxes.labels is None else boxes.labels.cpu()
        colors = COLORS[labels % len(COLORS)]
        if boxes.scores is not None:
            colors = colors * (0.35 + 0.65 * boxes.scores.float().cpu().clamp(0, 1))[:, None]
        return cls.of(segments, colors[:, None])

    @classmethod
    def joined(cls, parts: Sequence["Lines"]) -> "Lines":
        """Joins all segments."""
        starts, ends, colors = (torch.cat([getattr(part, name) for part in parts]) for name in ("starts", "ends", "colors"))
        return cls(starts, ends, colors)


Model = Splats | Surface | Dots | Lines


def sampling_order(count: int) -> Int64[Tensor, " n"]:
    """An order of `count` rows in which every prefix is spread evenly: every 16th row, then those between, ...

    Rows adjacent in the file, and often in space, stay close within each pass, which is good for CPU caches.
    """
    starts = (0, 8, 4, 12, 2, 10, 6, 14, 1, 9, 5, 13, 3, 11, 7, 15)
    return torch.cat([torch.arange(start, max(count, start), 16) for start in starts])


def _padded_sh(part: Splats, count: int) -> Float[Tensor, "n k 3"]:
    if part.sh is None:
        base = rgb_to_sh0(part.colors)[:, None]
        return torch.nn.functional.pad(base, (0, 0, 0, count - 1))
    return torch.nn.functional.pad(part.sh, (0, 0, 0, count - part.sh.shape[1]))


def _ramp(values: Float[Tensor, " n"]) -> Float[Tensor, "n 3"]:
    """Colors from blue over green to yellow for values between their 2nd and 98th percentile."""
    if not len(values):
        return values.new_zeros(0, 3)
    ordered = values.sort().values
    low, high = float(ordered[len(ordered) // 50]), float(ordered[len(ordered) - 1 - len(ordered) // 50])
    t = ((values - low) / max(high - low, 1e-12)).clamp(0, 1)[:, None]
    stops = torch.tensor([[0.20, 0.30, 0.75], [0.10, 0.62, 0.72], [0.40, 0.80, 0.40], [0.98, 0.90, 0.35]])
    place = t * (len(stops) - 1)
    index = place.floor().long().clamp(max=len(stops) - 2)[:, 0]
    return torch.lerp(stops[index], stops[index + 1], place - index[:, None])
