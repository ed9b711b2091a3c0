"""`vision3d convert` of animations: sequences and animated .glb files, from and to every format."""

import json
from dataclasses import replace

import pytest
import torch

from tests.support.gltf_reader import Animated
from vision3d.geometry import shapes
from vision3d.scene import FrameSequence, GaussianScene, Mesh, MeshGaussians, PointCloud, SkinnedMesh
from vision3d.scene.colors import linear_to_srgb, srgb_to_linear

TIMES = torch.arange(6, dtype=torch.float64) / 10


def bending():
    """A progressively bent beam."""
    vertices, faces = shapes.box((4.0, 1.0, 1.0), 4)
    angles = TIMES.float()[:, None] * 2 * (vertices[:, 0] / 4 + 0.5)
    x, y, z = vertices.T
    moved = torch.stack([x * angles.cos() - y * angles.sin(), x * angles.sin() + y * angles.cos(), z.expand_as(angles)], -1)
    return FrameSequence(Mesh(vertices, faces), TIMES, {"vertices": moved})


def run(cli, *arguments):
    code, out, err = cli("convert", *arguments, "--json")
    assert code == 0, err
    return json.loads(out.splitlines()[-1])["files"][0], err


def same(back, sequence, atol=1e-6):
    assert torch.equal(back.times, sequence.times)
    torch.testing.assert_close(back.vertices(), sequence.vertices(), atol=atol, rtol=0)


@pytest.mark.parametrize("source", ["a.zarr", "a.npz"])
@pytest.mark.parametrize("target", ["b.zarr", "b.npz"])
def test_stores(cli, tmp_path, source, target):
    bending().save(tmp_path / source)
    values, err = run(cli, tmp_path / source, tmp_path / target)
    assert values["frames"] == 6 and err == "" and values["bytes"] > 1000
    same(FrameSequence.load(tmp_path / target), bending())


@pytest.mark.parametrize(("motion", "joints"), [(None, 0), ("morph", 0), ("pca", 0), ("skin", 5)])
def test_one_animated_file(cli, tmp_path, motion, joints):
    sequence = bending()
    sequence.save(tmp_path / "a.npz")
    options = [] if motion is None else ["--motion", motion, "--joints", 5]
    values, err = run(cli, tmp_path / "a.npz", tmp_path / "b.glb", *options)
    assert err == "" and values["joints"] <= joints and (joints == 0) == (values["joints"] == 0)
    assert ("max_error" in values) == (motion in ("pca", "skin")) and values.get("max_error", 0) <= 1e-4
    assert SkinnedMesh.load(tmp_path / "b.glb").fps == 10
    other = Animated(tmp_path / "b.glb")
    for time, want in zip(TIMES.float().tolist(), sequence.vertices().numpy()):
        assert abs(other.vertices("frames", time) - want).max() <= 1e-4 * 4.3
    capped, _ = run(cli, tmp_path / "a.npz", tmp_path / "c.glb", "--motion", "pca", "--morphs", 1)
    assert capped["morphs"] == 1 and capped["max_error"] > 1e-4


def test_a_clip_is_sampled_at_the_rate_of_its_file(cli, tmp_path):
    """Six frames at 24 per second, whose last time is rounded down in float32; unevenly spaced ones are sampled at 30."""
    for times, count in ((TIMES * 10 / 24, 6), (TIMES.square() * 2, 16)):
        SkinnedMesh.from_frames(bending().base, bending().vertices(), times, "bow").save(tmp_path / "a.glb")
        assert run(cli, tmp_path / "a.glb", tmp_path / f"{count}.npz")[0]["frames"] == count
    torch.testing.assert_close(FrameSequence.load(tmp_path / "6.npz").vertices(), bending().vertices(), atol=1e-5, rtol=0)


def test_an_animated_file_keeps_its_clip(cli, tmp_path):
    skin = SkinnedMesh.from_frames(bending().base, bending().vertices(), TIMES, "bow")
    skin.save(tmp_path / "a.glb")
    values, err = run(cli, tmp_path / "a.glb", tmp_path / "b.glb")
    assert (values["morphs"], values["clips"], err) == (6, 1, "") and SkinnedMesh.load(tmp_path / "b.glb").clips[
        0
    ].name == "bow"
    for target in ("c.npz", "c.zarr"):
        assert run(cli, tmp_path / "a.glb", tmp_path / target, "--clip", "bow", "--rate", 10)[0]["frames"] == 6
        same(FrameSequence.load(tmp_path / target), bending())
    assert run(cli, tmp_path / "a.glb", tmp_path / "d.glb", "--motion", "skin", "--rate", 20)[0]["joints"] > 1
    code, _, err = cli("convert", tmp_path / "a.glb", tmp_path / "e.npz", "--clip", "dance")
    assert code == 3 and "no clip is called 'dance'; there is bow" in err


def test_rest_pose_for_static_formats(cli, tmp_path):
    skin = SkinnedMesh.from_frames(bending().base, bending().vertices(), TIMES)
    skin.save(tmp_path / "a.glb")
    _, err = run(cli, tmp_path / "a.glb", tmp_path / "b.glb", "--transform", "2 0 0 0 0 2 0 0 0 0 2 0 0 0 0 1")
    assert "the animation is dropped" in err
    torch.testing.assert_close(Mesh.load(tmp_path / "b.glb").vertices, 2 * skin.mesh.vertices)
    pytest.importorskip("trimesh")
    assert run(cli, tmp_path / "a.glb", tmp_path / "b.obj")[1] == ""


@pytest.mark.parametrize("kind", ["obj", "ply"])
def test_one_file_per_frame_and_back(cli, tmp_path, kind):
    pytest.importorskip("trimesh")
    bending().save(tmp_path / "a.npz")
    assert run(cli, tmp_path / "a.npz", tmp_path / "frames", "--frames", kind)[0]["frames"] == 6
    code, _, err = cli("convert", tmp_path / "a.npz", tmp_path / "frames", "--frames", kind)
    assert code == 5 and "frames: exists" in err
    run(cli, tmp_path / "a.npz", tmp_path / "frames", "--frames", kind, "--overwrite")
    run(cli, tmp_path / "frames", tmp_path / "b.npz")
    same(FrameSequence.load(tmp_path / "b.npz"), bending())
    (tmp_path / "frames" / "frames.json").unlink()
    run(cli, tmp_path / "frames", tmp_path / "c.npz", "--rate", 10)
    same(FrameSequence.load(tmp_path / "c.npz"), bending())


def test_gaussians_on_a_mesh(cli, tmp_path):
    sequence = bending()
    bound = FrameSequence(MeshGaussians.from_mesh(sequence.base, 1), TIMES, {"vertices": sequence.vertices()})
    bound.save(tmp_path / "a.zarr")
    run(cli, tmp_path / "a.zarr", tmp_path / "splats", "--frames", "ply")
    back = GaussianScene.load(tmp_path / "splats" / "frame_00003.ply")
    torch.testing.assert_close(back.means, bound.frame(3).means, atol=1e-6, rtol=0)
    run(cli, tmp_path / "a.zarr", tmp_path / "b.glb")
    back = SkinnedMesh.load(tmp_path / "b.glb")
    assert back.num_morphs == 6 and float((back.mesh.vertex_colors - 0.5).abs().max()) < 1e-4  # gray, as the mesh has no colors


def test_colors_of_gaussians_as_a_texture(cli, tmp_path):
    sequence = bending()
    colored = replace(sequence.base, vertex_colors=(sequence.base.vertices / 4 + 0.5))
    bound = MeshGaussians.from_mesh(colored, 6)
    FrameSequence(replace(bound, mesh=sequence.base), TIMES, {"vertices": sequence.vertices()}).save(tmp_path / "a.zarr")
    run(cli, tmp_path / "a.zarr", tmp_path / "b.glb", "--texture-size", 128, "--motion", "skin", "--joints", 4)
    back = SkinnedMesh.load(tmp_path / "b.glb")
    assert back.mesh.texture.shape == (128, 128, 3) and back.mesh.vertex_colors is None
    corners = srgb_to_linear(back.mesh.vertices[back.mesh.faces] / 4 + 0.5)
    columns, rows = (back.mesh.corner_uvs.mean(1) * 128).long().unbind(-1)
    torch.testing.assert_close(back.mesh.texture[rows, columns], linear_to_srgb(corners.mean(1)), atol=0.06, rtol=0)
    moved = back.posed(back.clips[0], TIMES)[:, back.mesh.faces].mean(2)
    torch.testing.assert_close(moved, sequence.vertices()[:, sequence.base.faces].mean(2), atol=1e-3, rtol=0)


@pytest.mark.parametrize("suffix", [".usd", ".usda", ".usdc"])
def test_usd(cli, tmp_path, suffix):
    pytest.importorskip("pxr")
    bending().save(tmp_path / "a.npz")
    assert run(cli, tmp_path / "a.npz", tmp_path / f"b{suffix}")[0]["frames"] == 6


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("a.npz", "b.obj"), 3, r"a.npz: holds frames, which b.obj cannot hold; want .glb, .gltf, .npz"),
        (("a.npz", "b.glb", "--tolerance", "-1"), 2, "--tolerance: got -1.0, want"),
        (("a.npz", "b.glb", "--joints", "0"), 2, "--joints: got 0, want"),
        (("a.npz", "b.glb", "--rate", "nan"), 2, "--rate: got nan, want"),
        (("a.npz", "b.glb", "--clip", "walk"), 2, "--clip: is for an animated .glb"),
        (("a.npz", "b.glb", "--transform", "1 0 0 0 0 1 0 0 0 0 1 0 0 0 0 1"), 2, "is for static objects, but"),
        (("a.npz", "b", "--frames", "obj", "--to", "obj"), 2, "--frames: writes a folder of frames of one input"),
        (("still.glb", "b.npz"), 3, "still.glb: has neither skins, morph targets nor animations; want an animated mesh"),
        (("still.obj", "b.npz"), 3, "still.obj: does not move; want a .zarr, .npz, an animated .glb"),
        (("points.zarr", "b.glb"), 3, "holds frames of PointCloud, want those of a Mesh or MeshGaussians"),
        (("none.npz", "b.glb"), 3, "none.npz: does not exist"),
        (("text.npz", "b.glb"), 3, "text.npz at its zip: is not an .npz of numbers"),
        (("still.glb", "b.usd"), 3, "has neither skins"),
    ],
)
def test_wrong_input(cli, tmp_path, monkeypatch, arguments, code, message):
    monkeypatch.chdir(tmp_path)
    bending().save("a.npz")
    bending().base.save("still.glb")
    (tmp_path / "still.obj").write_text("v 0 0 0\nv 1 0 0\nv 0 1 0\nf 1 2 3\n")
    FrameSequence(PointCloud(torch.rand(5, 3)), TIMES[:2], {"points": torch.rand(2, 5, 3)}).save("points.zarr")
    (tmp_path / "text.npz").write_text("hello")
    got, _, err = cli("convert", *arguments)
    assert got == code and message in err and len(err.strip().splitlines()) == 1
    assert not any((tmp_path / name).exists() for name in ("b", "b.glb", "b.npz", "b.obj", "b.usd"))
