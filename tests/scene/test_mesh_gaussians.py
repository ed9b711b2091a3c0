import json
import math
from dataclasses import replace

import pytest
import torch

from vision3d.core.errors import DeviceError, FileFormatError, InputError, MissingFileError, ShapeError
from vision3d.geometry import quaternion
from vision3d.geometry.mesh import face_normals
from vision3d.scene import Mesh, MeshGaussians, load


@pytest.fixture
def bound(mesh):
    value = MeshGaussians.from_mesh(mesh, 6)
    return replace(value, rotations=torch.randn(24, 2), log_scales=torch.randn(24, 2) - 2, sh=torch.randn(24, 4, 3))


@pytest.mark.parametrize("per_face", [1, 3, 4, 6])
def test_from_mesh(mesh, per_face):
    value = MeshGaussians.from_mesh(mesh, per_face).validate()
    assert len(value) == 4 * per_face
    torch.testing.assert_close(value.barycentric.sum(1), torch.ones(4 * per_face))
    centers = value.to_gaussians().means.view(4, per_face, 3).mean(1)
    torch.testing.assert_close(centers, mesh.vertices[mesh.faces].mean(1))  # the positions are symmetric
    with pytest.raises(InputError, match="got per_face 2"):
        MeshGaussians.from_mesh(mesh, 2)


@pytest.mark.parametrize("per_face", [1, 3, 4, 6])
def test_stretched_gaussians_are_affine_maps_of_round_ones(per_face):
    corners = torch.tensor([[0.0, 0, 0], [1, 0, 0], [0.5, 3**0.5 / 2, 0]], dtype=torch.float64)
    matrix = torch.randn(3, 3, dtype=torch.float64)
    face = torch.tensor([[0, 1, 2]])
    round_ones = MeshGaussians.from_mesh(Mesh(corners, face), per_face).to_gaussians()
    same = MeshGaussians.from_mesh(Mesh(corners, face), per_face, shape="stretched").to_gaussians()
    torch.testing.assert_close(same.covars, round_ones.covars, atol=1e-12, rtol=1e-9)
    mapped = MeshGaussians.from_mesh(Mesh(corners @ matrix.T, face), per_face, shape="stretched").to_gaussians()
    torch.testing.assert_close(mapped.covars, matrix @ round_ones.covars @ matrix.T, atol=1e-9, rtol=1e-6)


@pytest.mark.parametrize("shape", ["round", "stretched"])
def test_faces_without_area_get_points(shape):
    vertices = torch.tensor([[0.0, 0, 0], [1, 0, 0], [0, 1, 0], [2, 0, 0]])
    faces = torch.tensor([[0, 1, 2], [0, 1, 3], [2, 2, 2]])
    value = MeshGaussians.from_mesh(Mesh(vertices, faces), 1, shape=shape).validate()
    value.to_gaussians().validate()
    assert float(value.log_scales[2].max()) < -15
    with pytest.raises(InputError, match="got shape 'square', want 'round' or 'stretched'"):
        MeshGaussians.from_mesh(Mesh(vertices, faces), shape="square")


def test_gaussians_in_the_rest_pose_are_in_their_faces(bound):
    scene = bound.to_gaussians().validate()
    normals = face_normals(bound.mesh.vertices, bound.mesh.faces)[bound.face_ids]
    torch.testing.assert_close((scene.covars @ normals[:, :, None])[..., 0], torch.zeros(24, 3), atol=1e-6, rtol=0)
    torch.testing.assert_close(scene.log_scales[:, :2], bound.log_scales, atol=1e-4, rtol=1e-4)
    # One computed by hand: the first axis is a e1 + b e2.
    v0, v1, v2 = bound.mesh.vertices[bound.mesh.faces[0]].double()
    e1 = (v0 - v1) / (v0 - v1).norm()
    n = torch.linalg.cross(v1 - v0, v2 - v0)
    e2 = torch.linalg.cross(n / n.norm(), e1)
    a, b = bound.rotations[0].double() / bound.rotations[0].double().norm()
    first, second = a * e1 + b * e2, -b * e1 + a * e2
    s, t = bound.log_scales[0].double().exp()
    expected = s**2 * first[:, None] * first + t**2 * second[:, None] * second
    torch.testing.assert_close(scene.covars[0].double(), expected, atol=1e-6, rtol=1e-4)


def test_gaussians_follow_an_affine_map_exactly(bound):
    matrix = torch.tensor([[1.2, 0.5, 0], [-0.3, 0.8, 0.4], [0.1, 0, 1.5]])  # rotates, stretches and shears
    before, after = bound.to_gaussians(), bound.to_gaussians(bound.mesh.vertices @ matrix.T + 1)
    torch.testing.assert_close(after.means, before.means @ matrix.T + 1)
    torch.testing.assert_close(after.covars, matrix @ before.covars @ matrix.T, atol=2e-6, rtol=1e-3)
    with pytest.raises(ShapeError, match=r"vertices: got shape \(5, 3\), want shape \(6, 3\)"):
        bound.to_gaussians(bound.mesh.vertices[:5])


def test_blended_rotations_equal_the_frame_under_a_rigid_motion_and_keep_sizes_under_strain(bound):
    turn = torch.randn(4)
    vertices = bound.mesh.vertices
    turned, turns = quaternion.rotate(turn, vertices) + 1, turn.expand(len(vertices), 4)
    frame, blend = bound.to_gaussians(turned), bound.to_gaussians(turned, turns)
    torch.testing.assert_close(blend.means, frame.means)
    torch.testing.assert_close(blend.covars, frame.covars, atol=1e-6, rtol=1e-4)
    strained = bound.to_gaussians(2 * vertices, turns)
    torch.testing.assert_close(strained.log_scales, bound.to_gaussians().log_scales)
    with pytest.raises(InputError, match=r"^to_gaussians: got turns without vertices; want both, or only vertices$"):
        bound.to_gaussians(turns=turns)


def test_gradients_reach_everything(bound):
    names = ("rotations", "log_scales", "barycentric")
    value = replace(bound, **{name: getattr(bound, name).clone().requires_grad_() for name in names})
    vertices = (bound.mesh.vertices + 0.1 * torch.randn(6, 3)).requires_grad_()
    scene = value.to_gaussians(vertices)
    grads = torch.autograd.grad(scene.covars.sum() + scene.means.sum(), [*(getattr(value, n) for n in names), vertices])
    assert all(torch.isfinite(grad).all() and grad.any() for grad in grads)


def test_round_trip_is_exact(bound, tmp_path):
    bound.save(tmp_path / "g.safetensors")
    again = load(tmp_path / "g.safetensors")
    assert isinstance(again, MeshGaussians) and {p.name for p in tmp_path.iterdir()} == {"g.safetensors", "g.glb"}
    for name, value in bound._tensors().items():
        assert torch.equal(getattr(again, name), value), name
    assert torch.equal(again.mesh.vertices, bound.mesh.vertices) and torch.equal(again.mesh.faces, bound.mesh.faces)


def test_wrong_values(bound):
    with pytest.raises(ShapeError, match=r"MeshGaussians.rotations: got shape \(24, 3\)"):
        replace(bound, rotations=torch.zeros(24, 3))
    with pytest.raises(DeviceError, match="mesh on meta"):
        replace(bound, mesh=bound.mesh.to("meta"))
    for name, value, message in [
        ("face_ids", torch.full((24,), 4), "face_ids go from 4 to 4, but there are 4 faces"),
        ("barycentric", torch.ones(24, 3), "barycentric does not sum to 1 in 24 of 24"),
        ("rotations", torch.zeros(24, 2), "rotations have length zero in 24 of 24"),
        ("log_scales", torch.full((24, 2), math.nan), "log_scales is not finite"),
        ("mesh", Mesh(torch.zeros(6, 3), bound.mesh.faces), "all 4 faces have zero area"),
    ]:
        with pytest.raises(InputError, match=message):
            replace(bound, **{name: value}).validate()
    assert repr(bound).startswith("MeshGaussians(24 Gaussians on Mesh(6 vertices") and bound._repr_html_()
    assert bound.to("meta").mesh.device.type == "meta"


def rewrite(path, tensors=None, **own):
    from safetensors import safe_open
    from safetensors.torch import save_file

    with safe_open(path, framework="pt") as file:
        metadata = json.loads(file.metadata()["vision3d"]) | own
        kept = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    save_file({**kept, **(tensors or {})}, path, {"vision3d": json.dumps(metadata)})


def test_damaged_files(bound, tmp_path):
    path = tmp_path / "g.safetensors"
    for change, error, message in [
        ({"mesh": "../g.glb"}, FileFormatError, "outside its folder"),
        ({"mesh": "none.glb"}, MissingFileError, r"none\.glb: does not exist; want the mesh of g\.safetensors"),
        ({"sha256": "0"}, FileFormatError, r"was written with a different mesh than g\.glb is now"),
        ({"version": 7}, FileFormatError, "version 7; want 'mesh_gaussians', version 1"),
        ({"tensors": {"face_ids": torch.full((24,), 99)}}, FileFormatError, "face_ids go from 99 to 99"),
        ({"tensors": {"sh": torch.zeros(2)}}, FileFormatError, r"MeshGaussians.sh: got shape \(2,\)"),
    ]:
        bound.save(path)
        rewrite(path, **change)
        with pytest.raises(error, match=message):
            load(path)
    bound.save(path)
    for data in (b"", b"\xff" * 40, path.read_bytes()[:200], path.read_bytes()[:-9]):
        path.write_bytes(data)
        with pytest.raises(FileFormatError, match=r"is damaged or not a \.safetensors file"):
            load(path)


@pytest.mark.parametrize("per_face", [1, 3, 4, 6])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_binding_in_double_precision(per_face, seed):
    """Centers are inside the faces, the thin axis is the face's normal, and covariances follow any affine map."""
    torch.manual_seed(seed)
    vertices = torch.randn(12, 3, dtype=torch.float64)
    faces = torch.stack([torch.randperm(12)[:3] for _ in range(7)])
    value = MeshGaussians.from_mesh(Mesh(vertices, faces), per_face)
    count = len(value)
    value = replace(
        value,
        rotations=torch.randn(count, 2, dtype=torch.float64),
        log_scales=torch.randn(count, 2, dtype=torch.float64) - 1,
    )
    scene = value.to_gaussians()
    corners = vertices[faces[value.face_ids]]
    # Barycentric weights of the center by Cramer's rule in the plane of the face.
    a, b, c = (corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0], scene.means - corners[:, 0])
    aa, bb, ab, ac, bc = ((x * y).sum(-1) for x, y in ((a, a), (b, b), (a, b), (a, c), (b, c)))
    first, second = (bb * ac - ab * bc) / (aa * bb - ab**2), (aa * bc - ab * ac) / (aa * bb - ab**2)
    weights = torch.stack([1 - first - second, first, second], -1)
    assert (weights > 0).all()
    torch.testing.assert_close(weights, value.barycentric, atol=1e-9, rtol=0)
    normals = torch.nn.functional.normalize(torch.linalg.cross(a, b), dim=-1)
    thin = quaternion.quat_to_rotmat(scene.quats)[..., 2]
    torch.testing.assert_close((thin * normals).sum(-1), torch.ones(count, dtype=torch.float64), atol=1e-12, rtol=0)
    matrix = torch.randn(3, 3, dtype=torch.float64)
    moved = value.to_gaussians(vertices @ matrix.T + 3)
    torch.testing.assert_close(moved.means, scene.means @ matrix.T + 3, atol=1e-12, rtol=1e-12)
    torch.testing.assert_close(moved.covars, matrix @ scene.covars @ matrix.T, atol=1e-9, rtol=1e-9)
