"""The bundled hand: 778 vertices, 16 joints that move them, anatomical axes and limits, and a matrix that finds 21 joints.

The right hand at rest has its wrist at the origin, fingers along y, the palm facing z and the thumb at +x; lengths in meters.
"""

import functools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib.resources import files
from pathlib import Path
from typing import Literal, NamedTuple

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from vision3d.core.errors import FileFormatError, InputError, ShapeError
from vision3d.geometry.choices import SkinningMethod
from vision3d.geometry.dual_quaternion import blend, from_quat_translation, transform_points
from vision3d.geometry.kinematics import forward_kinematics
from vision3d.geometry.quaternion import rotmat_to_quat
from vision3d.geometry.rotation import so3_exp
from vision3d.geometry.skinning import keep_largest, linear_blend, skin
from vision3d.scene.clip import Channel, Clip
from vision3d.scene.mesh import Mesh
from vision3d.scene.skin import SkinnedMesh
from vision3d.stages.hand.shape import HandShape
from vision3d.stages.hand.tone import skin_color

NUM_VERTICES, NUM_FACES, NUM_JOINTS, NUM_KEYPOINTS = 778, 1538, 16, 21
KINDS = ("flexion", "abduction", "twist")
_FLOATS = ("vertices", "uvs", "weights", "joint_matrix", "places", "keypoints", "axes", "limits", "forearm", "forearm_uvs")
_INDICES = ("faces", "ring", "tips", "forearm_faces")
Side = Literal["right", "left"]


class PosedHand(NamedTuple):
    """A hand in a pose, or a batch of them."""

    vertices: Float[Tensor, "*batch 778 3"]
    """[m]."""
    skeleton: Float[Tensor, "*batch 21 3"]
    """Centers of the joints and the tips, in the order of FreiHAND, exactly as the bones move them [m]. The 21 joints that
    networks are trained with are `HandTemplate.joints(vertices)`."""
    rotmats: Float[Tensor, "*batch 16 3 3"]
    """Rotations of the joints from the rest pose to the world."""
    forearm: Float[Tensor, "*batch n 3"]
    """Vertices of the forearm [m]."""


@dataclass(frozen=True, eq=False)
class HandTemplate:
    """A rigged hand. All floats have one dtype and device.

    Example:
        >>> hand = HandTemplate.load()
        >>> angles = hand.random_angles(8, torch.Generator().manual_seed(0))
        >>> posed = hand.pose(angles)
        >>> posed.vertices.shape, hand.joints(posed.vertices).shape
        (torch.Size([8, 778, 3]), torch.Size([8, 21, 3]))
    """

    vertices: Float[Tensor, "778 3"]
    """At rest [m]; the first 16 are the border at the wrist."""
    faces: Int64[Tensor, "1538 3"]
    """Counter-clockwise seen from outside."""
    uvs: Float[Tensor, "1538 3 2"]
    """Texture coordinates of the corners of the faces, as in `Mesh.uvs`; some charts are mirrored."""
    weights: Float[Tensor, "778 16"]
    """Skin weights, at most four a vertex > 0; rows sum to 1."""
    joint_matrix: Float[Tensor, "21 778"]
    """Joints from vertices; no weight is negative, rows sum to 1."""
    places: Float[Tensor, "16 3"]
    """Centers of the joints that move the mesh [m]."""
    keypoints: Float[Tensor, "21 3"]
    """Centers of all joints, and the tips [m]."""
    axes: Float[Tensor, "16 3 3"]
    """Unit axes of flexion, abduction and twist of each joint at rest. Positive flexion closes the hand; positive abduction
    moves a finger towards the thumb, and the thumb out of the palm's plane."""
    limits: Float[Tensor, "16 3 2"]
    """Lowest and highest angle about each axis [rad]; equal where the joint does not move."""
    ring: Int64[Tensor, "16"]
    """Vertices of the border at the wrist, in order around it."""
    tips: Int64[Tensor, "5"]
    """Vertices at the tips, thumb to little finger."""
    forearm: Float[Tensor, "n 3"]
    """Vertices of a forearm to render with, which moves with the wrist [m]."""
    forearm_faces: Int64[Tensor, "g 3"]
    """Faces of the forearm; they index the vertices of the hand, followed by those of the forearm."""
    forearm_uvs: Float[Tensor, "g 3 2"]
    """Texture coordinates of the forearm's faces, in a texture of its own: u around it, v along it."""
    names: tuple[str, ...]
    """Names of the 16 joints: wrist, thumb_1 .. thumb_3, index_1 .. little_3."""
    parents: tuple[int, ...]
    """Parent of each joint; -1 for the wrist."""
    side: Side = "right"

    @classmethod
    def load(cls, side: Side = "right", *, dtype: torch.dtype = torch.float32) -> "HandTemplate":
        """The bundled hand, on the CPU; read once.

        Args:
            side: right or left.
            dtype: Of all floats.

        Raises:
            InputError: The side is unknown.
        """
        if side not in ("right", "left"):
            raise InputError(f"side: got {side!r}, want right or left")
        return _bundled(side, dtype)

    @property
    def angle_names(self) -> tuple[str, ...]:
        """The angles of `pose`: `thumb_1_flexion`, `thumb_1_abduction`, `thumb_2_flexion` ... `little_3_flexion`."""
        return tuple(f"{self.names[joint]}_{KINDS[kind]}" for joint, kind in _free(self.limits).tolist())

    @property
    def angle_limits(self) -> Float[Tensor, "20 2"]:
        """Lowest and highest value of each angle [rad]."""
        joint, kind = _free(self.limits).T
        return self.limits[joint, kind]

    def rotations(self, angles: Float[Tensor, "*batch 20"]) -> Float[Tensor, "*batch 16 3 3"]:
        """Rotations of the joints relative to their parents: flexion after abduction; that of the wrist is the identity.

        Args:
            angles: In the order of `angle_names` [rad].

        Raises:
            ShapeError: There are not 20 of them.
        """
        free = _free(self.limits)
        if angles.shape[-1:] != (len(free),):
            raise ShapeError("angles", tuple(angles.shape), f"shape (..., {len(free)})")
        axes = self.axes.to(angles)
        turns = so3_exp(angles[..., None] * axes[free[:, 0], free[:, 1]])
        identity = torch.eye(3, dtype=angles.dtype, device=angles.device).expand(*angles.shape[:-1], 3, 3)
        found = [identity] * NUM_JOINTS
        for number, (joint, _) in enumerate(free.tolist()):
            is_first = number == 0 or int(free[number - 1, 0]) != joint
            found[joint] = turns[..., number, :, :] if is_first else found[joint] @ turns[..., number, :, :]
        return torch.stack(found, -3)

    def pose(
        self,
        angles: Float[Tensor, "*batch 20"] | None = None,
        *,
        rotmats: Float[Tensor, "*batch 16 3 3"] | None = None,
        rotation: Float[Tensor, "*batch 3 3"] | None = None,
        translation: Float[Tensor, "*batch 3"] | None = None,
        shape: HandShape | None = None,
        method: SkinningMethod = "lbs",
    ) -> PosedHand:
        """The hand in a pose, differentiable in everything.

        A finger of another shape is stretched along and across its bones at rest, blended by the skin weights; in linear
        skinning, shape and motion are blended together.

        Args:
            angles: In the order of `angle_names` [rad]; not clamped to the limits.
            rotmats: Instead of angles: rotation of each joint relative to its parent, the wrist first.
            rotation: Of the whole hand about the wrist, before that of the wrist in `rotmats`.
            translation: Position of the wrist [m]; the origin when None.
            shape: Factors of this hand; the template's own when None.
            method: lbs (linear) or dqs (dual quaternions).

        Raises:
            InputError: Neither or both of angles and rotmats are given, or the method is unknown.
            ShapeError: A shape is wrong.
        """
        if (angles is None) == (rotmats is None):
            raise InputError("pose: got neither or both of angles and rotmats, want one of them")
        if method not in ("lbs", "dqs"):
            raise InputError(f"method: got {method!r}, want lbs or dqs")
        local = self.rotations(angles) if angles is not None else rotmats
        assert local is not None
        if local.shape[-3:] != (NUM_JOINTS, 3, 3):
            raise ShapeError("rotmats", tuple(local.shape), f"shape (..., {NUM_JOINTS}, 3, 3)")
        shape = None if shape is None else shape.to(local)
        batch = torch.broadcast_shapes(
            local.shape[:-3],
            () if rotation is None else rotation.shape[:-2],
            () if translation is None else translation.shape[:-1],
            () if shape is None else shape.scale.shape,
        )
        local = local.expand(*batch, NUM_JOINTS, 3, 3)
        if rotation is not None:
            local = torch.cat([rotation.to(local)[..., None, :, :] @ local[..., :1, :, :], local[..., 1:, :, :]], -3)
        centers, stretches = self.places.to(local), self._stretches(shape, local)
        matrices = _symmetric(stretches)
        above = [max(parent, 0) for parent in self.parents]
        offsets = (matrices[..., above, :, :] @ (centers - centers[above])[..., None])[..., 0]
        rotmats, moved = forward_kinematics(local, offsets.expand(*batch, NUM_JOINTS, 3), self.parents, translation)
        vertices = self._skinned(rotmats, moved, centers, None if shape is None else stretches, offsets, method)
        last = list(range(3, NUM_JOINTS, 3))
        reach = self.keypoints.to(local)[4::4] - centers[last]
        tips = moved[..., last, :] + (rotmats @ matrices)[..., last, :, :].matmul(reach[..., None])[..., 0]
        columns = [moved[..., :1, :]]
        for finger in range(5):
            columns += [moved[..., 3 * finger + 1 : 3 * finger + 4, :], tips[..., finger : finger + 1, :]]
        to_world = (rotmats @ matrices)[..., :1, :, :]
        forearm = (to_world @ (self.forearm.to(local) - centers[0])[..., None])[..., 0] + moved[..., :1, :]
        return PosedHand(vertices, torch.cat(columns, -2), rotmats, forearm)

    def joints(self, vertices: Float[Tensor, "*batch 778 3"]) -> Float[Tensor, "*batch 21 3"]:
        """The 21 joints in the order of FreiHAND from the vertices in any pose, M V [m].

        Raises:
            ShapeError: There are not 778 vertices.
        """
        if vertices.shape[-2:] != (NUM_VERTICES, 3):
            raise ShapeError("vertices", tuple(vertices.shape), f"shape (..., {NUM_VERTICES}, 3)")
        return self.joint_matrix.to(vertices) @ vertices

    def random_angles(self, count: int, generator: torch.Generator) -> Float[Tensor, "count 20"]:
        """Random poses within the limits: all fingers close together to some degree, each with a deviation of its own.

        DIP joints bend about two thirds as far as PIP joints; fingers spread less the more they are bent.

        Args:
            count: Number of poses.
            generator: Random numbers, on the CPU.
        """
        uniform = functools.partial(torch.rand, generator=generator, dtype=torch.float64)
        normal = functools.partial(torch.randn, generator=generator, dtype=torch.float64)
        low, high = self.angle_limits.cpu().double().T
        curl = (uniform(count, 1, 1) * 1.1 - 0.05 + 0.18 * normal(count, 5, 1) + 0.10 * normal(count, 5, 4)).clamp(0, 1)
        angles = low + (high - low) * curl.reshape(count, 20)
        names = self.angle_names
        for number, name in enumerate(names):
            finger, bone, kind = name.split("_")
            if kind == "abduction":
                spread = low[number] + (high[number] - low[number]) * uniform(count)
                bent = 0 if finger == "thumb" else (angles[:, number - 1] / high[number - 1]).clamp(0, 1)
                angles[:, number] = spread * (1 - 0.8 * bent)
            elif bone == "3" and finger != "thumb":
                angles[:, number] = 2 / 3 * angles[:, number - 1] + 0.12 * normal(count)
            elif bone == "1" and finger == "thumb":
                angles[:, number] = low[number] + (high[number] - low[number]) * uniform(count)
        return angles.clamp(low, high).to(self.vertices)

    def mirrored(self) -> "HandTemplate":
        """The other hand, mirrored in x: the same angles give the mirrored pose."""
        flip = self.vertices.new_tensor([-1.0, 1, 1])
        points = {name: getattr(self, name) * flip for name in ("vertices", "places", "keypoints", "forearm")}
        corners = {name: getattr(self, name)[:, [0, 2, 1]] for name in ("faces", "uvs", "forearm_faces", "forearm_uvs")}
        # An axis of rotation is a pseudovector: a mirror also reverses it.
        return replace(self, **points, **corners, axes=-self.axes * flip, side="left" if self.side == "right" else "right")

    def shaped(self, shape: HandShape) -> "HandTemplate":
        """The hand of another shape at rest; poses of it differ near the joints from those of `pose` with the shape.

        Args:
            shape: Of one hand, without batch axes.
        """
        posed = self.pose(self.vertices.new_zeros(len(self.angle_names)), shape=shape)
        rows = [0, *(4 * finger + joint for finger in range(5) for joint in (1, 2, 3))]
        points = {"vertices": posed.vertices, "places": posed.skeleton[rows], "forearm": posed.forearm}
        return replace(self, **points, keypoints=posed.skeleton)

    def to(self, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> "HandTemplate":
        """The same hand on another device, or with another dtype of floats."""
        moved = {name: getattr(self, name).to(device=device, dtype=dtype) for name in _FLOATS}
        return replace(self, **moved, **{name: getattr(self, name).to(device=device) for name in _INDICES})

    def mesh(self, posed: PosedHand | None = None, *, forearm: bool = False) -> Mesh:
        """The surface in the color of skin: at rest, or of one posed hand.

        Args:
            posed: A pose without batch axes.
            forearm: With the forearm, and without uvs.
        """
        vertices = self.vertices if posed is None else posed.vertices
        if vertices.ndim != 2:
            raise ShapeError("posed.vertices", tuple(vertices.shape), f"shape ({NUM_VERTICES}, 3): one hand")
        color = skin_color().to(vertices)
        if not forearm:
            return Mesh(vertices, self.faces, self.uvs, vertex_colors=color.expand(len(vertices), 3))
        vertices = torch.cat([vertices, self.forearm if posed is None else posed.forearm])
        return Mesh(vertices, torch.cat([self.faces, self.forearm_faces]), vertex_colors=color.expand(len(vertices), 3))

    def clip(self, angles: Float[Tensor, "t 20"], times: Sequence[float] | Tensor, name: str = "hand") -> Clip:
        """An animation of the joints.

        Args:
            angles: At each time [rad].
            times: Ascending [s].
            name: Of the clip.
        """
        at = torch.as_tensor(times, dtype=torch.float64)
        quats = rotmat_to_quat(self.rotations(angles))
        return Clip(name, tuple(Channel("rotation", joint, at, quats[:, joint]) for joint in range(1, NUM_JOINTS)))

    def to_skinned_mesh(self, clips: Sequence[Clip] = ()) -> SkinnedMesh:
        """A mesh with joints, for files, viewers and engines."""
        places = torch.cat([self.places, torch.zeros_like(self.places[:1])])
        above = places[list(self.parents)]  # -1 is the origin
        binds = torch.eye(4).to(self.places).repeat(NUM_JOINTS, 1, 1)
        binds[:, :3, 3] = -self.places
        kept, indices = self._sparse_weights()
        mesh, source = self.mesh().split_seams_with_rows()
        return SkinnedMesh(
            mesh,
            self.names,
            self.parents,
            translations=self.places - above,
            quats=self.places.new_tensor([1.0, 0, 0, 0]).repeat(NUM_JOINTS, 1),
            scales=torch.ones_like(self.places),
            inverse_binds=binds,
            indices=indices[source],
            weights=kept[source],
            clips=tuple(clips),
        )

    def __repr__(self) -> str:
        return f"HandTemplate({self.side}, {len(self.vertices)} vertices, {len(self.faces)} faces, {self.vertices.dtype})"

    def _sparse_weights(self) -> tuple[Tensor, Tensor]:
        return keep_largest(self.weights, 4)

    def _skinned(
        self, rotmats: Tensor, moved: Tensor, centers: Tensor, stretches: Tensor | None, offsets: Tensor, method: str
    ) -> Float[Tensor, "*batch 778 3"]:
        kept, indices = self._sparse_weights()
        rest, kept, quats = self.vertices.to(rotmats), kept.to(rotmats), rotmat_to_quat(rotmats)
        if method == "lbs" or stretches is None:
            blends = rotmats.new_ones(rotmats.shape[:-2])
            if stretches is not None:
                stretches = stretches.expand(*rotmats.shape[:-2], 6)
            options = {"centers": centers, "stretches": stretches, "blends": blends}
            # Hybrid skinning with the factor 1 is linear, and stretches before it rotates.
            return skin(rest, kept, indices, quats, moved - centers, method="hybrid" if method == "lbs" else "dqs", **options)
        # Dual quaternions are rigid: the shape first, then its motion.
        matrices = _symmetric(stretches)
        still = torch.eye(3).to(rotmats).expand(*offsets.shape[:-1], 3, 3)
        places = forward_kinematics(still, offsets, self.parents)[1]
        shifts = places - (matrices @ centers[..., None])[..., 0]
        shaped = linear_blend(rest, kept, indices, torch.cat([matrices, shifts[..., None]], -1))
        motions = from_quat_translation(quats, moved - (rotmats @ places[..., None])[..., 0])
        return transform_points(blend(motions[..., indices, :], kept), shaped)

    def _stretches(self, shape: HandShape | None, like: Tensor) -> Float[Tensor, "*shape 16 6"]:
        """Symmetric matrix of each joint, as `skin` takes it: thickness I + (length - thickness) a a^T along the bone a."""
        if shape is None:
            return like.new_tensor([1.0, 1, 1, 0, 0, 0]).expand(NUM_JOINTS, 6)
        (lengths, thicknesses), along = shape.by_joint(), self.axes[:, 2].to(like)
        squares = torch.cat([along * along, along[:, [0, 0, 1]] * along[:, [1, 2, 2]]], -1)
        diagonal = like.new_tensor([1.0, 1, 1, 0, 0, 0])
        return thicknesses[..., None] * diagonal + (lengths - thicknesses)[..., None] * squares


def load_template(path: Path | str, dtype: torch.dtype = torch.float32) -> HandTemplate:
    """Load a right hand from a file of assets/hand/generate.py.

    Raises:
        MissingFileError: The file does not exist.
        FileFormatError: It is damaged or contains something else.
    """
    from vision3d.io.described import read_described

    own, tensors = read_described(path, "hand_template", 1, "a hand template", ("names",))
    if missing := [name for name in (*_FLOATS, *_INDICES, "parents") if name not in tensors]:
        raise FileFormatError(path, f"lacks {', '.join(missing)}", "header")
    values = {name: tensors[name].double() for name in _FLOATS}
    for name in ("weights", "joint_matrix"):  # float32 in the file: sums of 1 again
        values[name] = values[name] / values[name].sum(-1, keepdim=True)
    values = {name: value.to(dtype) for name, value in values.items()}
    indices = {name: tensors[name].long() for name in _INDICES}
    return HandTemplate(**values, **indices, names=tuple(own["names"]), parents=tuple(tensors["parents"].tolist()))  # pyright: ignore[reportArgumentType]


@functools.cache
def _bundled(side: Side, dtype: torch.dtype) -> HandTemplate:
    if side == "left":
        return _bundled("right", dtype).mirrored()
    return load_template(Path(str(files("vision3d") / "assets" / "hand" / "hand.safetensors")), dtype)


def _free(limits: Tensor) -> Tensor:
    """Joint and kind of each angle that varies, (20, 2)."""
    return (limits[..., 1] > limits[..., 0]).nonzero()


def _symmetric(sixes: Tensor) -> Tensor:
    return sixes[..., [0, 3, 4, 3, 1, 5, 4, 5, 2]].unflatten(-1, (3, 3))
