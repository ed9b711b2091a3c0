"""Animated meshes: joints with weights, morph targets, and clips."""

import math
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from jaxtyping import Float, Float64, Int64
from torch import Tensor

from vision3d.core.errors import InputError
from vision3d.geometry.mesh import vertex_normals
from vision3d.geometry.quaternion import quat_to_rotmat, rotmat_to_quat
from vision3d.geometry.rotation import nearest_rotation
from vision3d.geometry.skinning import Method, linear_blend, skin
from vision3d.scene import codecs, similarity
from vision3d.scene.checks import check_device, check_finite, check_shape, html_table, moved
from vision3d.scene.clip import Channel, Clip, frame_rate
from vision3d.scene.mesh import Mesh
from vision3d.scene.sequence import FrameSequence

_FLOATS = ("translations", "quats", "scales", "inverse_binds", "weights")
_MORPHS = ("morphs", "morph_normals", "rest_weights", "etas", "morph_etas")


@dataclass(frozen=True, eq=False)
class SkinnedMesh:
    """A mesh whose V vertices follow up to K of J joints each, after M morph targets are applied.

    A joint's matrix maps rest vertices to posed ones: G_j B_j, with G_j the product of T R S from its root to itself and B_j
    its inverse bind matrix. Without joints only the morphs animate the mesh.

    Example:
        >>> skin = SkinnedMesh.from_frames(Mesh(torch.eye(3), torch.tensor([[0, 1, 2]])), torch.rand(3, 3, 3), [0.0, 0.1, 0.2])
        >>> skin.save("wobble.glb")
        >>> SkinnedMesh.load("wobble.glb")
        SkinnedMesh(3 vertices, 1 joints, 3 morphs, clips: frames)
    """

    mesh: Mesh
    """At rest."""
    names: tuple[str, ...]
    """Names of the joints."""
    parents: tuple[int, ...]
    """Parent of each joint, an earlier joint; -1 for a root."""
    translations: Float[Tensor, "j 3"]
    """Translation of each joint in the rest pose, relative to its parent [m]."""
    quats: Float[Tensor, "j 4"]
    """Rotations in the rest pose, relative to the parent; wxyz, unit length."""
    scales: Float[Tensor, "j 3"]
    """Scales along the joint's own axes in the rest pose."""
    inverse_binds: Float[Tensor, "j 4 4"]
    """From the rest mesh to the joint's frame."""
    indices: Int64[Tensor, "v k"]
    """Joints of each vertex."""
    weights: Float[Tensor, "v k"]
    """Skinning weights; rows sum to 1."""
    morphs: Float[Tensor, "m v 3"] | None = None
    """Offsets that a morph target with weight 1 adds to the rest vertices [m]."""
    morph_names: tuple[str, ...] = ()
    """Names of the morph targets; may be empty."""
    clips: tuple[Clip, ...] = ()
    """Animation clips."""
    morph_normals: Float[Tensor, "m v 3"] | None = None
    """Offsets that a morph target with weight 1 adds to the normals; when None, normals rotate with the faces."""
    rest_weights: Float[Tensor, " m"] | None = None
    """Weights of the morph targets in the rest pose and in clips that do not set them; 0 when None."""
    fps: float | None = None
    """Frame rate that its clips were made from; None if unknown."""
    etas: Float[Tensor, " v"] | None = None
    """Blend factor of hybrid skinning per vertex when the morphs were made: 1 linear, 0 dual quaternions. Not used here."""
    morph_etas: Float[Tensor, "m v"] | None = None
    """Offsets that a morph target with weight 1 adds to `etas`."""

    def __post_init__(self) -> None:
        for name in ("names", "parents", "morph_names", "clips"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        joints, vertices = len(self.names), self.mesh.num_vertices
        if len(self.parents) != joints:
            raise InputError(f"SkinnedMesh: {len(self.parents)} parents for {joints} joints")
        for joint, parent in enumerate(self.parents):
            if not -1 <= parent < joint:
                raise InputError(f"SkinnedMesh: joint {joint} has parent {parent}; want an earlier joint, or -1 for a root")
        check_shape("SkinnedMesh.translations", self.translations, (joints, 3))
        check_shape("SkinnedMesh.quats", self.quats, (joints, 4))
        check_shape("SkinnedMesh.scales", self.scales, (joints, 3))
        check_shape("SkinnedMesh.inverse_binds", self.inverse_binds, (joints, 4, 4))
        check_shape("SkinnedMesh.weights", self.weights, (vertices, "K"))
        check_shape("SkinnedMesh.indices", self.indices, tuple(self.weights.shape), kind="int64")
        if self.morphs is not None:
            check_shape("SkinnedMesh.morphs", self.morphs, ("M", vertices, 3))
        if self.morph_normals is not None:
            check_shape("SkinnedMesh.morph_normals", self.morph_normals, (self.num_morphs, vertices, 3))
        if self.rest_weights is not None:
            check_shape("SkinnedMesh.rest_weights", self.rest_weights, (self.num_morphs,))
        if self.etas is not None:
            check_shape("SkinnedMesh.etas", self.etas, (vertices,))
        if self.morph_etas is not None:
            check_shape("SkinnedMesh.morph_etas", self.morph_etas, (self.num_morphs, vertices))
        if self.morph_names and len(self.morph_names) != self.num_morphs:
            raise InputError(f"SkinnedMesh: {len(self.morph_names)} names for {self.num_morphs} morphs")
        for clip in self.clips:
            for channel in clip.channels:
                self._check_channel(clip, channel)
        check_device("SkinnedMesh", {name: getattr(self, name) for name in (*_FLOATS, *_MORPHS, "indices")})

    @classmethod
    def load(cls, path: Path | str) -> "SkinnedMesh":
        """Load the mesh of a .glb or .gltf with its joints, morph targets and clips.

        Meshes without a skin follow their node. Weights that do not sum to 1 are normalized, with a warning.

        Raises:
            InputError: The file cannot be read, or nothing in it is animated.
        """
        return codecs.module_for(path, "SkinnedMesh").load_skin(Path(path))

    @classmethod
    def from_frames(
        cls, mesh: Mesh, vertices: Float[Tensor, "t v 3"], times: Float64[Tensor, " t"] | list[float], name: str = "frames"
    ) -> "SkinnedMesh":
        """A clip with one morph target per frame: exact at the frames, linear between them.

        Args:
            mesh: Rest pose.
            vertices: In each frame [m].
            times: Times of the frames [s], ascending.
            name: Name of the clip.
        """
        check_shape("vertices", vertices, ("T", mesh.num_vertices, 3))
        times = torch.as_tensor(times, dtype=torch.float64)
        channel = Channel("weights", -1, times, torch.eye(len(vertices), dtype=vertices.dtype))
        empty = vertices.new_empty
        return cls(
            mesh,
            (),
            (),
            translations=empty(0, 3),
            quats=empty(0, 4),
            scales=empty(0, 3),
            inverse_binds=empty(0, 4, 4),
            indices=torch.empty(mesh.num_vertices, 0, dtype=torch.int64, device=vertices.device),
            weights=empty(mesh.num_vertices, 0),
            morphs=vertices - mesh.vertices,
            clips=(Clip(name, (channel,)),),
            fps=frame_rate(times),
        )

    def save(self, path: Path | str) -> None:
        """Write a .glb (or .gltf) atomically."""
        codecs.save(path, self)

    def validate(self) -> "SkinnedMesh":
        """Check the values.

        Raises:
            InputError: A value is not finite, a joint index is out of range, weights are negative or do not sum to 1, a
                quaternion is not of unit length, or the frame rate is invalid.
        """
        self.mesh.validate()
        if self.fps is not None and not 0 < self.fps < math.inf:
            raise InputError(f"SkinnedMesh.fps: got {self.fps}, want a number > 0, or None")
        for name in (*_FLOATS, *_MORPHS):
            value = getattr(self, name)
            if value is not None and len(value):
                check_finite("SkinnedMesh", name, value)
        for clip in self.clips:
            for channel in clip.channels:
                channel.validate()
        if not len(self):
            return self
        is_wrong = ((self.indices < 0) | (self.indices >= len(self))).any(-1)
        if bool(is_wrong.any()):
            bad = int(is_wrong.nonzero()[0])
            raise InputError(f"SkinnedMesh: vertex {bad} names joints {self.indices[bad].tolist()}, but there are {len(self)}")
        sums = self.weights.sum(-1)
        is_wrong = ((sums - 1).abs() > 1e-4) | (self.weights < -1e-6).any(-1)
        if bool(is_wrong.any()):
            bad = int(is_wrong.nonzero()[0])
            raise InputError(
                f"SkinnedMesh: weights of vertex {bad} are {self.weights[bad].tolist()}; want weights >= 0 with sum 1"
            )
        lengths = torch.linalg.vector_norm(self.quats, dim=-1)
        if bool((is_off := (lengths - 1).abs() > 1e-3).any()):
            joint = int(is_off.nonzero()[0])
            raise InputError(f"SkinnedMesh: quaternion of {self.names[joint]} has length {lengths[joint]:.4g}")
        return self

    @property
    def num_morphs(self) -> int:
        return 0 if self.morphs is None else len(self.morphs)

    @property
    def device(self) -> torch.device:
        return self.mesh.device

    def clip(self, name: str) -> Clip:
        """The clip with this name.

        Raises:
            InputError: Unknown name; the message lists the known ones.
        """
        for clip in self.clips:
            if clip.name == name:
                return clip
        raise InputError(f"SkinnedMesh: no clip is called {name!r}; there {_listed([clip.name for clip in self.clips])}")

    def locals_at(
        self, clip: Clip | None, times: Float64[Tensor, " t"]
    ) -> tuple[Float[Tensor, "t j 3"], Float[Tensor, "t j 4"], Float[Tensor, "t j 3"], Float[Tensor, "t m"]]:
        """Translations, rotations and scales of all joints relative to their parents, and weights of the morphs."""
        count = len(times)
        found = {
            "translation": self.translations.expand(count, -1, -1).clone(),
            "rotation": self.quats.expand(count, -1, -1).clone(),
            "scale": self.scales.expand(count, -1, -1).clone(),
        }
        weights = self.translations.new_zeros(count, self.num_morphs)
        if self.rest_weights is not None:
            weights = weights + self.rest_weights.to(weights)
        for channel in () if clip is None else clip.channels:
            values = channel.at(times).to(weights)
            if channel.path == "weights":
                weights = values
            else:
                found[channel.path][:, channel.joint] = values
        return found["translation"], found["rotation"], found["scale"], weights

    def joint_matrices(self, clip: Clip | None, times: Float64[Tensor, " t"]) -> Float[Tensor, "t j 4 4"]:
        """From the joints' frames to the world, G_j; without a clip, in the rest pose."""
        translations, quats, scales, _ = self.locals_at(clip, times)
        linear = quat_to_rotmat(quats) * scales[..., None, :]
        local = torch.cat([linear, translations[..., None]], -1)
        last = local.new_tensor([0.0, 0, 0, 1]).expand(*local.shape[:-2], 1, 4)
        local, placed = torch.cat([local, last], -2), []
        for joint, parent in enumerate(self.parents):
            placed.append(local[:, joint] if parent < 0 else placed[parent] @ local[:, joint])
        return torch.stack(placed, 1) if placed else local

    def posed(
        self,
        clip: Clip | None,
        times: Float64[Tensor, " t"] | list[float],
        *,
        method: Method = "lbs",
        blends: Float[Tensor, " j"] | None = None,
    ) -> Float[Tensor, "t v 3"]:
        """Vertices at these times [m]; "lbs" is what glTF viewers use.

        Args:
            clip: The clip; None for the rest pose.
            times: In the clip [s].
            method: Skinning method (`geometry.skinning`).
            blends: Blend factor of each joint, for the method "hybrid".
        """
        times = torch.as_tensor(times, dtype=torch.float64, device=self.device)
        vertices = self.mesh.vertices.expand(len(times), -1, -1)
        if self.morphs is not None:
            vertices = vertices + torch.einsum("tm,mvc->tvc", self.locals_at(clip, times)[3].to(self.morphs), self.morphs)
        if not len(self) or not len(times):
            return vertices
        matrices = self.joint_matrices(clip, times) @ self.inverse_binds
        frames = []
        for rest, pose in zip(vertices, matrices):
            if method == "lbs":
                frames.append(linear_blend(rest, self.weights, self.indices, pose))
                continue
            # A = R S: the non-rigid part becomes the stretch.
            rotmats = nearest_rotation(pose[:, :3, :3])
            stretch = rotmats.mT @ pose[:, :3, :3]
            sixes = ((stretch + stretch.mT) / 2).flatten(1)[:, [0, 4, 8, 1, 2, 5]]
            shifts = pose[:, :3, 3]
            options = {"stretches": sixes, "blends": blends, "method": method}
            frames.append(skin(rest, self.weights, self.indices, rotmat_to_quat(rotmats), shifts, **options))
        return torch.stack(frames)

    def etas_at(self, clip: Clip | None, times: Float64[Tensor, " t"] | list[float]) -> Float[Tensor, "t v"] | None:
        """`etas` at these times in the clip [s], or in the rest pose without one; None if the skin has none."""
        if self.etas is None or self.morph_etas is None:
            return None if self.etas is None else self.etas.expand(len(times), -1)
        times = torch.as_tensor(times, dtype=torch.float64, device=self.device)
        return self.etas + self.locals_at(clip, times)[3].to(self.etas) @ self.morph_etas

    def at_rest(self) -> Mesh:
        """The mesh as viewers show it without a clip: with default morph weights and the joints in their rest pose."""
        return self._posed_mesh(None, 0.0)

    @property
    def span(self) -> tuple[float, float]:
        """Start and end of the first clip [s]; (0, 0) without clips."""
        return (self.clips[0].start, self.clips[0].end) if self.clips else (0.0, 0.0)

    def at(self, time: float, *, clip: str | None = None, loop: bool = False) -> Mesh:
        """The mesh at any time of a clip [s], as glTF viewers show it; the rest pose without clips.

        Args:
            time: Clamped to the first and last key.
            clip: Name of a clip; None: the first.
            loop: Repeat after the end.

        Raises:
            InputError: No clip of this name.
        """
        if clip is None and not self.clips:
            return self.at_rest()
        moving = self.clips[0] if clip is None else self.clip(clip)
        length = moving.end - moving.start
        if loop and length > 0:
            time = moving.start + (time - moving.start) % length
        return self._posed_mesh(moving, time)

    def to_sequence(self, clip: Clip | None, times: Float64[Tensor, " t"] | list[float]) -> FrameSequence:
        """The mesh as frames at these times [s], as glTF viewers show it."""
        times = torch.as_tensor(times, dtype=torch.float64)
        return FrameSequence(self.mesh, times, {"vertices": self.posed(clip, times)})

    def to(self, device: torch.device | str) -> "SkinnedMesh":
        """The same skin on another device."""
        clips = tuple(replace(clip, channels=tuple(channel.to(device) for channel in clip.channels)) for clip in self.clips)
        tensors = {name: moved(getattr(self, name), device) for name in (*_FLOATS, *_MORPHS, "indices")}
        return replace(self, mesh=self.mesh.to(device), clips=clips, **tensors)

    def transform(self, matrix: Float[Tensor, "4 4"]) -> "SkinnedMesh":
        """The skin transformed by a similarity x' = s R x + t: mesh, joints, morphs and clips.

        Raises:
            InputError: The matrix shears, reflects or is singular.
        """
        return similarity.transform_skin(self, matrix)

    def __len__(self) -> int:
        return len(self.names)

    def __repr__(self) -> str:
        clips = f", clips: {', '.join(clip.name for clip in self.clips)}" if self.clips else ""
        return f"SkinnedMesh({self.mesh.num_vertices} vertices, {len(self)} joints, {self.num_morphs} morphs{clips})"

    def _repr_html_(self) -> str:
        rows = [
            ("vertices", self.mesh.num_vertices),
            ("faces", self.mesh.num_faces),
            ("joints", ", ".join(self.names)),
            ("joints a vertex", self.weights.shape[1]),
            ("morphs", self.num_morphs),
            ("clips", ", ".join(f"{clip.name} ({clip.end - clip.start:.3g} s)" for clip in self.clips)),
        ]
        return html_table("SkinnedMesh", rows, codecs.preview(self))

    def _posed_mesh(self, clip: Clip | None, time: float) -> Mesh:
        vertices = self.posed(clip, [time])[0]
        normals = None if self.mesh.normals is None else vertex_normals(vertices, self.mesh.faces)
        return replace(self.mesh, vertices=vertices, normals=normals)

    def _check_channel(self, clip: Clip, channel: Channel) -> None:
        if channel.path == "weights":
            if channel.values.shape[-1] != self.num_morphs:
                got = channel.values.shape[-1]
                raise InputError(
                    f"SkinnedMesh: clip {clip.name} has {got} weights per key, but there are {self.num_morphs} morphs"
                )
        elif not 0 <= channel.joint < len(self):
            raise InputError(f"SkinnedMesh: clip {clip.name} moves joint {channel.joint}, but there are {len(self)} joints")


def _listed(names: list[str]) -> str:
    return "are none" if not names else f"{'is' if len(names) == 1 else 'are'} {', '.join(names)}"
