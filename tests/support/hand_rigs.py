"""Rigs of hands as other programs have them, and a track as `hand run` writes it."""

from dataclasses import replace

import torch

from vision3d.geometry.quaternion import quat_to_rotmat, rotmat_to_quat
from vision3d.geometry.rotation import so3_exp
from vision3d.scene import SkinnedMesh
from vision3d.scene.posing import rest_at
from vision3d.stages.hand import HandTemplate, gesture
from vision3d.stages.hand.predict.fitting import skinned_mesh
from vision3d.stages.hand.template import Side

TURN = so3_exp(torch.tensor([0.4, -1.1, 0.7]))
SHIFT = torch.tensor([0.1, -0.05, 0.4])
FINGERS = ("thumb", "index", "middle", "ring", "little")
_NAMED = ("Thumb", "Index", "Middle", "Ring", "Pinky")
_PHALANGES = ("Proximal", "Intermediate", "Distal")
MIXAMO = ("mixamorig:RightHand", *(f"mixamorig:RightHand{finger}{bone}" for finger in _NAMED for bone in (1, 2, 3)))
VRM = (
    "rightHand",
    *(f"rightThumb{bone}" for bone in ("Metacarpal", "Proximal", "Distal")),
    *(f"right{finger}{bone}" for finger in ("Index", "Middle", "Ring", "Little") for bone in _PHALANGES),
)
UNITY = (
    "RightHand",
    *(f"Right{finger}{bone}" for finger in ("Thumb", "Index", "Middle", "Ring", "Little") for bone in _PHALANGES),
)
MANO = (
    "right_wrist",
    *(f"right_{finger}{bone}" for finger in ("thumb", "index", "middle", "ring", "pinky") for bone in (1, 2, 3)),
)
UNREAL = ("hand_r", *(f"{finger}_0{bone}_r" for finger in ("thumb", "index", "middle", "ring", "pinky") for bone in (1, 2, 3)))
RIGIFY = ("hand.R", *(f"{'' if finger == 'thumb' else 'f_'}{finger}.0{bone}.R" for finger in
                      ("thumb", "index", "middle", "ring", "pinky") for bone in (1, 2, 3)))  # fmt: skip
NAMINGS = {"mixamo": MIXAMO, "vrm": VRM, "unity": UNITY, "mano": MANO, "unreal": UNREAL, "rigify": RIGIFY}


def track(side: Side = "right", names=("flat", "relaxed", "fist", "point")) -> SkinnedMesh:
    """What `hand run` writes of a hand that bends its fingers and moves."""
    hand = HandTemplate.load(side)
    vertices = []
    for number, name in enumerate(names):
        turn = so3_exp(torch.tensor([0.3 * number, 0.2, -0.1 * number]))
        vertices.append(hand.pose(gesture(name), rotation=turn, translation=SHIFT + 0.02 * number).vertices)
    return skinned_mesh(hand, vertices, [0.1 * number for number in range(len(names))])


def other_rig(names=MIXAMO, side: Side = "right", pose="relaxed") -> SkinnedMesh:
    """The bundled hand as another program would have it: other names, bent at rest, and with turned, arbitrary joint axes."""
    hand = HandTemplate.load(side)
    skin = hand.to_skinned_mesh([hand.clip(gesture(pose)[None], [0.0])])
    skin = replace(rest_at(skin, skin.clips[0], 0.0), clips=())
    matrix = torch.eye(4)
    matrix[:3, :3] = TURN
    skin = skin.transform(matrix)
    generator = torch.Generator().manual_seed(1)
    spin = quat_to_rotmat(torch.nn.functional.normalize(torch.randn(len(skin), 4, generator=generator), dim=1))
    rest = skin.joint_matrices(None, torch.zeros(1, dtype=torch.float64))[0]
    rest[:, :3, :3] = rest[:, :3, :3] @ spin
    local = torch.stack(
        [frame if parent < 0 else torch.linalg.inv(rest[parent]) @ frame for parent, frame in zip(skin.parents, rest)]
    )
    return replace(skin, names=names, translations=local[:, :3, 3], quats=rotmat_to_quat(local[:, :3, :3]),
                   inverse_binds=torch.linalg.inv(rest))  # fmt: skip
