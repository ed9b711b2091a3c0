"""Skinned meshes in the viewers: clips, colorings, and bones drawn on top."""

from dataclasses import replace
from time import monotonic, sleep

import pytest
import torch

from tests.support.outside import package
from tests.support.skins import arm, hybrid
from vision3d.core.errors import FileFormatError, InputError
from vision3d.core.runs import RunFolder
from vision3d.geometry.quaternion import random_quats
from vision3d.scene import FrameSequence, Mesh, Motion, PointCloud, Skeleton, SkinnedMesh
from vision3d.scene.lines import bone_lines
from vision3d.stages.animate import RigConfig, play_skin
from vision3d.viewer.content import Content
from vision3d.viewer.drawing import draw
from vision3d.viewer.layers import Layers, describe
from vision3d.viewer.models import Lines
from vision3d.viewer.rigs import LEGENDS, REST, Rig, eta_colors, joint_colors
from vision3d.viewer.web_draw import Drawer


@pytest.fixture
def layers(tmp_path):
    arm().save(tmp_path / "arm.glb")
    return Layers.open([tmp_path / "arm.glb"])


def test_a_skinned_mesh_is_an_animated_mesh_and_its_skeleton(layers):
    assert {layer.name: layer.kind for layer in layers} == {"arm": "mesh", "arm.skeleton": "skeleton"}
    assert list(layers.rigs) == ["arm"] and layers.rigs["arm"].clips == ("wave", "still", REST)
    skin = layers.rigs["arm"].skin
    assert layers.times[0] == 0 and layers.times[-1] == 1 and len(layers.times) == 31
    for time in (0.0, 0.5, 1.0):
        want = skin.posed(skin.clip("wave"), [time])[0]
        torch.testing.assert_close(layers.frame("arm", time).vertices, want)
        joints = skin.joint_matrices(skin.clip("wave"), torch.tensor([time], dtype=torch.float64))[0, :, :3, 3]
        torch.testing.assert_close(layers.frame("arm.skeleton", time).points, joints)
    assert layers.up.tolist() == [0, 1, 0]
    texts = [describe(layer, layers.frame(layer.name)) for layer in layers]
    assert texts == ["1 280 faces, 31 frames", "3 joints, 31 frames"]


def test_clips_are_selected(layers):
    layers.change_rig("arm.skeleton", clip=REST)
    assert isinstance(layers["arm"].value, Mesh) and isinstance(layers["arm.skeleton"].value, PointCloud)
    assert len(layers.times) == 0 and layers.nearest_time(0.4) == 0
    torch.testing.assert_close(layers.frame("arm").vertices, layers.rigs["arm"].skin.mesh.vertices, rtol=0, atol=1e-5)
    layers.change_rig("arm", clip="still")
    assert isinstance(layers["arm"].value, FrameSequence) and len(layers.times) == 1
    layers.change_rig("arm", clip="wave")
    assert layers.nearest_time(7.0) == 1 and layers.nearest_time(0.4) == 0.4
    with pytest.raises(InputError, match="no clip is called 'walk'; there are wave, still"):
        layers.change_rig("arm", clip="walk")


def test_the_frames_of_the_file_are_among_those_shown(tmp_path):
    for fps, shown in ((24, 24), (60, 60), (12, 24), (1, 30)):
        replace(arm(), fps=float(fps)).save(tmp_path / "arm.glb")
        times = Layers.open([tmp_path / "arm.glb"]).times
        torch.testing.assert_close(times, torch.arange(shown + 1, dtype=torch.float64) / shown)


def test_colorings(layers):
    skin = layers.rigs["arm"].skin
    dense = torch.zeros(len(skin.weights), 3).scatter_add_(1, skin.indices, skin.weights)
    own = layers.frame("arm").vertex_colors
    palette = joint_colors(3)
    layers.change_rig("arm", colors="weights")
    torch.testing.assert_close(layers.frame("arm", 0.5).vertex_colors, dense @ palette)
    layers.change_rig("arm", colors="dominant")
    assert torch.equal(layers.frame("arm").vertex_colors, palette[dense.argmax(1)])
    layers.change_rig("arm", colors="joint_2")
    shown = layers.frame("arm").vertex_colors
    order = dense[:, 2].argsort()
    assert (shown[order, 0].diff() >= -1e-6).all() and shown[order[-1], 0] > 0.95
    assert layers.rigs["arm"].clip == "wave"
    layers.change_rig("arm", colors="own")
    assert torch.equal(layers.frame("arm").vertex_colors, own)
    with pytest.raises(InputError, match="got 'joint_9', which this mesh does not have; did you mean joint_2"):
        layers.change_rig("arm", colors="joint_9")


def test_eta_coloring(tmp_path, layers):
    """From blue (dual quaternions) over white to orange (linear), for each frame; meshes without eta have no such coloring."""
    hybrid().save(tmp_path / "ball.glb")
    both = Layers.open([tmp_path / "ball.glb", tmp_path / "arm.glb"])
    rig = both.rigs["ball"]
    assert list(rig.colorings) == ["own", "eta"] and list(LEGENDS) == ["eta"]
    assert list(both.rigs["arm"].colorings) == ["own", "weights", "dominant", "joint_0", "joint_1", "joint_2"]
    both.change_rig("ball", colors="eta")
    for time in (0.0, 0.1, 0.2):
        torch.testing.assert_close(both.frame("ball", time).vertex_colors, eta_colors(rig.skin.etas - 2 * time))
        assert torch.equal(both.frame("ball", time).vertices, rig.skin.posed(rig.skin.clips[0], [time])[0])
    both.change_rig("ball", clip=REST)
    torch.testing.assert_close(both.frame("ball").vertex_colors, eta_colors(rig.skin.etas))
    blue, white, orange = eta_colors(torch.tensor([0.0, 0.5, 1.0]))
    assert blue[2] > 2 * blue[0] and white.min() > 0.85 and orange[0] > 2 * orange[2]
    steps = eta_colors(torch.linspace(-0.1, 1.1, 200)).diff(dim=0)
    assert steps.abs().max() < 0.02 and (steps[:, 0] >= -1e-6)[:100].all()
    with pytest.raises(InputError, match="colors: got 'eta'"):
        both.change_rig("arm", colors="eta")


def test_static_meshes_have_no_clips(tmp_path):
    arm().mesh.save(tmp_path / "still.glb")
    layers = Layers.open([tmp_path / "still.glb"])
    assert [layer.kind for layer in layers] == ["mesh"] and layers.rigs == {}
    with pytest.raises(InputError, match="has no clips"):
        layers.change_rig("still", clip="wave")


def test_a_skinned_mesh_that_cannot_be_read_is_shown_in_its_rest_pose(tmp_path, caplog):
    path = tmp_path / "arm.glb"
    arm().save(path)
    whole = path.read_bytes()
    path.write_bytes(whole.replace(b'"LINEAR"', b'"LINEAX"'))
    layers = Layers.open([path])
    assert [layer.kind for layer in layers] == ["mesh"] and "it is shown in its rest pose" in caplog.text
    path.write_bytes(whole.replace(b'"JOINTS_0"', b'"JOINTS_x"'))
    with pytest.raises(FileFormatError, match="a mesh with a skin has no JOINTS_0 and WEIGHTS_0"):
        Layers.open([path])


def test_morphs_without_joints_have_no_skeleton(tmp_path):
    mesh = arm().mesh
    frames = torch.stack([mesh.vertices, mesh.vertices + 1])
    SkinnedMesh.from_frames(mesh, frames, [0.0, 1.0]).save(tmp_path / "wobble.glb")
    layers = Layers.open([tmp_path / "wobble.glb"])
    assert [layer.name for layer in layers] == ["wobble"]
    torch.testing.assert_close(layers.frame("wobble", 0.5).vertices, mesh.vertices + 0.5, rtol=0, atol=1e-5)


def test_motion_capture_has_bones(tmp_path):
    skeleton = Skeleton(("hip", "knee"), (-1, 0), torch.rand(2, 3))
    Motion(skeleton, torch.arange(3.0).double(), random_quats(3, 2), torch.rand(3, 3)).save(tmp_path / "walk.bvh")
    layers = Layers.open([tmp_path / "walk.bvh"])
    assert {layer.name: layer.kind for layer in layers} == {"walk": "points", "walk.skeleton": "skeleton"}
    models = Content(layers).models(1.0)
    assert any(isinstance(model, Lines) and model.is_on_top for model in models)


def test_runs_of_rig_are_shown_and_keep_their_choice(tmp_path):
    config = RigConfig(clip="wave", fps=4, video=False)
    folder = RunFolder.create(tmp_path / "run", config)
    play_skin(config, arm(), run_folder=folder, progress=lambda *_: None)
    folder.write_summary({})
    layers = Layers.open([tmp_path / "run"])
    assert {layer.name: layer.kind for layer in layers} == {
        "run.frames": "mesh", "run.rig": "mesh", "run.rig.skeleton": "skeleton"
    }  # fmt: skip
    layers.change_rig("run.rig", colors="joint_1", clip=REST)
    arm().save(tmp_path / "run" / "rig.glb")
    assert "run.rig" in layers.refresh()
    assert layers.rigs["run.rig"].colors == "joint_1" and layers.rigs["run.rig"].clip == REST


def test_bones_are_closed_shapes_between_joints():
    places = torch.tensor([[0.0, 0, 0], [0, 1, 0], [0, 1, 0], [2, 1, 0]])
    lines, joints = bone_lines(places, (-1, 0, 1, 1))
    assert lines.shape == (12 * 2 + 12 * 4, 2, 3)  # a bone of zero length is skipped
    assert joints.tolist() == [0] * 12 + [1] * 12 + [joint for joint in range(4) for _ in range(12)]
    ends = torch.cat([lines[:12, 0], lines[:12, 1]])
    assert (ends == places[0]).all(-1).sum() == 4 and (ends == places[1]).all(-1).sum() == 4
    alone, _ = bone_lines(torch.zeros(1, 3), (-1,))
    assert alone.shape == (12, 2, 3) and alone.isfinite().all()
    together, _ = bone_lines(torch.zeros(2, 3), (-1, 0))
    assert together.isfinite().all()


def test_bones_are_visible_through_the_mesh(layers):
    content = Content(layers)
    camera = layers.start.camera(96, 72)
    models = content.models(0.0)
    with_bones = draw(models, camera).image
    layers.show("arm.skeleton", False)
    alone = draw(content.models(0.0), camera)
    changed = (with_bones - alone.image).abs().amax(-1) > 0.05
    assert changed.sum() > 50
    assert alone.depth[changed].isfinite().float().mean() > 0.9  # over the body
    assert content.named(0.0)[0][0] == "arm" and len(content.named(0.0)) == 1


def test_bones_do_not_change_the_bounds(layers):
    with_bones = layers.bounds
    far = replace(layers["arm.skeleton"], value=PointCloud(torch.full((3, 3), 99.0)))
    layers._layers["arm.skeleton"] = far
    assert layers.bounds.radius == with_bones.radius


def test_rig_choices_are_kept_if_possible():
    chosen = Rig.of(arm(3)).changed("still", "joint_2")
    assert (Rig.of(arm(4)).like(chosen).clip, Rig.of(arm(4)).like(chosen).colors) == ("still", "joint_2")
    bare = Rig.of(replace(arm(2), clips=())).like(chosen)
    assert (bare.clip, bare.colors) == (REST, "own")


def test_offscreen_image_of_a_skinned_mesh(cli, tmp_path):
    arm().save(tmp_path / "arm.glb")
    out = tmp_path / "a.png"
    options = ("--clip", "wave", "--colors", "dominant", "--time", "0.5", "--size", "64x48", "--json")
    code, text, err = cli("view", tmp_path / "arm.glb", "--offscreen", out, *options)
    assert code == 0 and '"arm.skeleton": "skeleton"' in text and out.is_file(), err
    for options, part, want in (
        (("--clip", "run"), "no clip is called 'run'; there are wave, still", 3),
        (("--colors", "joint_x"), "joint_0", 3),
        (("--skeleton", "maybe"), "maybe", 2),
    ):
        code, _, err = cli("view", tmp_path / "arm.glb", "--offscreen", tmp_path / "b.png", *options)
        assert code == want and part in err and err.count("\n") == 1, err
    arm().mesh.save(tmp_path / "still.glb")
    code, _, err = cli("view", tmp_path / "still.glb", "--offscreen", tmp_path / "b.png", "--clip", "wave")
    assert code == 2 and "--clip: is for meshes with joints" in err


class Node:
    def __init__(self, kind, **values):
        self.kind, self.values, self.visible = kind, values, values.get("visible")

    def remove(self):
        pass


class Server:
    """Records what would be sent to a page."""

    def __init__(self):
        self.scene, self.sent = self, []

    def atomic(self):
        import contextlib

        return contextlib.nullcontext()

    def add_glb(self, name, data, **options):
        self.sent.append(Node("glb", data=data, **options))
        return self.sent[-1]

    def add_line_segments(self, name, points, colors, **options):
        self.sent.append(Node("lines", points=points, colors=colors, **options))
        return self.sent[-1]


def test_data_sent_to_a_page(layers, tmp_path):
    server = Server()
    drawer = Drawer(server, layers, lambda *_: None)
    drawer.draw(0.0)
    assert [node.kind for node in server.sent] == ["glb", "lines"]
    assert server.sent[1].values["points"].shape == server.sent[1].values["colors"].shape

    def alpha_of(node):
        (tmp_path / "sent.glb").write_bytes(node.values["data"])
        colors = Mesh.load(tmp_path / "sent.glb").vertex_colors
        return 1.0 if colors.shape[1] == 3 else float(colors[:, 3].max())

    assert alpha_of(server.sent[0]) < 0.5  # bones are visible through it
    drawer.draw(0.0)
    assert len(server.sent) == 2
    drawer.show("arm.skeleton", False)
    drawer.draw(0.0)
    assert [node.kind for node in server.sent[2:]] == ["glb"] and alpha_of(server.sent[2]) == 1
    drawer.draw(0.5)
    assert len(server.sent) > 3


@pytest.mark.viewer
@pytest.mark.slow
def test_the_page_shows_the_legend_of_a_coloring(tmp_path, monkeypatch):
    viser = package("viser")
    from vision3d.viewer.web import WebViewer

    added = []
    for name in ("add_dropdown", "add_markdown"):
        before = getattr(viser.GuiApi, name)
        monkeypatch.setattr(viser.GuiApi, name, lambda *a, do=before, **b: added.append(do(*a, **b)) or added[-1])
    hybrid().save(tmp_path / "ball.glb")
    layers = Layers.open([tmp_path / "ball.glb"])
    with WebViewer(layers, port=0) as viewer:
        colors = next(handle for handle in added if getattr(handle, "label", "") == "Colors")
        legend = added[added.index(colors) + 1]
        assert colors.options == ("own colors", "eta of hybrid skinning") and not legend.visible
        colors.value = "eta of hybrid skinning"
        end = monotonic() + 10
        while not legend.visible and monotonic() < end:
            sleep(0.05)
        assert legend.content == "blue: 0, dual quaternions (DQS)  \norange: 1, linear skinning (LBS)"
        assert layers.rigs["ball"].colors == "eta" and viewer.panel is not None


@pytest.mark.viewer
@pytest.mark.slow
def test_clips_and_colorings_can_be_selected_on_the_page(layers):
    package("viser")
    from vision3d.viewer.web import WebViewer

    with WebViewer(layers, port=0) as viewer:
        panel = viewer.panel
        assert len(panel._moments) == 31
        panel._change_rig("arm", clip=REST)
        assert panel._moments == [] and not panel._time_folder.visible
        panel._change_rig("arm", clip="wave", colors="weights")
        assert len(panel._moments) == 31 and panel._time_folder.visible and layers.rigs["arm"].colors == "weights"
        panel.advance()
        assert panel.time_s == pytest.approx(1 / 30)
