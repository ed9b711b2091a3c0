"""The bundled creature: a valid mesh, smooth weights, looping clips, and rendered images."""

import subprocess
import sys
from dataclasses import replace
from importlib.resources import files
from pathlib import Path

import pytest
import torch

from tests.support.outside import npm_package
from vision3d import Cameras, SkinnedMesh
from vision3d.geometry.mesh import is_closed, is_manifold, vertex_normals, volume
from vision3d.io.images import read_image
from vision3d.render import render_scene

FOLDER = Path(str(files("vision3d") / "assets" / "creature"))


@pytest.fixture(scope="module")
def creature() -> SkinnedMesh:
    return SkinnedMesh.load(FOLDER / "creature.glb").validate()


def welded(skin: SkinnedMesh):
    """Positions, their faces, and the first vertex of the file at each position."""
    vertices, place = torch.unique(skin.mesh.vertices, dim=0, return_inverse=True)
    first = torch.full((len(vertices),), len(place)).scatter_reduce(0, place, torch.arange(len(place)), "amin")
    return vertices, place[skin.mesh.faces], first, place


def test_it_is_small():
    assert sum(path.stat().st_size for path in FOLDER.rglob("*") if path.is_file()) <= 1 << 20


def test_mesh_is_closed_manifold_and_well_shaped(creature):
    vertices, faces, *_ = welded(creature)
    assert 1500 <= len(faces) <= 3000
    assert is_closed(faces) and is_manifold(faces)
    assert volume(vertices, faces) > 0
    assert len(vertices) - len(faces) // 2 == 2  # Euler: one component without handles
    corners = vertices[faces].double()
    to_next, to_last = corners.roll(-1, 1) - corners, corners.roll(1, 1) - corners
    angles = torch.nn.functional.cosine_similarity(to_next, to_last, dim=-1).acos().rad2deg()
    assert angles.min() > 20
    assert (creature.mesh.vertices.amin(0) + creature.mesh.vertices.amax(0)).abs().max() < 1e-6


def test_joints_and_weights(creature):
    assert 15 <= len(creature) <= 25 and len(set(creature.names)) == len(creature)
    assert creature.weights.shape[1] == 4
    torch.testing.assert_close(creature.weights.sum(1), torch.ones(len(creature.weights)), rtol=0, atol=1e-5)
    assert creature.weights[:, 0].amin() < 0.6  # weights are blended
    assert {int(joint) for joint in creature.indices[creature.weights > 0.5]} == set(range(len(creature)))
    dense = torch.zeros(len(creature.weights), len(creature)).scatter_add_(1, creature.indices, creature.weights)
    _, faces, first, place = welded(creature)
    torch.testing.assert_close(dense, dense[first][place], rtol=0, atol=0)  # seams do not tear
    jumps = (dense[first][faces] - dense[first][faces].roll(1, 1)).abs().amax(-1)
    assert jumps.max() < 0.75


@pytest.mark.parametrize("name, keys", [("Walk", 25), ("Jump", 33)])
def test_clips_loop_without_inverting_the_mesh(creature, name, keys):
    clip = creature.clip(name)
    assert all(channel.interpolation == "LINEAR" and len(channel.times) == keys for channel in clip.channels)
    posed = creature.posed(clip, clip.times(24))
    assert len(posed) == keys
    torch.testing.assert_close(posed[0], posed[-1], rtol=0, atol=1e-6)
    steps = (posed[1:] - posed[:-1]).norm(dim=-1)
    assert 0.02 < steps.max() < 0.15
    _, faces, first, _ = welded(creature)
    at_rest = volume(creature.mesh.vertices[first], faces)
    for vertices in posed:
        assert 0.9 < volume(vertices[first], faces) / at_rest < 1.1
        assert vertices.abs().max() < 3.8 * 0.1763  # within view of the cameras


def test_feet_of_the_walk_stay_on_the_ground(creature):
    walk = creature.clip("Walk")
    rest = creature.mesh.vertices
    ground = rest[:, 1].min()
    sole = rest[:, 1] < ground + 0.01
    feet = [sole & (rest[:, 0].sign() == x) & (rest[:, 2].sign() == z) for x in (-1, 1) for z in (-1, 1)]
    assert min(int(foot.sum()) for foot in feet) >= 4
    for vertices in creature.posed(walk, walk.times(24)):
        heights = [float(vertices[foot, 1].min() - ground) for foot in feet]
        assert sum(abs(height) < 0.012 for height in heights) >= 2
        assert min(heights) > -0.015


def test_images_show_the_walk(creature):
    cameras = Cameras.load(FOLDER / "clip" / "cameras.json")
    assert len(cameras) == 3
    walk = creature.clip("Walk")
    frames = sorted((FOLDER / "clip" / "camera_1").glob("*_rgba.png"))
    assert [len(list((FOLDER / "clip" / f"camera_{i}").glob("*_rgba.png"))) for i in range(3)] == [16, 16, 16]
    for number in (0, 5):
        image = torch.as_tensor(read_image(frames[number]))
        assert image.shape == (128, 128, 4)
        (vertices,) = creature.posed(walk, [walk.end * number / 16])
        mesh = replace(creature.mesh, vertices=vertices)
        (view,) = render_scene(mesh, cameras[1:2], shading="none")
        covered, seen = image[..., 3] > 0.5, view.alpha > 0.5
        assert (covered & seen).sum() / (covered | seen).sum() > 0.98
        inside = (image[..., 3] == 1) & (view.alpha == 1)
        assert (image[..., :3] - view.image)[inside].abs().mean() < 0.03


def test_normals_point_outwards(creature):
    assert creature.mesh.normals is not None
    vertices, faces, first, _ = welded(creature)
    assert ((creature.mesh.normals[first] * vertex_normals(vertices, faces)).sum(-1) > 0.7).all()


@pytest.mark.viewer
def test_validator_finds_no_errors():
    script = npm_package("gltf-validator").parents[1] / "validate_gltf.mjs"
    done = subprocess.run(["node", script, FOLDER / "creature.glb"], capture_output=True, text=True, check=True)
    assert '"numErrors":0' in done.stdout


@pytest.mark.slow
def test_generator_reproduces_it(tmp_path, creature):
    for name in ("fast_simplification", "scipy"):
        pytest.importorskip(name)
    script = FOLDER.resolve() / "generate.py"
    if not script.is_file():
        pytest.skip("an installed package has no generators")
    subprocess.run([sys.executable, script, "--out", tmp_path], check=True, capture_output=True)
    again = SkinnedMesh.load(tmp_path / "creature.glb")
    assert again.names == creature.names and [clip.name for clip in again.clips] == [clip.name for clip in creature.clips]
    # Other versions of the libraries may produce another triangulation of the surface.
    assert abs(again.mesh.num_faces - creature.mesh.num_faces) <= 100
    low, high = ((skin.mesh.vertices.amin(0), skin.mesh.vertices.amax(0)) for skin in (again, creature))
    for ours, theirs in zip(low, high):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=0.01)
