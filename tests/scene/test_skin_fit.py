"""Clips from vertices: residuals in the file as read independently; joints, correctives, low-rank morphs."""

import itertools
import math
import re
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch

from tests.support.elephant import read_elephant
from tests.support.gltf_reader import Animated
from vision3d.core.errors import InputError
from vision3d.geometry import quaternion, shapes
from vision3d.geometry.mesh import vertex_normals
from vision3d.geometry.skinning import linear_blend, skin
from vision3d.optim.motion.skin_fit import fit_joints, fit_morphs
from vision3d.scene import Mesh, SkinnedMesh

TIMES = [i / 24 for i in range(12)]


def beam(**extras):
    """A beam, and frames of it bent, twisted and stretched by three joints with hybrid skinning."""
    vertices, faces = shapes.box((4.0, 1.0, 1.0), 8)
    reach = (1 - (vertices[:, :1] - torch.tensor([-2.0, 0, 2])).abs() / 2).clamp(min=0)
    weights = reach / reach.sum(1, keepdim=True)
    angles = torch.tensor(TIMES)[:, None] * torch.tensor([0.0, 2.0, 5.0])
    axes = torch.nn.functional.normalize(torch.tensor([[0.0, 0, 1], [0, 0, 1], [1.0, 0.3, 0]]), dim=-1)
    quats = torch.cat([(angles / 2).cos()[..., None], (angles / 2).sin()[..., None] * axes], -1)
    moved = skin(
        vertices,
        weights,
        torch.arange(3).expand(len(vertices), 3),
        quats,
        0.3 * angles[..., None] * axes,
        centers=torch.tensor([[-2.0, 0, 0], [0, 0, 0], [2.0, 0, 0]]),
        blends=torch.tensor([0.0, 0.3, 0.6]).expand(len(angles), 3),
    )
    return Mesh(vertices, faces, **extras), moved, weights


def diagonal(mesh):
    return float((mesh.vertices.amax(0) - mesh.vertices.amin(0)).norm())


def errors(path, mesh, moved, name="frames"):
    """Errors of an independent reader at the keys, relative to the diagonal."""
    other = Animated(path)
    found = np.array([other.vertices(name, float(np.float32(time))) for time in TIMES])
    return np.linalg.norm(found - moved.numpy(), axis=-1) / diagonal(mesh)


@pytest.mark.parametrize("kind", ["joints", "morphs"])
def test_the_file_reproduces_the_vertices(tmp_path, kind):
    mesh, moved, _ = beam()
    found = fit_joints(mesh, moved, TIMES, num_joints=6) if kind == "joints" else fit_morphs(mesh, moved, TIMES)
    found.skin.save(tmp_path / "beam.glb")
    residual = errors(tmp_path / "beam.glb", mesh, moved)
    assert residual.max() <= 1e-4
    assert residual.max() == pytest.approx(found.max_error, rel=0.02)
    assert residual.mean() == pytest.approx(found.mean_error, rel=0.02)
    assert found.skin.num_morphs < len(TIMES)


@pytest.mark.parametrize("kind", ["joints", "morphs"])
def test_weights_that_other_programs_clamp_are_in_0_1(kind):
    """Clamping them changes nothing, and the mesh itself is the rest pose with all weights 0."""
    mesh, moved, _ = beam()
    found = fit_joints(mesh, moved, TIMES, num_joints=6) if kind == "joints" else fit_morphs(mesh, moved, TIMES)
    clip = found.skin.clips[0]
    (weights,) = (channel for channel in clip.channels if channel.path == "weights")
    assert float(weights.values.min()) >= 0 and float(weights.values.max()) <= 1
    clamped = replace(weights, values=weights.values.clamp(0, 1))
    channels = tuple(clamped if channel is weights else channel for channel in clip.channels)
    seen = replace(found.skin, clips=(replace(clip, channels=channels),))
    residual = torch.linalg.vector_norm(seen.posed(seen.clips[0], TIMES) - moved, dim=-1) / diagonal(mesh)
    assert float(residual.max()) == pytest.approx(found.max_error, rel=1e-3) and found.max_error <= 1e-4
    assert found.skin.rest_weights is None and torch.equal(found.skin.mesh.vertices, mesh.vertices)


@pytest.mark.parametrize("kind", ["joints", "morphs"])
def test_an_independent_reader_agrees_between_keys(tmp_path, kind):
    mesh, moved, _ = beam()
    found = fit_joints(mesh, moved, TIMES, num_joints=6) if kind == "joints" else fit_morphs(mesh, moved, TIMES)
    found.skin.save(tmp_path / "beam.glb")
    other, halves = Animated(tmp_path / "beam.glb"), [(a + b) / 2 for a, b in itertools.pairwise(TIMES)]
    for time, ours in zip(halves, found.skin.posed(found.skin.clips[0], halves)):
        assert np.abs(other.vertices("frames", time) - ours.numpy()).max() <= 1e-5 * diagonal(mesh)


def test_joints_move_in_arcs_between_the_keys():
    """Halfway between two keys of a rotation, morphs cut the corner, and joints do not."""
    vertices, faces = shapes.box((4.0, 1.0, 1.0), 4)
    turn = quaternion.quat_to_rotmat(torch.tensor([[1.0, 0, 0, 0], [math.cos(0.5), 0, 0, math.sin(0.5)]]))
    moved, half = (
        vertices @ turn.mT,
        vertices @ quaternion.quat_to_rotmat(torch.tensor([math.cos(0.25), 0, 0, math.sin(0.25)])).mT,
    )
    mesh = Mesh(vertices, faces)
    arc, chord = fit_joints(mesh, moved, [0.0, 1.0], num_joints=1), fit_morphs(mesh, moved, [0.0, 1.0])
    assert arc.skin.num_morphs == 0 and len(arc.skin) == 1
    torch.testing.assert_close(arc.skin.posed(arc.skin.clips[0], [0.5])[0], half, atol=1e-5, rtol=0)
    assert (chord.skin.posed(chord.skin.clips[0], [0.5])[0] - half).norm(dim=-1).max() > 0.2


@pytest.mark.parametrize(("fit", "most"), [(partial(fit_joints, num_joints=6), 1), (fit_morphs, 2)], ids=["joints", "morphs"])
def test_tolerance_and_most_morphs(fit, most):
    mesh, moved, _ = beam()
    rough, fine = fit(mesh, moved, TIMES, tolerance=1e-2), fit(mesh, moved, TIMES, tolerance=1e-5)
    assert rough.skin.num_morphs < fine.skin.num_morphs and rough.max_error <= 1e-2 and fine.max_error <= 1.1e-5
    capped = fit(mesh, moved, TIMES, tolerance=1e-5, max_morphs=2)
    assert capped.skin.num_morphs == most and capped.max_error > 1e-5
    assert fit(mesh, moved, TIMES, max_morphs=0).skin.num_morphs == 0


def test_nodes_with_given_weights(tmp_path):
    mesh, moved, weights = beam()
    indices = torch.arange(3).expand(len(weights), 3).contiguous()
    found = fit_joints(mesh, moved, TIMES, weights=weights, indices=indices)
    assert len(found.skin) == 3 and torch.equal(found.skin.weights, weights) and torch.equal(found.skin.indices, indices)
    found.skin.save(tmp_path / "beam.glb")
    assert errors(tmp_path / "beam.glb", mesh, moved).max() <= 1e-4


def test_corrections_where_joints_flatten_the_mesh():
    """180 degrees between two joints: the blended matrix in the middle is singular; everything correctable is corrected."""
    mesh, _, _ = beam()
    weights = torch.stack([0.5 - mesh.vertices[:, 0] / 4, 0.5 + mesh.vertices[:, 0] / 4], 1)
    half = torch.tensor([[[1.0, 0, 0, 0], [0.0, 1, 0, 0]]])
    moved = skin(
        mesh.vertices, weights, torch.tensor([[0, 1]]).expand(len(weights), 2), half, torch.zeros(1, 2, 3), method="dqs"
    )
    found = fit_joints(mesh, moved, [0.0], weights=weights, indices=torch.tensor([[0, 1]]).repeat(len(weights), 1))
    assert bool(torch.isfinite(found.skin.morphs).all()) and float(found.skin.morphs.abs().max()) < 100
    flat = (weights[:, 0] - weights[:, 1]).abs() < 1e-3
    error = (found.skin.posed(found.skin.clips[0], [0.0])[0] - moved[0]).norm(dim=-1) / diagonal(mesh)
    assert flat.any() and float(error[~flat].max()) <= 1e-3


@pytest.mark.parametrize("kind", ["joints", "morphs", "frames"])
def test_normals_follow(tmp_path, kind):
    """Normals of the file: morph normals, then the inverse transposed matrices of the joints, as in viewers."""
    mesh, moved, _ = beam()
    rest = vertex_normals(mesh.vertices, mesh.faces)
    mesh = replace(mesh, normals=rest)
    made = {
        "joints": lambda: fit_joints(mesh, moved, TIMES, num_joints=4).skin,
        "morphs": lambda: fit_morphs(mesh, moved, TIMES).skin,
        "frames": lambda: SkinnedMesh.from_frames(mesh, moved, TIMES),
    }[kind]()
    made.save(tmp_path / "beam.glb")
    back = SkinnedMesh.load(tmp_path / "beam.glb")
    amounts = back.locals_at(back.clips[0], torch.tensor(TIMES, dtype=torch.float64))[3]
    assert back.morph_normals is not None and back.morph_normals.shape == back.morphs.shape
    found = rest + torch.einsum("tm,mvc->tvc", amounts, back.morph_normals)
    if len(back):
        matrices = back.joint_matrices(back.clips[0], torch.tensor(TIMES, dtype=torch.float64)) @ back.inverse_binds
        blended = torch.einsum("vk,tvkab->tvab", back.weights, matrices[:, back.indices][..., :3, :3])
        found = (torch.linalg.inv(blended).mT @ found[..., None])[..., 0]
    want = torch.stack([vertex_normals(frame, mesh.faces) for frame in moved])
    cosines = torch.nn.functional.cosine_similarity(found, want, dim=-1)
    assert float(cosines.min()) > (0.999 if kind == "frames" else 0.97) and float(cosines.mean()) > 0.998


def test_seams_and_normals_are_kept(tmp_path):
    mesh, moved, _ = beam()
    uvs = torch.rand(mesh.num_faces, 3, 2)
    mesh = Mesh(mesh.vertices, mesh.faces, uvs=uvs, normals=vertex_normals(mesh.vertices, mesh.faces))
    found = fit_joints(mesh, moved, TIMES, num_joints=4)
    found.skin.save(tmp_path / "beam.glb")
    back = SkinnedMesh.load(tmp_path / "beam.glb")
    again = back.posed(back.clips[0], TIMES)[:, back.mesh.faces]
    assert float((again - moved[:, mesh.faces]).abs().max()) <= 1e-4 * diagonal(mesh)
    assert back.mesh.normals is not None


@pytest.mark.slow
def test_the_elephant(shared_data, tmp_path):
    elephant, weights, matrices = read_elephant(shared_data / "skinning")
    joints = torch.arange(24).expand(elephant.num_vertices, 24)
    moved = linear_blend(elephant.vertices, weights.float(), joints, matrices[::19].float())
    times = [i / 4 for i in range(len(moved))]
    found = fit_joints(elephant, moved, times, num_joints=32)
    assert found.max_error <= 1e-4 and len(found.skin) <= 32
    assert fit_joints(elephant, moved, times, num_joints=32, max_morphs=0).mean_error <= 5e-4
    assert fit_morphs(elephant, moved, times).max_error <= 1e-4


def test_wrong_input():
    mesh, moved, _ = beam()
    with pytest.raises(InputError, match=r"^vertices: got 0 frames, want at least one$"):
        fit_morphs(mesh, moved[:0], [])
    with pytest.raises(InputError, match=re.escape("times: got shape (11,), want shape (12,)")):
        fit_joints(mesh, moved, TIMES[1:])
    with pytest.raises(InputError, match=r"vertices is not finite in 12 of 12 rows"):
        fit_joints(mesh, moved / 0, TIMES)
