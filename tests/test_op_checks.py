"""Arguments rejected by native operations, with their messages; random arguments never crash the process."""

import json
import subprocess
import sys

import pytest
import torch
from hypothesis import example, given, strategies as st

from tests.support import fuzz_ops
from tests.support.meshes import sphere
from vision3d.core import native, op_checks
from vision3d.core.errors import DeviceError, InputError, ShapeError
from vision3d.core.op_checks import Signature
from vision3d.render import meshes, splats

I32 = torch.int32
needs_native = pytest.mark.skipif(native.module() is None, reason="the native module is not built")


@pytest.fixture(scope="module")
def usual():
    return fuzz_ops.usual_calls()


def call(usual, name, **changes):
    """Calls an operation with its usual arguments except for some changes."""
    op = getattr(torch.ops.vision3d, name)
    names = [argument.name for argument in op.default._schema.arguments]
    arguments = dict(zip(names, usual[name][0]))
    assert set(changes) <= set(arguments)
    return op(**(arguments | changes))


def test_a_signature_names_the_invalid_argument():
    signature = Signature("points: float *s n 3, ids: int64? n, count")
    points = torch.zeros(2, 5, 3)
    signature.check(points, torch.zeros(5, dtype=torch.int64), 1)
    signature.check(points.double(), None)
    for values, error, text in (
        ((None,), ShapeError, r"points: got NoneType, want a torch.Tensor \(\*s, n, 3\)"),
        ((points[..., :2],), ShapeError, r"points: got shape \(2, 5, 2\), want \(\*s, n, 3\)"),
        ((points.int(),), ShapeError, "points: got torch.int32, want torch.float32 or torch.float64"),
        ((points, torch.zeros(5)), ShapeError, "ids: got torch.float32, want torch.int64"),
        ((points, torch.zeros(4, dtype=torch.int64)), ShapeError, r"ids: got shape \(4,\), want \(n,\) with n = 5"),
        ((points, torch.zeros(5, dtype=torch.int64, device="meta")), DeviceError, "ids: got device meta, want cpu as points"),
    ):
        with pytest.raises(error, match=text):
            signature.check(*values)
    with pytest.raises(ShapeError, match=r"b: got shape \(3, 2\), want \(\*s,\) with s = \(2, 2\)"):
        Signature("a: float *s, b: float *s").check(torch.zeros(2, 2), torch.zeros(3, 2))


SIZES = st.lists(st.integers(0, 2), max_size=3)
TENSORS = st.none() | st.builds(
    lambda size, dtype: torch.zeros(size, dtype=dtype), SIZES, st.sampled_from([torch.float32, torch.float64, torch.int64])
)


@given(st.lists(TENSORS, max_size=4))
@example([torch.zeros(2, 2, 2), torch.zeros(2, dtype=torch.int64), torch.zeros(2, 2), torch.zeros(2, 1)])
def test_the_fast_check_accepts_what_the_messages_do(values):
    signature = Signature("a: float *s n 2, b: int64? n, c: float? *s m, d: float? m 1")
    is_accepted = signature._match(tuple(values))
    signature._match = lambda values: False
    try:
        signature.check(*values)
    except ShapeError:
        assert not is_accepted
    else:
        assert is_accepted


def test_sizes_are_rejected_before_allocation(monkeypatch):
    op_checks.check_image_size(1, 16384, 16384, 4)
    for arguments, text in (
        ((1, 10**6, 10**6), "1 images of 1000000 x 1000000 are 1000000000000 pixels, want at most 268435456 in one call"),
        ((0, 0, 5), "width: got 0, want at least 1"),
        ((-1, 4, 4), "images: got -1, want at least 0"),
        ((1, 5000, 5000, 1), "have 25000000 tiles of 1 pixels, want at most 16777216"),
    ):
        with pytest.raises(InputError, match=text):
            op_checks.check_image_size(*arguments)
    monkeypatch.setattr(op_checks, "free_memory", lambda: 3 * 10**9)
    op_checks.check_memory(torch.zeros(1), 10**8 * 7, "colors")
    with pytest.raises(InputError, match=r"colors: would take 4.0 GB, but 3.0 GB are free"):
        op_checks.check_memory(torch.zeros(1), 10**9, "colors")


@pytest.mark.parametrize("backend", ["reference", pytest.param("native", marks=needs_native)])
def test_absurd_images(backend):
    means, quats = torch.zeros(1, 3), torch.tensor([[1.0, 0, 0, 0]])
    cloud = (means, quats, torch.ones(1, 3), torch.ones(1), torch.ones(1, 3), torch.eye(4)[None], torch.eye(3)[None])
    positions, faces = sphere(20, 20)
    for draw in (
        lambda: splats.rasterize(*cloud, 10**6, 10**6, backend=backend),
        lambda: splats.rasterize_2dgs(*cloud, 10**6, 10**6, backend=backend),
        lambda: meshes.rasterize(positions, faces, 10**6, 10**6, backend=backend),
        lambda: meshes.draw_attributes(positions[0], positions, faces, 10**6, 10**6, backend=backend),
    ):
        with pytest.raises(InputError, match="want at most 268435456 in one call"):
            draw()


@pytest.mark.parametrize("backend", ["reference", pytest.param("native", marks=needs_native)])
@pytest.mark.parametrize("bad", [10**6, -2])
def test_missing_neighbors(backend, bad):
    positions, faces = sphere(24, 20)
    neighbors = meshes.edge_neighbors(faces)
    neighbors[3, 1] = bad
    fragments = meshes.rasterize(positions, faces, 24, 20, backend=backend)
    colors = torch.rand(1, 20, 24, 3)
    for draw in (
        lambda: meshes.antialias(colors, positions, faces, fragments, neighbors=neighbors, backend=backend),
        lambda: meshes.draw_attributes(positions[0], positions, faces, 24, 20, neighbors=neighbors, backend=backend),
    ):
        with pytest.raises(
            InputError, match=rf"neighbors: those of face 3 are \[.*{bad}.*\], but there are {len(faces)} faces"
        ):
            draw()


@pytest.mark.parametrize("backend", ["reference", pytest.param("native", marks=needs_native)])
def test_alpha_max_at_which_opaque_gaussians_would_vanish(backend):
    means, quats = torch.tensor([[0.0, 0.0, 2.0]]), torch.tensor([[1.0, 0, 0, 0]])
    K = torch.tensor([[[20.0, 0, 8], [0, 20, 8], [0, 0, 1]]])
    cloud = (means, quats, torch.full((1, 3), 0.5), torch.ones(1), torch.ones(1, 3), torch.eye(4)[None], K, 17, 17)
    for dtype in (torch.float32, torch.float64):
        arguments = [value.to(dtype) if isinstance(value, torch.Tensor) else value for value in cloud]
        for draw in (splats.rasterize, splats.rasterize_2dgs):
            image = draw(*arguments, alpha_max=0.9998999, backend=backend)[0]
            assert image[0, 8, 8].min() > 0.98
            for alpha_max in (0.9999, 1.0, float("nan"), 0.0):
                with pytest.raises(InputError, match=f"alpha_max: got {alpha_max}, want a number above 0 and below 0.9999"):
                    draw(*arguments, alpha_max=alpha_max, backend=backend)


@needs_native
@pytest.mark.parametrize(
    ("name", "changes", "text"),
    [
        ("ssim", {"b": torch.zeros(2, 4, 4, 3)}, r"b: got shape \(2, 4, 4, 3\), want \(i, h, w, c\) with i = 2, h = 16"),
        ("ssim", {"window": 99}, "window: got 99, want an odd number from 1 to 16"),
        ("ssim_vjp", {"by_means": torch.zeros(3, 2, 6, 8, 3)}, r"by_means: got shape \(3, 2, 6, 8, 3\), want \(4, i"),
        ("rasterize_mesh", {"triangles": torch.tensor([[0, 1, 99]], dtype=I32)}, "triangles: got 99 at place 2, want 0 "),
        ("rasterize_mesh_vjp", {"face_ids": torch.full((2, 20, 24), 7777, dtype=I32)}, "face_ids: got 7777 at place 0"),
        ("rasterize_mesh_vjp", {"v_depths": torch.zeros(2, 5, 5)}, r"v_depths: got shape \(2, 5, 5\), want \(i, h, w\)"),
        ("antialias_mesh", {"neighbors": torch.full((80, 3), 80, dtype=I32)}, "neighbors: got 80 at place 0, want -1 to "),
        ("texture_mesh", {"sizes": torch.tensor([[9, 13]])}, "sizes: want levels of at least one texel"),
        ("project_splats", {"quats": torch.zeros(1, 3, 4)}, r"quats: got shape \(1, 3, 4\), want .* n = 40"),
        ("project_splats", {"model": "cube"}, "model: got 'cube', want pinhole, ortho, fisheye"),
        ("project_2dgs", {"model": "ortho"}, "model: got 'ortho', 2D Gaussians want pinhole"),
        ("project_2dgs", {"quats": None}, "quats, scales, covars: want quats and scales, 2D Gaussians have no covariances"),
        ("project_splats", {"scales": None}, "want quats and scales, or covars"),
        ("blend_splats", {"flatten_ids": torch.full((9,), 10**6, dtype=I32)}, "offsets: got .*up to 9|ids: got 1000000"),
        ("blend_splats", {"width": 10**6, "height": 10**6}, "want at most 268435456 in one call"),
        ("blend_splats", {"alpha_max": 1.0}, "alpha_max: want a number above 0 and at most 0.9999"),
        ("intersect_tiles", {"num_images": 2**40}, "want at most 268435456 in one call"),
        ("adam_step", {"grad": torch.zeros(11, 3)}, r"grad: got shape \(11, 3\), want \(\*s,\) with s = \(12, 3\)"),
        ("skin", {"indices": torch.full((9, 2), 4)}, "indices: got 4 at place 0, want 0 to 3"),
        ("group_kernel", {"c_out": 3}, "c_out, c_in: got 3, 3, want 6 as their product"),
        ("selective_scan", {"starts": torch.tensor([0, 5, 5, 22])}, "starts: got 0 to 22, want 0 to 23, the number of rows"),
        ("selective_scan", {"starts": torch.tensor([0, 9, 5, 23])}, "starts: got 5 after 9, want places that do not go back"),
        ("decayed_attention", {"starts": torch.tensor([0, 23])}, r"starts: got shape \(2,\), want \(4,\), one more than first"),
        ("decayed_attention", {"log_decay": torch.zeros(23, 2, 3)}, r"log_decay: got shape .*, want 1 or 5 numbers for a head"),
        ("delta_rule", {"beta": torch.zeros(23, 1, 2)}, r"beta: got shape \(23, 1, 2\), want .* n = 2"),
    ],
)  # fmt: skip
def test_errors_name_the_argument(usual, name, changes, text):
    call(usual, name)
    with pytest.raises(ValueError, match=text) as caught:
        call(usual, name, **changes)
    assert "\n" not in str(caught.value)


def _fuzz(calls, seed, tmp_path):
    log = tmp_path / "last_call"
    command = [sys.executable, "-m", "tests.support.fuzz_ops", "--calls", str(calls), "--seed", str(seed), "--log", str(log)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    assert result.returncode == 0, f"rc {result.returncode} in {log.read_text()[:1500]}\n{result.stderr[-1500:]}"
    found = json.loads(result.stdout)["operations"]
    problems = [problem for operation in found.values() for problem in operation["problems"]]
    assert not problems, "\n".join(problems[:20])
    assert set(found) == {*fuzz_ops.operations(), "mpm_advance", "mpm_elastic_energy", "mpm_scratch"}
    for name, operation in found.items():  # some calls pass and some are rejected
        assert operation["done"] > 0 and operation["refused"] >= calls // 5, (name, operation)


@needs_native
def test_random_arguments_of_every_operation(usual, tmp_path):
    _fuzz(40, 0, tmp_path)


@needs_native
@pytest.mark.slow
def test_many_random_arguments_of_every_operation(usual, tmp_path):
    _fuzz(200, 1, tmp_path)
