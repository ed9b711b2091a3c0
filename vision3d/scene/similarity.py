"""Similarity transforms x' = s R x + t of scene types: one function per type that has more than points and directions."""

from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor

from vision3d.core.errors import InputError
from vision3d.geometry.quaternion import conjugate, multiply, rotmat_to_quat
from vision3d.geometry.se3 import split_similarity
from vision3d.geometry.spherical_harmonics import rotate_sh
from vision3d.scene.checks import check_shape

if TYPE_CHECKING:
    from vision3d.scene.boxes import Boxes
    from vision3d.scene.clip import Channel, Clip
    from vision3d.scene.mesh_gaussians import MeshGaussians
    from vision3d.scene.motion import Motion
    from vision3d.scene.sequence import FrameSequence
    from vision3d.scene.skin import SkinnedMesh

_UPRIGHT = 1e-4  # maximum tilt of z


class Similarity:
    """The parts of a matrix, in the dtype and on the device of the values that it transforms.

    Raises:
        InputError: The matrix shears, reflects or is singular.
    """

    def __init__(self, matrix: Float[Tensor, "4 4"], like: Tensor) -> None:
        check_shape("matrix", matrix, (4, 4))
        self.scale, self.rotmat, self.shift = split_similarity(matrix.to(like))
        self.quat = rotmat_to_quat(self.rotmat)

    def points(self, points: Float[Tensor, "*batch 3"]) -> Float[Tensor, "*batch 3"]:
        return self.scale * points @ self.rotmat.mT + self.shift

    def vectors(self, vectors: Float[Tensor, "*batch 3"]) -> Float[Tensor, "*batch 3"]:
        return self.scale * vectors @ self.rotmat.mT

    def directions(self, directions: Float[Tensor, "*batch 3"]) -> Float[Tensor, "*batch 3"]:
        return directions @ self.rotmat.mT.to(directions)

    def quats(self, quats: Float[Tensor, "*batch 4"]) -> Float[Tensor, "*batch 4"]:
        return multiply(self.quat.expand_as(quats), quats)

    def boxes(self, boxes: Float[Tensor, "*batch 7"]) -> Float[Tensor, "*batch 7"]:
        """Upright boxes, which only stay upright under rotations about z."""
        if float((self.rotmat[:, 2] - self.rotmat.new_tensor([0.0, 0, 1])).norm()) > _UPRIGHT:
            raise InputError("matrix: tilts z, but boxes stand upright; want a rotation about z, a scale and a translation")
        yaw = torch.atan2(self.rotmat[1, 0], self.rotmat[0, 0])
        return torch.cat([self.points(boxes[..., :3]), self.scale * boxes[..., 3:6], boxes[..., 6:] + yaw], -1)


def transform_boxes(value: "Boxes", matrix: Float[Tensor, "4 4"]) -> "Boxes":
    """Transform boxes by a rotation about z, a scale and a translation."""
    return replace(value, boxes=Similarity(matrix, value.boxes).boxes(value.boxes))


def transform_mesh_gaussians(value: "MeshGaussians", matrix: Float[Tensor, "4 4"]) -> "MeshGaussians":
    """Transform Gaussians on a mesh: the mesh, their sizes and their view-dependent colors."""
    by = Similarity(matrix, value.log_scales)
    mesh, sizes = value.mesh.transform(matrix), value.log_scales + by.scale.log()
    return replace(value, mesh=mesh, log_scales=sizes, sh=rotate_sh(value.sh, by.rotmat.to(value.sh)))


def transform_motion(value: "Motion", matrix: Float[Tensor, "4 4"]) -> "Motion":
    """Transform a motion: root joints move with the world; bones are scaled."""
    by, skeleton = Similarity(matrix, value.skeleton.offsets), value.skeleton
    roots = torch.tensor([parent < 0 for parent in skeleton.parents], device=skeleton.offsets.device)
    offsets = torch.where(roots[:, None], by.points(skeleton.offsets), by.scale * skeleton.offsets)
    quats = torch.where(roots[:, None], by.quats(value.quats.to(by.quat)), value.quats.to(by.quat)).to(value.quats)
    moved = by.vectors(value.translations.to(by.quat)).to(value.translations)
    return replace(value, skeleton=replace(skeleton, offsets=offsets), quats=quats, translations=moved)


def transform_skin(value: "SkinnedMesh", matrix: Float[Tensor, "4 4"]) -> "SkinnedMesh":
    """Transform a skin: mesh, morphs, root joints in the rest pose and in every clip, and the inverse bind matrices."""
    by = Similarity(matrix, value.mesh.vertices)
    roots = torch.tensor([parent < 0 for parent in value.parents], dtype=torch.bool, device=value.translations.device)[:, None]
    inverse = torch.linalg.inv(matrix.to(value.inverse_binds).double()).to(value.inverse_binds)
    morphs, normals = value.morphs, value.morph_normals
    return replace(
        value,
        mesh=value.mesh.transform(matrix),
        translations=torch.where(roots, by.points(value.translations), value.translations),
        quats=torch.where(roots, by.quats(value.quats), value.quats),
        scales=torch.where(roots, by.scale * value.scales, value.scales),
        inverse_binds=value.inverse_binds @ inverse,
        morphs=None if morphs is None else by.vectors(morphs),
        morph_normals=None if normals is None else by.directions(normals),
        clips=tuple(_moved_clip(clip, by, value.parents) for clip in value.clips),
    )


def transform_sequence(value: "FrameSequence", matrix: Float[Tensor, "4 4"]) -> "FrameSequence":
    """Transform a sequence: its base and every frame, which are read into memory."""
    base = value.base.transform(matrix)
    channels = {}
    for name, channel in value.channels.items():
        frames = torch.stack([channel[i] for i in range(len(value))]) if not isinstance(channel, Tensor) else channel
        channels[name] = _moved_frames(name, frames, Similarity(matrix, frames))
    return replace(value, base=base, channels=channels)


def _moved_frames(name: str, frames: Tensor, by: Similarity) -> Tensor:
    if name in ("means", "vertices", "points"):
        return by.points(frames)
    if name == "normals":
        return by.directions(frames)
    if name == "quats":
        return by.quats(frames)
    if name == "log_scales":
        return frames + by.scale.log()
    if name in ("edges", "covar_factors"):
        return by.scale * by.rotmat @ frames
    if name == "turns":  # the harmonics of the base are rotated as well
        return multiply(by.quats(frames), conjugate(by.quat).expand_as(frames))
    if name == "sh":
        return torch.stack([rotate_sh(sh, by.rotmat) for sh in frames])
    return by.boxes(frames) if name == "boxes" else frames


def _moved_clip(clip: "Clip", by: Similarity, parents: tuple[int, ...]) -> "Clip":
    return replace(clip, channels=tuple(_moved_channel(channel, by, parents) for channel in clip.channels))


def _moved_channel(channel: "Channel", by: Similarity, parents: tuple[int, ...]) -> "Channel":
    """Keys of a root joint; tangents are rotated and scaled, but not translated."""
    if channel.path == "weights" or parents[channel.joint] >= 0:
        return channel
    values = channel.values.to(by.quat)
    if channel.path == "rotation":
        found = by.quats(values)
    elif channel.path == "scale":
        found = by.scale * values
    elif channel.interpolation == "CUBICSPLINE":
        found = torch.stack([by.vectors(values[:, 0]), by.points(values[:, 1]), by.vectors(values[:, 2])], 1)
    else:
        found = by.points(values)
    return replace(channel, values=found.to(channel.values))
