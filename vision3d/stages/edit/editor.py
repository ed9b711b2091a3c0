"""Edits of objects by text: planes of the object, the change of an instruction, the change on the object itself."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from vision3d.core.errors import InputError
from vision3d.geometry.surface_points import sample_faces
from vision3d.render.triplanes.field import query
from vision3d.render.triplanes.surface import triplane_mesh
from vision3d.scene.gaussians import GaussianScene
from vision3d.scene.mesh import Mesh
from vision3d.scene.triplane import Triplane
from vision3d.scene.upright import Axis
from vision3d.stages.edit.diffusion_config import Sampling
from vision3d.stages.edit.fitting import Observed, refined_planes
from vision3d.stages.edit.instructions.families import Edit
from vision3d.stages.edit.instructions.targets import Target, apply_edits
from vision3d.stages.edit.instructions.text import TextEncoder, text_encoder
from vision3d.stages.edit.network.adapter_files import AdapterModel
from vision3d.stages.edit.network.diffusion_files import DiffusionModel
from vision3d.stages.edit.network.files import PlanesModel, load_planes_model
from vision3d.stages.edit.objects.points import COUNT, MARGIN, ObjectPoints, points_of_gaussians, points_of_mesh, to_cube

PLANES = "edit_planes"
"""Name of the bundled weights."""
_BOX_POINTS = 65_536
_MATERIAL_CHANGE = 0.15  # of a factor, below which a material counts as that of before


@dataclass(frozen=True, eq=False)
class Edited:
    """The planes of an object before and after edits."""

    source: Triplane
    edited: Triplane
    box: Float[Tensor, "2 3"]
    """Lowest and highest corner of the object in the cube."""
    points: ObjectPoints
    """What the planes were made of."""
    targets: tuple[Edit, ...] = ()
    """Edits by closed forms, of which `edited` is the encoded result."""
    baked: bool = True
    """Whether the colors show what a material does."""
    refine: int = 0
    """Steps of refinement of both planes after the encoder."""
    offset: Float[Tensor, "3 c h w"] | None = None
    """What refinement added to the planes of the encoder; an adapter sees those, and knows no others."""

    def looks(
        self, points: Float[Tensor, "n 3"], factors: Float[Tensor, "n 2"] | None = None
    ) -> tuple[Float[Tensor, "n 3"], Target]:
        """sRGB colors before, and the appearance after, at points of the object in the cube.

        Args:
            points: All of the object that changes, so that means and extents are those of the object.
            factors: Metallic and roughness factor of the points before; those of an unknown material when None.
        """
        with torch.no_grad():
            before = query(self.source, points.clamp(-1, 1))
            metallic, roughness = (None, None) if factors is None else factors.unbind(1)
            if self.targets:
                # A point beyond the object, such as a floater, must not stretch the pattern.
                places = points.clamp(*self.box) / MARGIN
                after = apply_edits(
                    self.targets, places, before.colors, metallic=metallic, roughness=roughness, baked=self.baked
                )
                return before.colors, after
            after = query(self.edited, points.clamp(-1, 1))
            change = torch.maximum((after.metallic - before.metallic).abs(), (after.roughness - before.roughness).abs())
            is_other = change >= _MATERIAL_CHANGE
            metallic, roughness = (
                new if old is None else torch.where(is_other, new, old)
                for new, old in ((after.metallic, metallic), (after.roughness, roughness))
            )
            return before.colors, Target(after.colors, metallic, roughness, torch.ones_like(is_other))


class Editor:
    """The networks that edits need.

    Args:
        planes: Encoder and decoder of planes; the bundled ones when None.
        adapter: What changes planes by tokens, by regression or diffusion; None where only closed forms are wanted.
        encoder: Of texts; that of the installed package when None.

    Raises:
        InputError: They were not trained with each other.
        MissingDependencyError: The encoder of texts is not installed.

    Example:
        >>> editor = Editor()  # doctest: +SKIP
        >>> edited = editor.apply(editor.encode_mesh(mesh, "y"), [Edit("color", "red")])  # doctest: +SKIP
    """

    def __init__(
        self,
        planes: PlanesModel | None = None,
        adapter: AdapterModel | DiffusionModel | None = None,
        encoder: TextEncoder | None = None,
    ) -> None:
        self.planes = load_planes_model(PLANES) if planes is None else planes
        self.adapter = adapter
        self.encoder = text_encoder() if encoder is None else encoder
        if adapter is not None:
            adapter.check(self.planes, self.encoder)

    def encode_mesh(self, mesh: Mesh, up: Axis, refine: int = 0) -> Edited:
        """A mesh before any edit; arguments as for `encode`."""
        return self.encode(points_of_mesh(mesh, up), refine)

    def encode_gaussians(
        self, scene: GaussianScene, up: Axis, selected: Bool[Tensor, " n"] | None = None, refine: int = 0
    ) -> Edited:
        """Gaussians before any edit; arguments as for `encode`."""
        return self.encode(points_of_gaussians(scene, up, selected), refine)

    def encode(self, points: ObjectPoints, refine: int = 0) -> Edited:
        """Points before any edit.

        Args:
            points: Of the object.
            refine: Steps that bring the planes of the encoder closer to the colors of the points; edits do the same.

        Raises:
            InputError: No point has a weight.
        """
        kept = points.points[points.weights > 0]
        if not len(kept):
            raise InputError(f"object: none of {len(points.points)} points has a weight, want an object that is visible")
        sample = kept[:: max(1, len(kept) // _BOX_POINTS)]
        encoded = self.planes.encode(points)
        source = self._refined(encoded, points, refine)
        # Some stray points must not stretch the box in which patterns lie.
        low, high = (torch.quantile(sample.double(), at, dim=0).float() for at in (0.001, 0.999))
        offset = source.planes - encoded.planes if refine else None
        return Edited(source, source, torch.stack([low, high]), points, refine=refine, offset=offset)

    def of_triplane(self, triplane: Triplane, refine: int = 0) -> Edited:
        """A triplane before any edit; it stays as it is, and `refine` is for the planes after one.

        Raises:
            InputError: It is not of the encoder's kind, or empty.
        """
        own = self.planes.triplane(triplane.planes, triplane.matrix)
        if triplane.planes.shape[1:] != (self.planes.config.channels, *2 * (self.planes.config.size,)) or any(
            not torch.equal(own.decoder[name].half(), value.half().to(own.decoder[name].device))
            for name, value in triplane.decoder.items()
            if name in own.decoder
        ):
            raise InputError("triplane: was made by another encoder, want one of these weights")
        mesh = triplane_mesh(triplane, 64)
        face_ids, barycentric = sample_faces(mesh.vertices, mesh.faces, COUNT, torch.Generator().manual_seed(0))
        on_surface = (barycentric[:, :, None].float() * mesh.vertices[mesh.faces[face_ids]]).sum(1)
        points = to_cube(triplane.matrix, on_surface).clamp(-1, 1)
        found = query(triplane, points)
        values = torch.cat([found.colors, found.metallic[:, None], found.roughness[:, None]], 1)
        own_points = ObjectPoints(points, values, torch.ones(len(points)), triplane.matrix)
        return Edited(triplane, triplane, torch.stack([points.amin(0), points.amax(0)]), own_points, refine=refine)

    @torch.no_grad()
    def edit(
        self,
        before: Edited,
        texts: list[str],
        *,
        strength: float = 1.0,
        baked: bool = True,
        sampling: Sampling | None = None,
        seed: int = 0,
    ) -> Edited:
        """The object after instructions, in order.

        Args:
            before: Its planes.
            texts: One edit each.
            strength: Factor of the change.
            baked: Whether colors have to show what a material does, since the object cannot have one.
            sampling: Of a diffusion model.
            seed: Of its noise.
        """
        if self.adapter is None:
            raise InputError("adapter: there is none; want Editor(adapter=load_adapter(PATH))")
        planes, first = before.edited.planes, before.edited.num_density
        change = self.adapter.network
        if isinstance(self.adapter, DiffusionModel):
            change = self.adapter.changing(sampling or Sampling(), seed)
        for text in texts:
            found = self.encoder.encode([text])
            seen = planes if before.offset is None else planes - before.offset
            changed = change(
                seen[None], before.box[None].to(planes), found.tokens.to(planes), found.mask.to(planes.device),
                planes.new_tensor([float(baked)]),
            )[0]  # fmt: skip
            planes = torch.cat([planes[:, :first], planes[:, first:] + strength * changed], 1)
        return replace(before, edited=replace(before.edited, planes=planes))

    @torch.no_grad()
    def apply(self, before: Edited, edits: Sequence[Edit], *, baked: bool = True, free: bool = False) -> Edited:
        """The object after edits by their closed forms; its planes are encoded anew, with the density of before.

        Args:
            before: Its planes, not edited yet.
            edits: In order.
            baked: As for `edit`.
            free: With the density of the new planes instead.
        """
        points = before.points
        target = apply_edits(edits, points.points.clamp(*before.box) / MARGIN, points.values[:, :3], baked=baked)
        values = torch.cat([target.colors, target.metallic[:, None], target.roughness[:, None]], 1)
        first = before.source.num_density
        points = replace(points, values=values)
        planes = self._refined(self.planes.encode(points), points, before.refine).planes
        if not free:
            planes = torch.cat([before.source.planes[:, :first], planes[:, first:]], 1)
        return replace(before, edited=replace(before.source, planes=planes), targets=tuple(edits), baked=baked)

    def _refined(self, encoded: Triplane, points: ObjectPoints, steps: int) -> Triplane:
        """Planes of the encoder after some steps towards its points."""
        if not steps:
            return encoded
        kept = points.weights > 0
        observed = Observed(points.points[kept], points.values[kept], weights=points.weights[kept])
        return replace(encoded, planes=refined_planes(self.planes.network, encoded.planes, observed, steps))
