"""Skins as the viewers show them: which clip plays, how the mesh is coloured, and where the joints are."""

import colorsys
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from vision3d.core.errors import InputError, nearest_names
from vision3d.scene import Clip, FrameSequence, Mesh, PointCloud, SkinnedMesh

REST = "rest"
"""In place of a clip: the mesh at rest."""
ETA = "eta"
COLORINGS = {"own": "own colours", "weights": "blend weights", "dominant": "dominant joint", ETA: "eta of hybrid skinning"}
"""How meshes may be coloured, with words for people; beside these by the weights of one joint, by its name."""
LEGENDS = {ETA: ("blue: 0, dual quaternions (DQS)", "orange: 1, linear skinning (LBS)")}
"""What the ends of continuous colours say, a line each."""
_RATE = 30.0  # frames a second of clips, about that where their files say how many
_GOLDEN = 0.61803398875
_LOW, _HIGH = (0.16, 0.18, 0.32), (1.0, 0.72, 0.20)
_ETA_COLORS = (0.10, 0.30, 0.75), (0.93, 0.93, 0.90), (0.95, 0.45, 0.05)  # of 0, 1/2 and 1


@dataclass(frozen=True, eq=False)
class Rig:
    """A skin with what is chosen for it."""

    skin: SkinnedMesh
    clip: str = REST
    """Name of the clip that plays, or REST."""
    colors: str = "own"
    """One of `colorings`."""

    @classmethod
    def of(cls, skin: SkinnedMesh) -> "Rig":
        """A skin that plays its first clip."""
        return cls(skin, skin.clips[0].name if skin.clips else REST)

    @property
    def clips(self) -> tuple[str, ...]:
        """What can be chosen to play."""
        return (*(clip.name for clip in self.skin.clips), REST)

    @property
    def colorings(self) -> dict[str, str]:
        """The keys of COLORINGS that say something here, and the names of joints whose weights can be shown; with words."""
        skin, has_joints = self.skin, len(self.skin) > 1
        said = {"own": True, "weights": has_joints, "dominant": has_joints, ETA: skin.etas is not None}
        found = {key: words for key, words in COLORINGS.items() if said[key]}
        return found | {name: f"weights of {name}" for name in skin.names if has_joints and name not in found}

    def changed(self, clip: str | None = None, colors: str | None = None) -> "Rig":
        """The same skin with other choices.

        Raises:
            InputError: There is no such clip, or no such colouring of this skin.
        """
        if clip is not None and clip not in self.clips:
            self.skin.clip(clip)  # says which there are
        if colors is not None and colors not in self.colorings:
            known = f"it has {', '.join(self.colorings)}" if colors in COLORINGS else nearest_names(colors, self.colorings)
            raise InputError(f"colours: got {colors!r}, which this mesh does not have; {known}")
        return replace(self, clip=clip or self.clip, colors=colors or self.colors)

    def like(self, other: "Rig") -> "Rig":
        """This skin with the choices of another one, as far as it has what they name."""
        clip = other.clip if other.clip in self.clips else None
        colors = other.colors if other.colors in self.colorings else None
        return self.changed(clip, colors)

    def surface(self) -> Mesh | FrameSequence:
        """The mesh, moving where a clip plays; its frames are computed when they are asked for."""
        clip, mesh, skin = self._clip(), replace(self._colored(), normals=None), self.skin
        if clip is None:
            return replace(mesh, vertices=skin.posed(None, [0.0])[0])
        times, count = self._times(clip), mesh.num_vertices
        channels = {"vertices": _Frames(times, count, lambda time: skin.posed(clip, time)[0])}
        if self.colors == ETA:
            channels["vertex_colors"] = _Frames(times, count, lambda time: self._eta_colors(clip, time))
        return FrameSequence(mesh, times, channels)

    def skeleton(self) -> PointCloud | FrameSequence:
        """The places of the joints, coloured one by one."""
        clip, colors = self._clip(), joint_colors(len(self.skin))
        times = torch.zeros(1, dtype=torch.float64) if clip is None else self._times(clip)
        places = self.skin.joint_matrices(clip, times)[..., :3, 3].contiguous()
        cloud = PointCloud(places[0], colors.to(places))
        return cloud if clip is None else FrameSequence(cloud, times, {"points": places})

    def _clip(self) -> Clip | None:
        return None if self.clip == REST else self.skin.clip(self.clip)

    def _times(self, clip: Clip) -> Float64[Tensor, " t"]:
        """Evenly from the first key to the last one, both included; the file's frames are among them."""
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
        """At the first of the times."""
        etas = self.skin.etas_at(clip, times)
        assert etas is not None
        return eta_colors(etas[0])


def joint_colors(count: int) -> Float[Tensor, "n 3"]:
    """A colour for each joint, those of neighbours far apart."""
    hues = [(0.08 + _GOLDEN * i) % 1 for i in range(count)]
    return torch.tensor([colorsys.hsv_to_rgb(hue, 0.62, 0.95) for hue in hues]).view(-1, 3)


def eta_colors(etas: Float[Tensor, " v"]) -> Float[Tensor, "v 3"]:
    """From blue at 0 over white to orange at 1."""
    low, half, high = etas.new_tensor(_ETA_COLORS)
    share = 2 * etas.clamp(0, 1)[:, None]
    return torch.where(share < 1, torch.lerp(low, half, share), torch.lerp(half, high, share - 1))


class _Frames:
    """Values of the V vertices (V, 3) as a channel: a frame is computed when it is asked for."""

    def __init__(self, times: Float64[Tensor, " t"], count: int, at: Callable[[Tensor], Tensor]) -> None:
        self._times, self._at = times, at
        self.shape = (len(times), count, 3)

    def __getitem__(self, index: int, /) -> Tensor:
        return self._at(self._times[index : index + 1])
