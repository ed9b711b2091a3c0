"""Camera poses with errors are corrected in runs of any length, with the default options."""

import math
from dataclasses import replace

import pytest
import torch

from tests.support.photos import blobs, ring, write_photos
from vision3d.core.progress import silent
from vision3d.geometry import se3
from vision3d.geometry.cameras import project
from vision3d.geometry.rotation import so3_exp
from vision3d.stages.fit import FitConfig, fit
from vision3d.stages.fit.poses import DAMPING, MIN_UPDATES, PoseParameters, learning_rate, world_drift


def pixel_errors(cameras, truth, points):
    """Root mean square distance between projected and true positions of points [px]."""
    seen, wanted = (project(se3.transform_points(c.viewmats, points.expand(len(c), -1, 3)), c.Ks) for c in (cameras, truth))
    return (seen - wanted).square().sum(-1).mean().sqrt()


@pytest.mark.parametrize("steps", [160, 480])
def test_noisy_poses_are_corrected(tmp_path, steps):
    truth, scene = ring(), blobs()
    noise = torch.randn(12, 6, generator=torch.Generator().manual_seed(0)) * torch.tensor([0.03] * 3 + [0.02] * 3)
    noise[[2, 7]] = 0  # held out
    told = replace(truth, viewmats=se3.exp(noise) @ truth.viewmats)
    photos = write_photos(tmp_path / "set", scene=scene, told=told)
    config = FitConfig(steps=steps, max_gaussians=60, sh_degree=0, resolution_start=1, pose_opt=True)
    off, on = (fit(replace(config, pose_opt=pose_opt), photos, progress=silent) for pose_opt in (False, True))
    kept = [i for i in range(12) if i not in (2, 7)]
    before, after = (pixel_errors(run.cameras, truth[kept], scene.means) for run in (off, on))
    assert before > 1.8
    assert after < before / 3
    assert on.summary["psnr"] > off.summary["psnr"] + 0.3


def test_exact_poses_stay_in_short_runs(tmp_path):
    """Two steps of each view; Adam's first ones are as long as the learning rate, however small the gradient."""
    photos = write_photos(tmp_path / "set", scene=blobs())
    config = FitConfig(steps=20, max_gaussians=60, sh_degree=0, resolution_start=1, pose_opt=True)
    found = fit(config, photos, progress=silent).cameras
    assert pixel_errors(found, ring()[[i for i in range(12) if i not in (2, 7)]], blobs().means) < 0.5


@pytest.mark.parametrize("steps", [300, 800, 7000])
@pytest.mark.parametrize("batch", [1, 4])
def test_the_steps_of_a_view_sum_up_to_the_reach(steps, batch):
    num_views = 48
    rates = [learning_rate(0.05, step, step / steps, range(batch), num_views) for step in range(steps)]
    part = min(1.0, steps * batch / num_views / MIN_UPDATES)  # of the reach, in runs with few steps of each view
    assert sum(rates) * batch / num_views == pytest.approx(0.05 * part, rel=0.06)
    assert max(rates) < 2.01 * 0.05 / MIN_UPDATES
    assert rates[0] == 0 and rates[-1] < 0.01 * max(rates)
    assert rates.index(max(rates)) / steps == pytest.approx(0.35, abs=0.01)


def points_in_front(count=4000):
    generator = torch.Generator().manual_seed(1)
    return torch.rand(count, 3, generator=generator, dtype=torch.float64) - 0.5


def test_every_direction_moves_the_image_equally_far():
    """By finite differences: with x along an axis, the points that a camera sees move by |x| in the image, and the motions
    along two axes are uncorrelated, except for the directions that the damping shortens."""
    cameras, points = ring(4), points_in_front()
    cameras = replace(cameras, viewmats=cameras.viewmats.double(), Ks=cameras.Ks.double())
    poses = PoseParameters(cameras, points, weight=0.0)
    unit = torch.eye(3, dtype=torch.float64)[None]
    for place in range(4):
        moved = []
        for x in torch.eye(6, dtype=torch.float64):
            ends = [poses.motion(place, sign * 1e-5 * x) @ cameras.viewmats[place] for sign in (1, -1)]
            images = [project(se3.transform_points(end[None], points[None]), unit)[0] for end in ends]
            moved.append((images[0] - images[1]).flatten() / 2e-5)
        products = torch.stack(moved) @ torch.stack(moved).T / len(points)
        values = torch.linalg.eigvalsh(products)
        assert values.max() < 1 and values.max() > 0.97
        assert values.min() > 0.005  # a seventh in length; of the twist itself it is 1 to 2000
        twist = poses.bases[place].inverse()
        raw = torch.linalg.eigvalsh(twist.mT @ products @ twist)
        assert raw.min() / raw.max() < 0.2 * values.min() / values.max()


def test_a_camera_that_sees_no_point_keeps_its_axes():
    poses = PoseParameters(ring(3), torch.full((5, 3), 100.0), weight=0.0)
    assert torch.equal(poses.bases, torch.eye(6).expand(3, 6, 6))


def test_directions_without_effect_stay_finite():
    """All points on the axis of the camera: rolling does nothing."""
    camera = ring(1)
    points = camera.centers + torch.linspace(1, 2, 9)[:, None] * camera.camtoworlds[0, :3, 2]
    bases = PoseParameters(camera, points, weight=0.0).bases
    assert bases.isfinite().all()
    assert DAMPING > 0 and math.isfinite(float(torch.linalg.cond(bases[0])))


def test_the_bases_are_part_of_the_state():
    poses, other = (PoseParameters(ring(2), points_in_front(count).float(), weight=0.0) for count in (50, 70))
    assert not torch.equal(poses.bases, other.bases)
    other.load_state_dict(poses.state_dict())
    assert torch.equal(poses.bases, other.bases)


def test_the_drift_of_the_world_is_removed():
    """A similarity of all cameras is found exactly, also if two of twelve have wrong poses of their own."""
    given = ring()
    rotmat = so3_exp(torch.tensor([0.02, -0.03, 0.01]))
    drift = se3.similarity(torch.tensor(1.02), rotmat, torch.tensor([0.1, 0.0, -0.2]))
    corrected = given.transform(drift)
    wrong = torch.zeros(12, 6)
    wrong[4], wrong[9] = torch.tensor([0.3, 0, 0, 0, 0.2, 0]), torch.tensor([0, 0.2, 0.2, 0.1, 0, 0])
    corrected = replace(corrected, viewmats=se3.exp(wrong) @ corrected.viewmats)
    found = world_drift(corrected, given, 3.0)  # least squares would be off by 0.04
    torch.testing.assert_close(found @ drift.double(), torch.eye(4, dtype=torch.float64), atol=0.01, rtol=0)
    exact = world_drift(given.transform(drift), given, 3.0)
    torch.testing.assert_close(exact @ drift.double(), torch.eye(4, dtype=torch.float64), atol=1e-5, rtol=0)
