"""Skinned meshes in the viewers: selected clip, coloring of the mesh, and joint positions."""

import colorsys
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from vision3d.core.errors import InputError, nearest_names
from vision3d.scene import Clip, FrameSequence, Mesh, PointCloud, SkinnedMesh

REST = "rest"
"""Instead of a clip: the rest pose."""
ETA = "eta"
COLORINGS = {"own": "own colors", "weights": "blend weights", "dominant": "dominant joint", ETA: "eta of hybrid skinning"}
"""Colorings of meshes, with labels; in addition, by the weights of one joint, by its name."""
LEGENDS = {ETA: ("blue: 0, dual quaternions (DQS)", "orange: 1, linear skinning (LBS)")}
"""Legends of continuous colorings, one line each."""
_RATE = 30.0  # frames per second of clips, adjusted to the frame rate of their files
_GOLDEN = 0.61803398875
_LOW, _HIGH = (0.16, 0.18, 0.32), (1.0, 0.72, 0.20)
_ETA_COLORS = (0.10, 0.30, 0.75), (0.93, 0.93, 0.90), (0.95, 0.45, 0.05)  # for 0, 1/2 and 1


@dataclass(frozen=True, eq=False)
class Rig:
    """A skinned mesh with the user's choices."""

    skin: SkinnedMesh
    clip: str = REST
    """Name of the selected clip, or REST."""
    colors: str = "own"
    """A key of `colorings`."""

    @classmethod
    def of(cls, skin: SkinnedMesh) -> "Rig":
        """A skinned mesh playing its first clip."""
        return cls(skin, skin.clips[0].name if skin.clips else REST)

    @property
    def clips(self) -> tuple[str, ...]:
        """Clips to choose from."""
        return (*(clip.name for clip in self.skin.clips), REST)

    @property
    def colorings(self) -> dict[str, str]:
        """Applicable keys of COLORINGS, and names of joints whose weights can be shown; with labels."""
        skin, has_joints = self.skin, len(self.skin) > 1
        said = {"own": True, "weights": has_joints, "dominant": has_joints, ETA: skin.etas is not None}
        found = {key: words for key, words in COLORINGS.items() if said[key]}
        return found | {name: f"weights of {name}" for name in skin.names if has_joints and name not in found}

    def changed(self, clip: str | None = None, colors: str | None = None) -> "Rig":
        """The same skinned mesh with other choices.

        Raises:
            InputError: This mesh does not have this clip or coloring.
        """
        if clip is not None and clip not in self.clips:
            self.skin.clip(clip)  # raises with the available names
        if colors is not None and colors not in self.colorings:
            known = f"it has {', '.join(self.colorings)}" if colors in COLORINGS else nearest_names(colors, self.colorings)
            raise InputError(f"colors: got {colors!r}, which this mesh does not have; {known}")
        return replace(self, clip=clip or self.clip, colors=colors or self.colors)

    def like(self, other: "Rig") -> "Rig":
        """This mesh with the choices of another one, as far as it supports them."""
        clip = other.clip if other.clip in self.clips else None
        colors = other.colors if other.colors in self.colorings else None
        return self.changed(clip, colors)

    def surface(self) -> Mesh | FrameSequence:
        """The mesh, animated if a clip is selected; frames are computed on demand."""
        clip, mesh, skin = self._clip(), replace(self._colored(), normals=None), self.skin
        if clip is None:
            return replace(mesh, vertices=skin.posed(None, [0.0])[0])
        times, count = self._times(clip), mesh.num_vertices
        channels = {"vertices": _Frames(times, count, lambda time: skin.posed(clip, time)[0])}
        if self.colors == ETA:
            channels["vertex_colors"] = _Frames(times, count, lambda time: self._eta_colors(clip, time))
        return FrameSequence(mesh, times, channels)

    def skeleton(self) -> PointCloud | FrameSequence:
        """The joints as points, each with its own color."""
        clip, colors = self._clip(), joint_colors(len(self.skin))
        times = torch.zeros(1, dtype=torch.float64) if clip is None else self._times(clip)
        places = self.skin.joint_matrices(clip, times)[..., :3, 3].contiguous()
        cloud = PointCloud(places[0], colors.to(places))
        return cloud if clip is None else FrameSequence(cloud, times, {"points": places})

    def _clip(self) -> Clip | None:
        return None if self.clip == REST else self.skin.clip(self.clip)

    def _times(self, clip: Clip) -> Float64[Tensor, " t"]:
        """Evenly spaced from the first key to the last, both included; contains the file's frames."""
        own = self.skin.fps or _RATE
        rate = own * max(1, round(_RATE / own))
        if clip.end <= clip.start:
            return clip.times(rate)
        count = max(1, round((clip.end - clip.start) * rate))
        return torch.linspace(clip.start, clip.end, count + 1, dtype=torch.float64)

    def _colored(self) -> Mesh:
        skin = self.skin
        if self.colors == "own":
            return skin.mesh
        if self.colors == ETA:
            return replace(skin.mesh, uvs=None, texture=None, vertex_colors=self._eta_colors(None, torch.zeros(1)))
        weights = torch.zeros(len(skin.weights), len(skin)).to(skin.weights)
        weights.scatter_add_(1, skin.indices, skin.weights)
        if self.colors == "weights":
            colors = weights @ joint_colors(len(skin)).to(weights)
        elif self.colors == "dominant":
            colors = joint_colors(len(skin)).to(weights)[weights.argmax(1)]
        else:
            low, high = weights.new_tensor([_LOW, _HIGH])
            colors = low + weights[:, skin.names.index(self.colors), None] * (high - low)
        return replace(skin.mesh, uvs=None, texture=None, vertex_colors=colors.clamp(0, 1))

    def _eta_colors(self, clip: Clip | None, times: Tensor) -> Float[Tensor, "v 3"]:
        """Eta at the first of the times."""
        etas = self.skin.etas_at(clip, times)
        assert etas is not None
        return eta_colors(etas[0])


def joint_colors(count: int) -> Float[Tensor, "n 3"]:
    """A color for each joint, distinct for neighbors."""
    hues = [(0.08 + _GOLDEN * i) % 1 for i in range(count)]
    return torch.tensor([colorsys.hsv_to_rgb(hue, 0.62, 0.95) for hue in hues]).view(-1, 3)


def eta_colors(etas: Float[Tensor, " v"]) -> Float[Tensor, "v 3"]:
    """Color ramp from blue at 0 over white to orange at 1."""
    low, half, high = etas.new_tensor(_ETA_COLORS)
    share = 2 * etas.clamp(0, 1)[:, None]
    return torch.where(share < 1, torch.lerp(low, half, share), torch.lerp(half, high, share - 1))


class _Frames:
    """A channel of V vertices (V, 3) whose frames are computed on demand."""

    def __init__(self, times: Float64[Tensor, " t"], count: int, at: Callable[[Tensor], Tensor]) -> None:
        self._times, self._at = times, at
        self.shape = (len(times), count, 3)

    def __getitem__(self, index: int, /) -> Tensor:
        return self._at(self._times[index : index + 1])
