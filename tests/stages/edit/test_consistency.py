"""Inconsistency between views: closed forms of what two cameras see."""

import pytest
import torch

from vision3d.core.errors import InputError
from vision3d.geometry.shapes import icosphere
from vision3d.render import render_scene
from vision3d.render.camera_paths import path_cameras
from vision3d.render.views import View
from vision3d.scene import Cameras, Mesh
from vision3d.scene.lab import delta_e, srgb_to_lab
from vision3d.stages.edit.evaluation.consistency import inconsistency

RED, BLUE = torch.tensor([0.8, 0.1, 0.1]), torch.tensor([0.1, 0.2, 0.9])
SIZE = 24


def pair(shift: float = 0.5) -> Cameras:
    """Two cameras side by side that look along z."""
    viewmats = torch.eye(4).repeat(2, 1, 1)
    viewmats[1, 0, 3] = -shift
    K = torch.tensor([[SIZE, 0, SIZE / 2], [0, SIZE, SIZE / 2], [0, 0, 1.0]])
    return Cameras(viewmats, K.expand(2, 3, 3).clone(), torch.tensor([SIZE, SIZE]), torch.tensor([SIZE, SIZE]))


def wall(color: torch.Tensor, depth: float = 4.0) -> View:
    return View(color.expand(SIZE, SIZE, 3).clone(), torch.ones(SIZE, SIZE), torch.full((SIZE, SIZE), depth), None)


def test_another_color_in_each_view():
    found = inconsistency([wall(RED), wall(BLUE)], pair(), 4.0)
    assert found.delta_e == pytest.approx(float(delta_e(srgb_to_lab(RED), srgb_to_lab(BLUE))), rel=1e-5)
    # 24 px are 4 m at this distance, of which half a meter is seen by one camera only; on both sides, both ways
    assert found.points == 2 * 2 * SIZE * (SIZE - 3)


def test_what_is_hidden_in_one_view_is_not_compared():
    second = wall(RED)
    assert second.depth is not None and second.image is not None
    second.depth[:, :10], second.image[:, :10] = 2.0, BLUE
    found = inconsistency([wall(RED), second], pair(), 4.0)
    assert found.delta_e == pytest.approx(0, abs=1e-3)
    assert 0 < found.points < 2 * 2 * SIZE * (SIZE - 10)
    second.alpha[:] = 0.5
    assert inconsistency([wall(RED), second], pair(), 4.0).points == 0


def test_a_mesh_is_consistent_and_shaded_by_view_it_is_not():
    vertices, faces = icosphere(4)
    mesh = Mesh(vertices, faces, vertex_colors=0.5 + 0.4 * vertices)
    cameras = path_cameras(mesh, "orbit", num=8, size=(64, 64))
    views = list(render_scene(mesh, cameras, shading="none", render_mode="RGB+ED"))
    own = inconsistency(views, cameras, 3.5)
    assert own.points > 1000 and own.delta_e < 0.5
    ramp = torch.linspace(0, 1, 64)[:, None].expand(64, 64, 1)
    painted = [view._replace(image=torch.cat([ramp.transpose(0, 1), ramp, ramp], -1)) for view in views]
    assert inconsistency(painted, cameras, 3.5).delta_e > 10 * own.delta_e


def test_wrong_input():
    with pytest.raises(InputError, match="got 1 of 2 cameras"):
        inconsistency([wall(RED)], pair(), 4.0)
    with pytest.raises(InputError, match="no depth"):
        inconsistency([wall(RED), wall(RED)._replace(depth=None)], pair(), 4.0)
