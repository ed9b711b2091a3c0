import math
from dataclasses import replace

import pytest
import torch

from vision3d.core.errors import DeviceError, InputError, ShapeError
from vision3d.geometry.spherical_harmonics import eval_sh
from vision3d.scene import GaussianScene, load


def test_activations_and_counts(gaussians):
    assert (gaussians.num_gaussians, len(gaussians), gaussians.sh_degree) == (40, 40, 3)
    torch.testing.assert_close(gaussians.scales.log(), gaussians.log_scales)
    torch.testing.assert_close(gaussians.opacities.logit(), gaussians.opacity_logits)
    eigenvalues = torch.linalg.eigvalsh(gaussians.covars)
    expected = gaussians.scales.square().sort(-1).values
    torch.testing.assert_close(eigenvalues, expected, rtol=1e-3, atol=1e-7)


def test_transform_applies_the_matrix_to_covariances_and_colors(gaussians, similarity):
    moved = gaussians.transform(similarity)
    linear = similarity[:3, :3]
    torch.testing.assert_close(moved.means, gaussians.means @ linear.T + similarity[:3, 3])
    torch.testing.assert_close(moved.covars, linear @ gaussians.covars @ linear.T, rtol=1e-4, atol=1e-5)
    directions = torch.nn.functional.normalize(torch.randn(40, 3), dim=-1)
    turned = directions @ (linear / 2).T
    torch.testing.assert_close(eval_sh(moved.sh, turned), eval_sh(gaussians.sh, directions), rtol=1e-4, atol=1e-5)
    assert torch.equal(moved.opacity_logits, gaussians.opacity_logits)


def test_transform_there_and_back(gaussians, similarity):
    back = gaussians.transform(similarity).transform(torch.linalg.inv(similarity))
    for name in ("means", "log_scales", "sh", "covars"):
        torch.testing.assert_close(getattr(back, name), getattr(gaussians, name), rtol=1e-4, atol=2e-5)


@pytest.mark.parametrize("diagonal", [(1, 2, 3, 1), (1, 1, -1, 1), (1, 1, 0, 1)])
def test_transform_rejects_matrices_that_are_not_similarities(gaussians, diagonal):
    with pytest.raises(InputError, match="matrix: "):
        gaussians.transform(torch.diag(torch.tensor([float(d) for d in diagonal])))
    with pytest.raises(ShapeError, match=r"matrix: got shape \(3, 3\), want shape \(4, 4\)"):
        gaussians.transform(torch.eye(3))


def test_crop_by_box_and_by_mask(gaussians):
    box = torch.tensor([[-0.5, -1.0, -9.0], [0.5, 1.0, 9.0]])
    inside = gaussians.crop(box)
    mask = ((gaussians.means >= box[0]) & (gaussians.means <= box[1])).all(-1)
    assert 0 < inside.num_gaussians == int(mask.sum()) < 40
    assert torch.equal(inside.sh, gaussians.crop(mask).sh) and torch.equal(inside.sh, gaussians.sh[mask])
    with pytest.raises(ShapeError, match=r"mask: got shape \(3,\), want shape \(40,\)"):
        gaussians.crop(torch.ones(3, dtype=torch.bool))
    with pytest.raises(ShapeError, match=r"box: got shape \(6,\), want shape \(2, 3\)"):
        gaussians.crop(torch.ones(6))


def test_merge_pads_harmonics_and_labels(gaussians):
    labelled = replace(gaussians[:3], sh=gaussians.sh[:3, :1], labels=torch.tensor([4, 5, 6]))
    both = gaussians.merge(labelled)
    assert both.num_gaussians == 43 and both.sh_degree == 3
    assert both.labels.tolist() == [-1] * 40 + [4, 5, 6]
    assert torch.equal(both.sh[40:, :1], labelled.sh) and both.sh[40:, 1:].abs().sum() == 0
    assert torch.equal(GaussianScene.merge(gaussians, labelled).means, both.means)
    assert gaussians.merge().num_gaussians == 40


def test_merge_rejects_other_modes_and_devices(gaussians):
    with pytest.raises(InputError, match="merge: got 3dgs, 2dgs; want scenes of one mode"):
        gaussians.merge(replace(gaussians, mode="2dgs"))
    with pytest.raises(InputError, match="3dgs, 3dgs antialiased"):
        gaussians.merge(replace(gaussians, antialiased=True))
    with pytest.raises(DeviceError, match="cpu, meta"):
        gaussians.merge(gaussians.to("meta"))


def test_from_points_sizes_are_neighbor_distances():
    grid = torch.stack(torch.meshgrid(*[torch.arange(4.0)] * 3, indexing="ij"), -1).view(-1, 3)
    colors = torch.rand(64, 3)
    scene = GaussianScene.from_points(grid, colors, sh_degree=2, opacity=0.25, scale_factor=0.5)
    torch.testing.assert_close(scene.scales, torch.full((64, 3), 0.5))  # 3 neighbors at distance 1
    torch.testing.assert_close(scene.opacities, torch.full((64,), 0.25))
    torch.testing.assert_close(eval_sh(scene.sh, torch.randn(64, 3)) + 0.5, colors, atol=1e-6, rtol=1e-5)
    assert scene.sh_degree == 2
    scene.validate()


@pytest.mark.parametrize("mode", ["2dgs", "flat"])
def test_from_points_discs_are_thin_and_randomly_rotated(mode):
    scene = GaussianScene.from_points(torch.rand(2000, 3), mode=mode, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(scene.scales[:, 2], torch.full((2000,), 1e-8))
    norms = torch.linalg.vector_norm(scene.quats, dim=-1)
    torch.testing.assert_close(norms, torch.ones(2000))
    assert scene.quats.mean(0).abs().max() < 0.05  # uniform directions: standard error 0.011
    again = GaussianScene.from_points(torch.rand(2000, 3), mode=mode, generator=torch.Generator().manual_seed(1))
    assert torch.equal(again.quats, scene.quats)


def test_from_points_of_coincident_and_single_points():
    assert torch.isfinite(GaussianScene.from_points(torch.zeros(5, 3)).log_scales).all()
    assert GaussianScene.from_points(torch.zeros(1, 3)).scales[0, 0] == 1
    with pytest.raises(InputError, match="points: got none"):
        GaussianScene.from_points(torch.zeros(0, 3))
    with pytest.raises(InputError, match="points is not finite in 1 of 2 rows"):
        GaussianScene.from_points(torch.tensor([[0.0, 0, 0], [0, math.nan, 0]]))
    with pytest.raises(InputError, match="opacity 1"):
        GaussianScene.from_points(torch.zeros(2, 3), opacity=1.0)


@pytest.mark.parametrize(
    "name, value, message",
    [
        ("means", torch.zeros(40, 2), r"GaussianScene.means: got shape \(40, 2\), want shape \(N, 3\)"),
        ("quats", torch.zeros(39, 4), r"GaussianScene.quats: got shape \(39, 4\), want shape \(40, 4\)"),
        ("opacity_logits", torch.zeros(40, 1), r"got shape \(40, 1\), want shape \(40,\)"),
        ("sh", torch.zeros(40, 5, 3), r"GaussianScene.sh: got shape \(40, 5, 3\), want K = 1, 4, 9, 16 or 25"),
        ("sh", torch.zeros(40, 4, 3).half(), "GaussianScene.sh: got dtype torch.float16, want float32 or float64"),
        ("labels", torch.zeros(40), "GaussianScene.labels: got dtype torch.float32, want dtype torch.int64"),
        ("means", [[0.0, 0, 0]] * 40, r"GaussianScene.means: got list, want a float tensor of shape \(N, 3\)"),
    ],
)
def test_wrong_shapes_are_rejected_on_construction(gaussians, name, value, message):
    with pytest.raises(ShapeError, match=message):
        replace(gaussians, **{name: value})


def test_validate_counts_bad_rows(gaussians):
    assert gaussians.validate() is gaussians
    sh = gaussians.sh.clone()
    sh[[3, 7], 2, 1] = math.nan
    with pytest.raises(InputError, match=r"sh is not finite in 2 of 40 rows \(first: row 3\)"):
        replace(gaussians, sh=sh).validate()
    quats = gaussians.quats.clone()
    quats[5] = 0
    with pytest.raises(InputError, match="quats have length zero in 1 of 40 rows"):
        replace(gaussians, quats=quats).validate()
    with pytest.raises(InputError, match="got 0 Gaussians"):
        gaussians[:0].validate()
    replace(gaussians, means=gaussians.means + 3e38).validate()  # only the sum overflows


def test_save_and_load_go_by_suffix(gaussians, tmp_path):
    gaussians.save(tmp_path / "scene.ply")
    assert torch.equal(GaussianScene.load(tmp_path / "scene.ply").sh, gaussians.sh)
    assert isinstance(load(tmp_path / "scene.ply"), GaussianScene)
    with pytest.raises(InputError, match=r"scene\.xyz: no codec for '\.xyz'; want .*\.ply"):
        gaussians.save(tmp_path / "scene.xyz")


def test_reprs_summarize_the_content(gaussians):
    assert repr(gaussians) == "GaussianScene(40 3dgs, SH degree 3, cpu)"
    html = gaussians._repr_html_()
    assert "<td>40</td>" in html and "opacity" in html
    gaussians[:0]._repr_html_()


def test_gradients_flow_through_transform(gaussians, similarity):
    scene = replace(gaussians, means=gaussians.means.requires_grad_(), sh=gaussians.sh.requires_grad_())
    moved = scene.transform(similarity)
    grads = torch.autograd.grad(moved.means.sum() + moved.sh.square().sum(), [scene.means, scene.sh])
    # A rotation preserves the norm of the coefficients.
    torch.testing.assert_close(grads[1], 2 * gaussians.sh, rtol=1e-3, atol=1e-4)
