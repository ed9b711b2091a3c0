"""The hands of npm @webxr-input-profiles/assets (dist/profiles/generic-hand) as subjects of generated images, for tests alone.

Each takes the poses of the bundled template: its palm is aligned with the template's, its bones by their directions. Its joints
are those of its file: wrist, metacarpal to tip of the thumb, proximal phalanx to tip of the other fingers. The template is
registered to its surface once, so that vertices and texture coordinates correspond.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from vision3d.geometry.mesh import face_normals, vertex_normals, weld_vertices
from vision3d.geometry.neighbors import knn
from vision3d.geometry.rotation import nearest_rotation, so3_exp
from vision3d.geometry.vectors import unit
from vision3d.optim.motion.hand_names import FINGERS, WRIST, Role, find_hands
from vision3d.optim.motion.retarget import shortest_turn
from vision3d.scene import SkinnedMesh
from vision3d.stages.hand import HandShape, HandTemplate
from vision3d.stages.hand.template import PosedHand

ROLES: tuple[Role, ...] = (WRIST, *((finger, bone) for finger in FINGERS for bone in (1, 2, 3, 4)))
"""Of the 21 joints in the order of FreiHAND."""
_OVERLAP = 0.014
"""The forearm of the template begins this much nearer to the hand, in the stub of the file's [m]."""
_SAMPLES, _NEAR, _ROUNDS = 60_000, 12, 20


@dataclass(frozen=True, eq=False)
class WebXrHand:
    """A right hand at rest in the axes of the template, its wrist at the origin [m]."""

    vertices: Tensor
    faces: Tensor
    weights: Tensor
    """(V, J) skin weights."""
    roles: tuple[Role, ...]
    places: Tensor
    """(J, 3) joints at rest."""
    turns: Tensor
    """(J, 3, 3) rotations that give each bone the direction of the template's."""
    uvs: Tensor
    """(F, 3, 2) in the texture of the template."""
    rows: Tensor
    """(778, 3) vertices around the place of each vertex of the template."""
    shares: Tensor
    """(778, 3) their barycentric weights."""
    registration_mm: tuple[float, float]
    """Mean distance of the registered template from the surface, and of its joints from those of the file, at rest [mm]."""

    @property
    def forearm_faces(self) -> Tensor:
        """Those of the template's forearm, without the ones that join its hand."""
        template = HandTemplate.load("right")
        first = template.forearm_faces - len(template.vertices)
        return first[(first >= 0).all(1)] + len(self.vertices)

    @property
    def forearm_uvs(self) -> Tensor:
        """As `forearm_faces`."""
        template = HandTemplate.load("right")
        return template.forearm_uvs[(template.forearm_faces >= len(template.vertices)).all(1)]

    def pose(self, angles: Tensor, *, rotation: Tensor, shape: HandShape, translation: Tensor | None = None) -> PosedHand:
        """The pose of the template with these angles; the shape scales the hand and its fingers."""
        template = HandTemplate.load("right")
        posed = template.pose(angles, rotation=rotation, translation=translation, shape=shape)
        lengths, thicknesses = shape.by_joint()
        start = torch.zeros(len(angles), 3) if translation is None else translation
        maps: dict[Role, Tensor] = {}
        centers: dict[Role, Tensor] = {}
        columns, positions = [], []
        for joint, role in enumerate(self.roles):
            source = _joint_of(role)
            along = unit(self._direction(joint))
            stretch = thicknesses[:, source, None, None] * torch.eye(3)
            stretch = stretch + (lengths - thicknesses)[:, source, None, None] * along[:, None] * along
            matrix = posed.rotmats[:, source] @ self.turns[joint] @ stretch
            if role == WRIST:
                center = start
            else:
                above = self._above(role)
                offset = self.places[joint] - self.places[self.roles.index(above)]
                center = centers[above] + (maps[above] @ offset[:, None])[..., 0]
            maps[role], centers[role] = matrix, center
            columns.append(matrix)
            positions.append(center)
        linear, moved = torch.stack(columns, 1), torch.stack(positions, 1)
        offsets = self.vertices[:, None] - self.places  # (V, J, 3)
        vertices = torch.einsum("vj,bjik,vjk->bvi", self.weights, linear, offsets)
        vertices = vertices + torch.einsum("vj,bji->bvi", self.weights, moved)
        skeleton = torch.stack([centers[role] for role in ROLES], 1)
        forearm = posed.forearm + _OVERLAP * (shape.scale[:, None] * posed.rotmats[:, 0, :, 1])[:, None]
        return PosedHand(vertices, skeleton, posed.rotmats, forearm)

    def joints(self, vertices: Tensor) -> Tensor:
        """The 21 joints that the template's matrix finds in the corresponding vertices."""
        return HandTemplate.load("right").joints(self.corresponding(vertices))

    def corresponding(self, vertices: Tensor) -> Tensor:
        """The places of the template's vertices on the surface, (..., 778, 3)."""
        return (vertices[..., self.rows, :] * self.shares[..., None]).sum(-2)

    def _above(self, role: Role) -> Role:
        finger, bone = role
        return next(((finger, k) for k in range(bone - 1, -1, -1) if (finger, k) in self.roles), WRIST)

    def _direction(self, joint: int) -> Tensor:
        finger, bone = self.roles[joint]
        if self.roles[joint] == WRIST:
            return self.places[self.roles.index(("middle", 1))] - self.places[joint]
        end = (finger, bone + 1) if (finger, bone + 1) in self.roles else None
        start = joint if end else self.roles.index((finger, bone - 1))
        return self.places[self.roles.index(end) if end else joint] - self.places[start]


def load_hands(folder: Path) -> list[WebXrHand]:
    """The right hand, and the left one mirrored."""
    return [_load(folder / f"{side}.glb", side == "left") for side in ("right", "left")]


def _joint_of(role: Role) -> int:
    """The joint of the template that moves a part of the hand."""
    finger, bone = role
    return 0 if finger == "wrist" or bone == 0 else 3 * FINGERS.index(finger) + min(bone, 3)


def _load(path: Path, is_left: bool) -> WebXrHand:
    skin = SkinnedMesh.load(path)
    rest = skin.joint_matrices(None, torch.zeros(1, dtype=torch.float64))[0]
    (found,) = find_hands(skin.names, skin.parents)
    order = sorted(found.joints, key=lambda role: (role != WRIST, role[1], role[0]))  # parents before children
    joints = [found.joints[role] for role in order]
    flip = torch.tensor([-1.0 if is_left else 1.0, 1.0, 1.0])
    places, points = rest[joints, :3, 3].float() * flip, skin.mesh.vertices * flip
    dense = torch.zeros(len(points), len(skin)).scatter_add_(1, skin.indices, skin.weights)
    vertices, faces, rows = weld_vertices(points, skin.mesh.faces, 1e-6)
    if is_left:
        faces = faces[:, [0, 2, 1]]
    weights = torch.zeros(len(vertices), len(skin)).index_copy_(0, rows, dense)[:, joints]
    template = HandTemplate.load("right")
    palm = [order.index(role) for role in (WRIST, *((finger, 1) for finger in FINGERS[1:]))]
    ours = template.keypoints[[0, 5, 9, 13, 17]]
    turn = nearest_rotation(((ours - ours.mean(0)).T @ (places[palm] - places[palm].mean(0))).double()).float()
    origin = places[0].clone()
    places, vertices = (places - origin) @ turn.T, (vertices - origin) @ turn.T
    turns = _turns(order, places, template)
    surface = _registered(template, order, vertices, faces, places)
    return WebXrHand(vertices, faces, weights / weights.sum(1, keepdim=True), tuple(order), places, turns, *surface)


def _turns(order: Sequence[Role], places: Tensor, template: HandTemplate) -> Tensor:
    """Shortest rotations of the bones to the directions of the template's; identities for metacarpals and the wrist."""
    turns = {role: torch.eye(3) for role in order}
    for finger in FINGERS:
        for bone in (1, 2, 3):
            here = [places[order.index((finger, bone + k))].double() for k in (0, 1)]
            row = 4 * FINGERS.index(finger) + bone
            there = template.keypoints[[row, row + 1]].double()
            turns[finger, bone] = shortest_turn(here[1] - here[0], there[1] - there[0]).float()
        turns[finger, 4] = turns[finger, 3]
    return torch.stack([turns[role] for role in order])


def _registered(
    template: HandTemplate, order: Sequence[Role], vertices: Tensor, faces: Tensor, places: Tensor
) -> tuple[Tensor, Tensor, Tensor, tuple[float, float]]:
    """Texture coordinates, correspondences and their errors."""
    posed, off = _fitted(template, places[[order.index(role) for role in ROLES]])
    points = posed
    surface = _sampled(vertices, faces)
    near = _neighbors(template.faces, len(points))
    for _ in range(_ROUNDS):
        place = _closest(points, vertex_normals(points, template.faces), surface)[0]
        shift = place - points
        for _ in range(4):
            shift = (shift + near @ shift) / 2
        points = points + 0.7 * shift
    place, face, shares = _closest(points, vertex_normals(points, template.faces), surface)
    distance = float((place - points).norm(dim=1).mean())
    # The other way: texture coordinates of the corners of each face, by the face of the template nearest to its middle.
    corners = vertices[faces]
    normals = face_normals(vertices, faces)
    _, ours, _ = _closest(corners.mean(1), normals, _sampled(points, template.faces))
    a, b, c = points[template.faces[ours]].unbind(1)
    inside = _barycentric(corners, a[:, None], b[:, None], c[:, None]).clamp(0, 1)
    inside = inside / inside.sum(-1, keepdim=True)
    uvs = torch.einsum("fkc,fcu->fku", inside, template.uvs[ours])
    return uvs, faces[face], shares, (round(1000 * distance, 3), round(1000 * off, 3))


def _fitted(template: HandTemplate, targets: Tensor) -> tuple[Tensor, float]:
    """Vertices of the template in the pose and shape whose joints are nearest to these, and their mean distance."""
    values = torch.zeros(37)
    values[26:] = 1.0
    values = values.requires_grad_()
    optimizer = torch.optim.Adam([values], 0.02)

    def posed() -> PosedHand:
        shape = HandShape(values[26:31], values[31:36], values[36])
        return template.pose(values[:20], rotation=so3_exp(values[20:23]), translation=values[23:26] / 10, shape=shape)

    for step in range(400):
        optimizer.param_groups[0]["lr"] = 0.02 * (1 - step / 400)
        optimizer.zero_grad()
        # The scale stands for the thicknesses, which joints do not determine.
        beside = values[:20].square().sum() + 10 * (values[26:31] - values[26:31].mean()).square().sum()
        loss = 1e6 * (posed().skeleton - targets).square().sum() + 0.1 * beside + 1e3 * (values[31:36] - 1).square().sum()
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        found = posed()
    return found.vertices, float((found.skeleton - targets).norm(dim=1).mean())


def _neighbors(faces: Tensor, count: int) -> Tensor:
    """Matrix that averages over the neighbors of each vertex."""
    matrix = torch.zeros(count, count)
    for a, b in ((0, 1), (1, 2), (2, 0)):
        matrix[faces[:, a], faces[:, b]] = matrix[faces[:, b], faces[:, a]] = 1
    return matrix / matrix.sum(1, keepdim=True)


def _sampled(vertices: Tensor, faces: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Points on a surface, with their normals, faces and barycentric coordinates."""
    generator = torch.Generator().manual_seed(0)
    a, b, c = vertices[faces].unbind(1)
    areas = torch.linalg.cross(b - a, c - a).norm(dim=1)
    face = torch.multinomial(areas, _SAMPLES, replacement=True, generator=generator)
    r, s = torch.rand(2, _SAMPLES, generator=generator)
    shares = torch.stack([1 - r.sqrt(), r.sqrt() * (1 - s), r.sqrt() * s], 1)
    points = (vertices[faces[face]] * shares[..., None]).sum(1)
    return points, face_normals(vertices, faces)[face], face, shares


def _closest(points: Tensor, normals: Tensor, surface: tuple[Tensor, ...]) -> tuple[Tensor, Tensor, Tensor]:
    """The nearest sample whose normal is less than 60 degrees off, or the nearest of all; its face and coordinates."""
    places, directions, face, shares = surface
    distances, rows = knn(places, points, _NEAR)
    is_other = (directions[rows] * normals[:, None]).sum(-1) < 0.5
    best = (distances + 1.0 * is_other).argmin(1)
    chosen = rows.gather(1, best[:, None])[:, 0]
    return places[chosen], face[chosen], shares[chosen]


def _barycentric(points: Tensor, a: Tensor, b: Tensor, c: Tensor) -> Tensor:
    """Coordinates of the projections on planes."""
    u, v, w = b - a, c - a, points - a
    uu, vv, uv = (u * u).sum(-1), (v * v).sum(-1), (u * v).sum(-1)
    wu, wv = (w * u).sum(-1), (w * v).sum(-1)
    size = (uu * vv - uv * uv).clamp(min=1e-20)
    second, third = (vv * wu - uv * wv) / size, (uu * wv - uv * wu) / size
    return torch.stack([1 - second - third, second, third], -1)
