"""One version of an object after edits: its planes, the object itself, and what an image of it shows."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool
from torch import Tensor

from vision3d.core.errors import InputError
from vision3d.io.gltf_material import MATTE, Material
from vision3d.scene.gaussians import GaussianScene
from vision3d.scene.mesh import Mesh
from vision3d.scene.skin import SkinnedMesh
from vision3d.scene.triplane import Triplane
from vision3d.scene.upright import Axis
from vision3d.stages.edit.diffusion_config import Sampling
from vision3d.stages.edit.editor import Edited, Editor
from vision3d.stages.edit.instructions.families import Edit
from vision3d.stages.edit.instructions.variants import text_of, variants
from vision3d.stages.edit.objects.files import Editable, Opened, surface_of
from vision3d.stages.edit.objects.recolor import Outcome, recolor_gaussians, recolor_mesh, recolor_skin
from vision3d.stages.edit.run_config import REFINE

_STRENGTHS = (0.6, 1.4)


@dataclass(frozen=True, eq=False)
class Version:
    """An object after edits."""

    object: Editable
    planes: Edited
    """Before and after."""
    clipped: float
    """Share of the changed colors that were clipped."""
    material: Material
    """Of a mesh."""
    text: str = ""
    """What it is, for a caption."""


@dataclass(frozen=True, eq=False)
class Workpiece:
    """An object, and what of it is to change.

    Args:
        editor: The networks.
        opened: The object.
        up: Its axis that is up.
        selected: Mask of the Gaussians or vertices that change; None: all.
        texture_size: Side of the texture of a mesh that gets a new one.
        refine: Steps of refinement of the planes.
        free: Whether the result is the edited planes, shape included.
    """

    editor: Editor
    opened: Opened
    up: Axis
    selected: Bool[Tensor, " n"] | None
    texture_size: int
    refine: int = REFINE
    free: bool = False

    def encoded(self) -> Edited:
        """Its planes before any edit."""
        value = self.opened.value
        if isinstance(value, Triplane):
            return self.editor.of_triplane(value, self.refine)
        if isinstance(value, GaussianScene):
            return self.editor.encode_gaussians(value, self.up, self.selected, self.refine)
        mesh, faces = surface_of(value), self._faces()
        if faces is not None:
            uvs = None if mesh.corner_uvs is None else mesh.corner_uvs[faces]
            mesh = Mesh(mesh.vertices, mesh.faces[faces], uvs, None, mesh.texture, mesh.vertex_colors)
        return self.editor.encode_mesh(mesh, self.up, self.refine)

    def by_edits(self, before: Edited, edits: Sequence[Edit], text: str = "") -> Version:
        """The version of edits by their closed forms."""
        return self._version(self.editor.apply(before, edits, baked=not self.has_material, free=self.free), text)

    def by_texts(
        self,
        before: Edited,
        texts: Sequence[str],
        strength: float,
        text: str = "",
        sampling: Sampling | None = None,
        seed: int = 0,
    ) -> Version:
        """The version of a network."""
        baked = not self.has_material
        edited = self.editor.edit(before, list(texts), strength=strength, baked=baked, sampling=sampling, seed=seed)
        return self._version(edited, text)

    def all_by_edits(self, before: Edited, edits: Sequence[Edit], count: int, seed: int) -> list[Version]:
        """Versions that differ in what the edits leave open; the first is `by_edits`."""
        weights = before.points.weights[:, None]
        own = (weights * before.points.values[:, :3]).sum(0) / weights.sum()
        return [self.by_edits(before, some, text_of(some)) for some in variants(edits, count, own.cpu(), seed)]

    def all_by_texts(self, before: Edited, texts: Sequence[str], strength: float, count: int, seed: int) -> list[Version]:
        """Versions of the adapter, which differ in strength; the first is `by_texts`."""
        factors = torch.linspace(*_STRENGTHS, max(count - 1, 1))[torch.randperm(
            max(count - 1, 1), generator=torch.Generator().manual_seed(seed)
        )].tolist()  # fmt: skip
        said = ", then ".join(texts)
        return [
            self.by_texts(before, texts, factor * strength, f"{said} (strength {factor * strength:.2f})")
            for factor in [1.0, *factors][:count]
        ]

    def all_by_samples(
        self, before: Edited, texts: Sequence[str], strength: float, count: int, seed: int, sampling: Sampling
    ) -> list[Version]:
        """Versions of a diffusion model, which differ in the noise that they begin with."""
        said = ", then ".join(texts)
        return [
            self.by_texts(before, texts, strength, f"{said} (seed {number})", sampling, number)
            for number in range(seed, seed + count)
        ]

    def shown(self, version: Version) -> Editable:
        """What images show of a version: renders have no reflections, so a material is painted on."""
        if not version.planes.targets or _is(version.material, self.opened.material):
            return version.object
        return self._recolored(replace(version.planes, baked=True))[0]

    @property
    def has_material(self) -> bool:
        """Whether the object can be metallic or glossy, instead of being painted so."""
        return isinstance(self.opened.value, Mesh | SkinnedMesh)

    def _version(self, edited: Edited, text: str) -> Version:
        value, outcome = self._recolored(edited)
        return Version(value, edited, outcome.clipped, outcome.material, text)

    def _recolored(self, edited: Edited) -> tuple[Editable, Outcome]:
        value, material = self.opened.value, self.opened.material
        if self.free or isinstance(value, Triplane):
            return edited.edited, Outcome(0.0)
        if isinstance(value, GaussianScene):
            return recolor_gaussians(value, edited, self.selected)
        faces, size = self._faces(), self.texture_size
        if isinstance(value, SkinnedMesh):
            return recolor_skin(value, edited, selected=faces, texture_size=size, material=material)
        return recolor_mesh(value, edited, selected=faces, texture_size=size, material=material)

    def _faces(self) -> Bool[Tensor, " f"] | None:
        """Mask of the faces that change; None: all."""
        value = self.opened.value
        assert isinstance(value, Mesh | SkinnedMesh)
        if self.selected is None:
            return None
        found = self.selected[surface_of(value).faces].all(1)
        if not bool(found.any()):
            raise InputError(f"select: holds no face of {len(found)}, want one with all three vertices")
        return found


def described(material: Material) -> dict[str, object]:
    """A material for a summary; nothing if it is matte."""
    if isinstance(material, Tensor):
        return {"material_texture": [material.shape[1], material.shape[0]]}
    if material == MATTE:
        return {}
    return {"metallic": round(material[0], 3), "roughness": round(material[1], 3)}


def _is(first: Material, second: Material | Mesh) -> bool:
    """Whether materials are the same."""
    return isinstance(first, tuple) and isinstance(second, tuple) and first == second
