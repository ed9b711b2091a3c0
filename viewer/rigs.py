"""Skins as the viewers show them: which clip plays, how the mesh is coloured, and where the joints are."""

import colorsys
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from vision3d.errors import InputError, nearest_names
from vision3d.scene import Clip, Mesh, PointCloud, Sequence, Skin

REST = "rest"
"""In place of a clip: the mesh at rest."""
COLORINGS = {"own": "own colours", "weights": "blend weights", "dominant": "dominant joint"}
"""How a mesh may be coloured, with words for people; beside these by the weights of one joint, by its name."""
_RATE = 30.0  # frames a second of clips, about that where their files say how many
_GOLDEN = 0.61803398875
_LOW, _HIGH = (0.16, 0.18, 0.32), (1.0, 0.72, 0.20)


@dataclass(frozen=True, eq=False)
class Rig:
    """A skin with what is chosen for it."""

    skin: Skin
    clip: str = REST
    """Name of the clip that plays, or REST."""
    colors: str = "own"
    """A key of COLORINGS, or the name of a joint whose weights are shown."""

    @classmethod
    def of(cls, skin: Skin) -> "Rig":
        """A skin that plays its first clip."""
        return cls(skin, skin.clips[0].name if skin.clips else REST)

    @property
    def clips(self) -> tuple[str, ...]:
        """What can be chosen to play."""
        return (*(clip.name for clip in self.skin.clips), REST)

    def changed(self, clip: str | None = None, colors: str | None = None) -> "Rig":
        """The same skin with other choices.

        Raises:
            InputError: There is no such clip, or neither such a colouring nor such a joint.
        """
        if clip is not None and clip not in self.clips:
            self.skin.clip(clip)  # says which there are
        if colors is not None and colors not in COLORINGS and colors not in self.skin.names:
            raise InputError(f"colours: got {colors!r}; {nearest_names(colors, (*COLORINGS, *self.skin.names))}")
        return replace(self, clip=clip or self.clip, colors=colors or self.colors)

    def like(self, other: "Rig") -> "Rig":
        """This skin with the choices of another one, as far as it has what they name."""
        clip = other.clip if other.clip in self.clips else None
        colors = other.colors if other.colors in (*COLORINGS, *self.skin.names) else None
        return self.changed(clip, colors)

    def surface(self) -> Mesh | Sequence:
        """The mesh, moving where a clip plays; its frames are computed when they are asked for."""
        clip, mesh = self._clip(), replace(self._colored(), normals=None)
        if clip is None:
            return replace(mesh, vertices=self.skin.posed(None, [0.0])[0])
        times = self._times(clip)
        return Sequence(mesh, times, {"vertices": _Posed(self.skin, clip, times)})

    def skeleton(self) -> PointCloud | Sequence:
        """The places of the joints, coloured one by one."""
        clip, colors = self._clip(), joint_colors(len(self.skin))
        times = torch.zeros(1, dtype=torch.float64) if clip is None else self._times(clip)
        places = self.skin.joint_matrices(clip, times)[..., :3, 3].contiguous()
        cloud = PointCloud(places[0], colors.to(places))
        return cloud if clip is None else Sequence(cloud, times, {"points": places})

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
        if self.colors == "own" or not len(skin):
            return skin.mesh
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


def joint_colors(count: int) -> Float[Tensor, "n 3"]:
    """A colour for each joint, those of neighbours far apart."""
    hues = [(0.08 + _GOLDEN * i) % 1 for i in range(count)]
    return torch.tensor([colorsys.hsv_to_rgb(hue, 0.62, 0.95) for hue in hues]).view(-1, 3)


class _Posed:
    """The vertices of a clip as a channel: a frame is computed when it is asked for."""

    def __init__(self, skin: Skin, clip: Clip, times: Float64[Tensor, " t"]) -> None:
        self._skin, self._clip, self._times = skin, clip, times
        self.shape = (len(times), skin.mesh.num_vertices, 3)

    def __getitem__(self, index: int, /) -> Tensor:
        return self._skin.posed(self._clip, self._times[index : index + 1])[0]
