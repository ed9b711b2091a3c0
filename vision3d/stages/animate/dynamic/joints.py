"""Animated joints of a rigged mesh: rotations for each frame, with splines between frames."""

from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Float64, Int64
from torch import Tensor, nn

from vision3d.core.device import sent
from vision3d.core.errors import InputError
from vision3d.geometry.quaternion import multiply
from vision3d.geometry.rotation import rotvec_to_quat, so3_exp
from vision3d.geometry.skinning import linear_blend
from vision3d.scene import SkinnedMesh
from vision3d.scene.clip import Channel
from vision3d.scene.posing import rest_at
from vision3d.stages.animate.dynamic.splines import extrapolated, spline

_AHEAD = 1.0  # maximum extrapolation of a motion, in gaps between frames
_CARRIED = 1e-4  # minimum weight on a vertex for a joint to count


@dataclass(frozen=True, eq=False)
class JointTree:
    """The J joints of a skin that are optimized: those with skinned vertices, and those where two such branches meet.

    A joint's matrix is M_j = M_parent Q_j exp(w_j) Q_j^-1 from the rest pose to the posed mesh, with Q_j the rest frame of the
    joint without its own scale, as glTF composes T R S; a root is then translated.
    """

    skin: SkinnedMesh
    """The mesh in its rest pose."""
    joints: tuple[int, ...]
    """Indices of these joints in the skin."""
    parents: tuple[int, ...]
    """Nearest ancestor among them; -1 for a root."""
    frames: Float[Tensor, "j 4 4"]
    """Q_j."""
    indices: Int64[Tensor, "v k"]
    """Weights of these joints, for each vertex."""

    @classmethod
    def of(cls, skin: SkinnedMesh) -> "JointTree":
        """The tree of a skin in its rest pose; its clips are not used.

        Raises:
            InputError: The skin has no joints, no joint has vertices, or a joint has scale zero.
        """
        if not len(skin):
            raise InputError("skin: has no joints")
        none = dict.fromkeys(("morphs", "morph_normals", "rest_weights", "etas", "morph_etas"))
        skin = replace(rest_at(skin, None, 0.0), morph_names=(), clips=(), **none)
        is_used = torch.zeros(len(skin), dtype=torch.bool)
        is_used[skin.indices[skin.weights > _CARRIED].cpu()] = True
        is_used = is_used.tolist()
        if not any(is_used):
            raise InputError("skin: none of its joints has skinned vertices")
        below = [0] * len(skin)  # number of children whose branches have vertices
        for joint in reversed(range(len(skin))):
            if (is_used[joint] or below[joint]) and skin.parents[joint] >= 0:
                below[skin.parents[joint]] += 1
        free = [joint for joint in range(len(skin)) if is_used[joint] or below[joint] > 1]
        place = {joint: i for i, joint in enumerate(free)}
        parents = []
        for joint in free:
            above = skin.parents[joint]
            while above >= 0 and above not in place:
                above = skin.parents[above]
            parents.append(place.get(above, -1))
        placed = skin.joint_matrices(None, torch.zeros(1, dtype=torch.float64, device=skin.device))[0][free]
        frames = placed.clone()
        frames[:, :3, :3] = placed[:, :3, :3] / skin.scales[free][:, None, :]
        # Weights below the limit may belong to a dropped joint.
        nearest = torch.tensor([_above(joint, skin.parents, place) for joint in range(len(skin))], device=skin.device)
        return cls(skin, tuple(free), tuple(parents), frames, nearest[skin.indices])

    @property
    def limbs(self) -> list[list[int]]:
        """Chains of joints between branching points or ends, those with the most vertices first; without roots."""
        children = [[i for i, parent in enumerate(self.parents) if parent == joint] for joint in range(len(self))]
        starts = [i for i, parent in enumerate(self.parents) if parent >= 0 and len(children[parent]) > 1]
        starts += [i for root in self.roots for i in children[root] if len(children[root]) == 1]
        weights = self.skin.weights
        carried = weights.new_zeros(len(self)).index_add(0, self.indices.flatten(), weights.flatten()).tolist()
        for joint in reversed(range(len(self))):
            if self.parents[joint] >= 0:
                carried[self.parents[joint]] += carried[joint]
        found = []
        for start in sorted(starts, key=lambda joint: (-carried[joint], joint)):
            chain = [start]
            while len(children[chain[-1]]) == 1:
                chain.append(children[chain[-1]][0])
            found.append(chain)
        return found

    @property
    def roots(self) -> list[int]:
        return [i for i, parent in enumerate(self.parents) if parent < 0]

    def __len__(self) -> int:
        return len(self.joints)

    def matrices(self, turns: Float[Tensor, "t j 3"], shifts: Float[Tensor, "t r 3"]) -> Float[Tensor, "t j 4 4"]:
        """Rest pose to pose, for rotation vectors in the joints' frames [rad] and translations of roots [m]."""
        spin = torch.nn.functional.pad(so3_exp(turns), (0, 1, 0, 1))
        spin = spin + torch.nn.functional.pad(spin.new_ones(1, 1), (3, 0, 3, 0))
        local = self.frames @ spin @ torch.linalg.inv(self.frames.double()).to(self.frames)
        # One product for all joints of a depth.
        levels: list[list[int]] = []
        depth: list[int] = []
        for i, parent in enumerate(self.parents):
            depth.append(0 if parent < 0 else depth[parent] + 1)
            if depth[i] == len(levels):
                levels.append([])
            levels[depth[i]].append(i)
        move = torch.nn.functional.pad(shifts[..., None], (3, 0, 0, 1))
        done, order = [local[:, levels[0]] + move], list(levels[0])
        for level in levels[1:]:
            place = {joint: i for i, joint in enumerate(order)}
            above = torch.cat(done, 1)[:, [place[self.parents[i]] for i in level]]
            done.append(above @ local[:, level])
            order += level
        return torch.cat(done, 1)[:, sorted(range(len(order)), key=order.__getitem__)]

    def pose(
        self, vertices: Float[Tensor, "*t v 3"], turns: Float[Tensor, "t j 3"], shifts: Float[Tensor, "t r 3"]
    ) -> Float[Tensor, "t v 3"]:
        """Posed vertices (linear skinning) of rest vertices, either the same for all times or one set each."""
        matrices = self.matrices(turns, shifts)
        if vertices.ndim == 2:
            return linear_blend(vertices, self.skin.weights, self.indices, matrices)
        return torch.stack([linear_blend(v, self.skin.weights, self.indices, m) for v, m in zip(vertices, matrices)])

    def channels(
        self, times: Float64[Tensor, " t"], turns: Float[Tensor, "t j 3"], shifts: Float[Tensor, "t r 3"]
    ) -> list[Channel]:
        """The same motion as keys of the skin's joints."""
        at, found = times - times[:1], []
        for i, joint in enumerate(self.joints):
            rest = self.skin.quats[joint].expand(len(times), 4)
            found.append(Channel("rotation", joint, at, multiply(rest, rotvec_to_quat(turns[:, i]))))
        placed = self.skin.joint_matrices(None, torch.zeros(1, dtype=torch.float64, device=self.skin.device))[0]
        for row, i in enumerate(self.roots):
            joint = self.joints[i]
            above, moved = self.skin.parents[joint], shifts[:, row]
            if above >= 0:
                moved = moved @ torch.linalg.inv(placed[above, :3, :3].double()).to(moved).mT
            found.append(Channel("translation", joint, at, self.skin.translations[joint] + moved))
        return found


class JointField(nn.Module):
    """Rotation vectors of the joints and translations of the roots at any time; zero at the reference time.

    Args:
        tree: The joints.
        times: Times of the frames [s], ascending.
        reference: Time of the rest pose [s].
        radius: Unit of translations [m].
    """

    def __init__(self, tree: JointTree, times: Float64[Tensor, " t"], reference: float, radius: float) -> None:
        super().__init__()
        self.tree, self.radius = tree, radius
        keys = torch.unique(torch.cat([times, times.new_tensor([reference])]))
        self.register_buffer("keys", keys)
        self.register_buffer("is_free", (keys != reference).to(tree.frames)[:, None, None])
        self.values = nn.Parameter(tree.frames.new_zeros(len(keys), len(tree) + len(tree.roots), 3))

    def at_keys(self) -> Float[Tensor, "k c 3"]:
        """Rotation vectors [rad] and translations [radii] at the keys."""
        return self.values * self.get_buffer("is_free")

    def forward(self, times: Float64[Tensor, " t"]) -> tuple[Float[Tensor, "t j 3"], Float[Tensor, "t r 3"]]:
        """Rotation vectors [rad] and translations [m] at these times [s]."""
        return self.split(self.values_at(times))

    def values_at(self, times: Float64[Tensor, " t"]) -> Float[Tensor, "t c 3"]:
        """Rotation vectors [rad] and translations [radii] at these times [s]."""
        keys = self.get_buffer("keys")
        return spline(keys, self.at_keys(), sent(times, keys.device))

    def split(self, values: Float[Tensor, "t c 3"]) -> tuple[Float[Tensor, "t j 3"], Float[Tensor, "t r 3"]]:
        """Rotation vectors [rad] and translations [m] from the optimized parameters."""
        count = len(self.tree)
        return values[:, :count], values[:, count:] * self.radius

    def depths(self, shifts: Float[Tensor, "t r 3"], axes: Float[Tensor, "t 3"]) -> Float[Tensor, "t r"]:
        """Translations of the roots along the camera axes [radii]."""
        return (shifts * axes[:, None]).sum(-1) / self.radius

    @torch.no_grad()
    def start_from(self, time: float, other: float, before: float) -> None:
        """Initialize a frame from another frame, extrapolated by the motion since `before`."""
        keys = self.get_buffer("keys")
        row = int(torch.searchsorted(keys, keys.new_tensor([time])))
        self.values[row] = extrapolated(keys, self.at_keys(), time, other, before, _AHEAD)


def _above(joint: int, parents: tuple[int, ...], place: dict[int, int]) -> int:
    """The nearest joint, this one or an ancestor, that is in `place`; else the first."""
    while joint >= 0 and joint not in place:
        joint = parents[joint]
    return place.get(joint, 0)
