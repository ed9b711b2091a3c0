"""`vision3d mesh` on the command line: files, cameras, metrics, and wrong input."""

import importlib
import json
import subprocess

import pytest
import torch

from tests.support.outside import npm_package, package, program
from tests.support.photos import ring
from tests.support.refusals import assert_refused
from tests.support.surfaces import cameras_around
from vision3d.core.errors import MissingDependencyError
from vision3d.core.install import install_command
from vision3d.geometry import mesh as geometry, shapes
from vision3d.geometry.quaternion import rotmat_to_quat
from vision3d.geometry.vectors import any_orthogonal
from vision3d.io.images import write_image
from vision3d.scene import GaussianScene, Mesh
from vision3d.stages.animate.static.surface import load_surface
from vision3d.stages.mesh import MeshConfig, mesh_scene

FEW = ("--views", 16, "--view-size", 96, "--resolution", 48, "--faces", 800, "--texture-size", 128, "--refine", 0, "--quiet")


def ball(mode="2dgs"):
    """Discs on a sphere, red at the top and blue at the bottom."""
    vertices, _ = shapes.icosphere(4)
    count = len(vertices)
    across = any_orthogonal(vertices)
    turns = torch.stack([across, torch.linalg.cross(vertices, across), vertices], -1)
    red = torch.tensor([1.5, -1.5, -1.5])
    return GaussianScene(
        means=vertices,
        quats=rotmat_to_quat(turns),
        log_scales=torch.tensor([0.05, 0.05, 0.005]).log().expand(count, 3).clone(),
        opacity_logits=torch.full((count,), 5.0),
        sh=torch.where(vertices[:, 2:] > 0, red, red.flip(0))[:, None],
        mode=mode,
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Scenes of 2D Gaussians and of ellipsoids."""
    path = tmp_path_factory.mktemp("scenes")
    ball().save(path / "scene.ply")
    ball("3dgs").save(path / "ellipsoids.ply")
    ball("3dgs").save(path / "scene.spz")
    return path


@pytest.mark.viewer
@pytest.mark.parametrize("name", ["scene.ply", "ellipsoids.ply"])
@pytest.mark.parametrize("method", ["tsdf", "poisson"])
def test_a_sphere_becomes_a_mesh(cli, folder, tmp_path, name, method):
    for needed in ("open3d", "fast_simplification"):
        package(needed)
    out = tmp_path / "ball.glb"
    code, text, err = cli("mesh", folder / name, "--out", out, "--method", method, *FEW, "--json")
    assert code == 0, err
    values = json.loads(text.splitlines()[-1])
    assert values["ok"] and values["is_closed"] and values["method"] == method and values["cameras"] == "round the scene"
    assert 300 < values["faces"] <= 800 and values["bytes"] == out.stat().st_size and values["seen_share"] > 0.99
    mesh = Mesh.load(out)
    assert mesh.num_faces == values["faces"] and mesh.texture.shape == (128, 128, 3)
    off = (mesh.vertices.norm(dim=-1) - 1).abs()
    assert off.mean() < 0.02 and off.max() < 0.06
    towards = (geometry.face_normals(mesh.vertices, mesh.faces) * mesh.vertices[mesh.faces].mean(1)).sum(-1)
    assert (towards > 0).float().mean() > 0.99
    texels = (mesh.uvs * 128).long().clamp(max=127)
    colors = mesh.texture[texels[:, 1], texels[:, 0]]
    top, bottom = (colors[sign * mesh.vertices[:, 2] > 0.4].mean(0) for sign in (1, -1))
    assert top[0] > 0.8 > 0.2 > top[2] and bottom[2] > 0.8 > 0.2 > bottom[0]


@pytest.mark.viewer
def test_the_file_is_valid_gltf(cli, folder, tmp_path):
    package("open3d")
    validator = npm_package("gltf-validator")
    out = tmp_path / "ball.glb"
    assert cli("mesh", folder / "scene.ply", "--out", out, *FEW)[0] == 0
    code = (
        "const [validator, file] = process.argv.slice(1);"
        "require(validator).validateBytes(new Uint8Array(require('fs').readFileSync(file)))"
        ".then(report => console.log(JSON.stringify(report.issues)))"
    )
    done = subprocess.run(
        [program("node"), "-e", code, str(validator), str(out)], capture_output=True, text=True, timeout=60, check=True
    )
    issues = json.loads(done.stdout)
    assert issues["numErrors"] == 0 and issues["numWarnings"] == 0, issues


@pytest.mark.viewer
def test_cameras_vertex_colors_and_overwriting(cli, folder, tmp_path):
    package("open3d")
    ring(12).save(tmp_path / "cameras.json")
    ball().save(tmp_path / "scene.ply")
    few = (*FEW, "--faces", 0, "--texture-size", 0)
    code, text, err = cli("mesh", tmp_path, *few, "--json")  # a run folder with its cameras
    assert code == 0, err
    values = json.loads(text.splitlines()[-1])
    assert values["cameras"] == "given" and values["views"] == 12 and values["faces"] > 800
    mesh = Mesh.load(tmp_path / "mesh.glb")
    assert mesh.texture is None and mesh.vertex_colors is not None
    assert_refused(cli("mesh", tmp_path, *few), f"{tmp_path / 'mesh.glb'}: exists; give --overwrite or another --out", code=5)
    before = (tmp_path / "mesh.glb").stat().st_ino
    assert cli("mesh", tmp_path, *few, "--overwrite")[0] == 0
    assert (tmp_path / "mesh.glb").stat().st_ino != before
    cameras = tmp_path / "cameras.json"
    assert cli("mesh", folder / "scene.ply", "--cameras", cameras, "--out", tmp_path / "b.glb", *few)[0] == 0


@pytest.mark.viewer
def test_memory_makes_voxels_larger(cli, folder, tmp_path):
    package("open3d")
    few = (*FEW, "--faces", 0, "--texture-size", 0, "--resolution", 128)
    code, text, err = cli("mesh", folder / "scene.ply", "--out", tmp_path / "b.glb", *few, "--max-memory", 0.02, "--json")
    assert code == 0 and json.loads(text.splitlines()[-1])["resolution"] < 100
    assert "warning: a resolution of 128 needs more than the 0.012 GB for voxels; " in err
    result = cli("mesh", folder / "scene.ply", "--out", tmp_path / "c.glb", *few, "--max-memory", 1e-4)
    assert_refused(result, "max_memory: got 6e-05 GB for voxels, want at least ", " for this scene", code=2)
    assert not (tmp_path / "c.glb").exists()


@pytest.mark.viewer
def test_the_mesh_is_reproducible():
    package("open3d")
    config = MeshConfig(views=12, view_size=64, resolution=32, faces=400, texture_size=128, refine=10)
    first, second = (mesh_scene(config, ball()).mesh for _ in range(2))
    assert torch.equal(first.vertices, second.vertices) and torch.equal(first.texture, second.texture)


@pytest.mark.viewer
def test_a_part_of_a_scene_by_its_box(cli, folder, tmp_path):
    package("open3d")
    few = (*FEW, "--faces", 0, "--texture-size", 0, "--box", -2, -2, 0, 2, 2, 2)
    assert cli("mesh", folder / "scene.ply", "--out", tmp_path / "half.glb", *few)[0] == 0
    mesh = Mesh.load(tmp_path / "half.glb")
    assert -0.9 < mesh.vertices[:, 2].min() < 0.1 and mesh.vertices[:, 2].max() > 0.95


@pytest.mark.viewer
def test_scenes_without_a_surface(cli, tmp_path):
    package("open3d")
    scene = ball()
    faint = GaussianScene(scene.means, scene.quats, scene.log_scales, scene.opacity_logits - 11, scene.sh, "2dgs")
    faint.save(tmp_path / "faint.ply")
    result = cli("mesh", tmp_path / "faint.ply", *FEW)
    assert_refused(result, "scene: none of the 16 views has a surface (opacity of at least 0.5); want cameras")
    few = (*FEW, "--min-views", 16, "--box", -3, -3, 0.9, 3, 3, 3)
    result = cli("mesh", tmp_path / "faint.ply", *few, "--alpha-min", 0.001, "--views", 4)
    assert result[0] in (0, 3)  # nothing or a fragment, never a traceback
    assert not list(tmp_path.glob(".*tmp*"))


# --- wrong input, none of which needs Open3D


@pytest.mark.parametrize(
    "options, text",
    [
        (["--resolution", "0"], "resolution: got 0, want at least 16"),
        (["--voxel", "-1"], "voxel: got -1.0, want a number > 0"),
        (["--box", *"111000"], "box: got 1 1 1 0 0 0, want the lower corner x y z and then the upper one"),
        (["--alpha-min", "2"], "alpha_min: got 2.0, want a number in (0, 1]"),
        (["--quantile", "1"], "quantile: got 1.0, want a number in (0, 1)"),
        (["--truncation", "0"], "truncation: got 0.0, want 1 to 64 voxels"),
        (["--views", "2"], "views: got 2, want 4 or more"),
        (["--faces", "3"], "faces: got 3, want 0 or at least 4"),
        (["--texture-size", "5"], "texture_size: got 5, want 0, or 16 to 8192"),
        (["--max-memory", "0"], "max_memory: got 0.0, want a number > 0"),
        (["--method", "marching"], "invalid value"),
        (["--resolutoin", "5"], "--resolutoin: unknown option of vision3d mesh; did you mean --resolution"),
        (["--out", "mesh.fbx"], "--out: got mesh.fbx, want a name that ends in .glb, .obj, .ply, .stl"),
    ],
)
def test_wrong_options(cli, folder, options, text):
    code, out, err = cli("mesh", folder / "scene.ply", *options)
    assert (code, out) == (2, "") and err.count("\n") == 1, err
    assert text in err or (text == "invalid value" and "tsdf" in err), err


@pytest.mark.parametrize(
    "name, text",
    [
        ("none.ply", "does not exist; want a Gaussian scene (.ply) or a run folder with scene.ply"),
        ("image.png", "holds an image, want a Gaussian scene (.glb, .gltf, .json, .ksplat, .ply"),
        ("empty", "is a folder without scene.ply or scene.json; want a Gaussian scene (.ply)"),
        ("no_rows.ply", "element 'vertex' has 0 rows"),
    ],
)
def test_files_that_are_not_scenes(cli, folder, tmp_path, name, text):
    write_image(tmp_path / "image.png", torch.zeros(12, 12, 3))
    (tmp_path / "empty").mkdir()
    header = (folder / "scene.ply").read_bytes().split(b"end_header\n")[0]
    (tmp_path / "no_rows.ply").write_bytes(header.replace(b"vertex 2562", b"vertex 0") + b"end_header\n")
    assert_refused(cli("mesh", tmp_path / name, "--out", tmp_path / "out.glb"), tmp_path / name, text)
    assert not (tmp_path / "out.glb").exists()


def test_missing_cameras(cli, folder, tmp_path):
    result = cli("mesh", folder / "scene.ply", "--cameras", tmp_path / "none.json", "--out", tmp_path / "out.glb")
    assert_refused(result, "none.json: does not exist; want a cameras.json, a transforms.json or a data set")


def test_out_is_a_folder(cli, folder, tmp_path):
    (tmp_path / "mesh.glb").mkdir()
    result = cli("mesh", folder / "scene.ply", "--out", tmp_path / "mesh.glb")
    assert_refused(result, f"--out: {tmp_path / 'mesh.glb'} is a folder; want the name of a mesh, such as", code=2)


def test_missing_packages_are_named_before_anything_is_rendered(cli, folder, tmp_path, monkeypatch):
    def missing(name, *_):
        if name == "open3d":
            raise ImportError(name)
        return load(name, *_)

    load = importlib.import_module
    monkeypatch.setattr(importlib, "import_module", missing)
    result = cli("mesh", folder / "scene.ply", "--out", tmp_path / "out.glb", "--quiet")
    assert_refused(result, f"open3d is needed for meshes of scenes: {install_command('mesh')}", code=4)
    with pytest.raises(MissingDependencyError, match="open3d is needed"):
        mesh_scene(MeshConfig(), ball())


def test_configuration_is_printed_and_read(cli, folder, tmp_path):
    code, text, err = cli("mesh", folder / "scene.ply", "--resolution", 99, "--print-config")
    assert code == 0 and "resolution: 99" in text, err
    (tmp_path / "mine.yaml").write_text(text)
    code, again, _ = cli("mesh", folder / "scene.ply", "--config", tmp_path / "mine.yaml", "--print-config")
    assert code == 0 and again == text
    (tmp_path / "wrong.yaml").write_text("resolutoin: 5")
    code, _, err = cli("mesh", folder / "scene.ply", "--config", tmp_path / "wrong.yaml")
    assert code == 2 and "resolutoin" in err


@pytest.mark.viewer
def test_a_glb_is_y_up(cli, tmp_path):
    package("open3d")
    ball().save(tmp_path / "scene.ply")  # red at the top and blue at the bottom in z
    cameras_around(16, 96).save(tmp_path / "cameras.json")
    few = (*FEW, "--texture-size", 0)
    for options, name, axis, sign in (
        ((), "a.glb", 1, 1),  # z is up in the images
        (("--up", "z"), "b.glb", 1, 1),
        (("--up=-z",), "c.glb", 1, -1),
        (("--up", "y"), "d.glb", 2, 1),  # not rotated
        (("--up", "z"), "e.ply", 2, 1),  # other formats keep the axes of the scene
    ):
        code, _, err = cli("mesh", tmp_path, "--out", tmp_path / name, *few, *options, "--json")
        assert code == 0, err
        mesh = Mesh.load(tmp_path / name)
        red, blue = (mesh.vertex_colors[side * mesh.vertices[:, axis] > 0.6].mean(0) for side in (sign, -sign))
        assert red[0] > 0.7 > 0.3 > red[2] and blue[2] > 0.7 > 0.3 > blue[0], name
        towards = (geometry.face_normals(mesh.vertices, mesh.faces) * mesh.vertices[mesh.faces].mean(1)).sum(-1)
        assert (towards > 0).float().mean() > 0.99
        # With photos of the scene, the mesh has their axes.
        again = load_surface(tmp_path / name, of_photos=True)
        assert again.vertex_colors[again.vertices[:, 2] > 0.6].mean(0)[0] > 0.7, name
        mesh.save(tmp_path / f"again_{name}")  # reading and writing keeps the axes of the file
        assert torch.equal(Mesh.load(tmp_path / f"again_{name}").vertices, mesh.vertices)
    result = cli("mesh", tmp_path, "--out", tmp_path / "f.glb", *few, "--up", "w")
    assert_refused(result, "up", code=2)


@pytest.mark.viewer
@pytest.mark.parametrize(
    "options, text",
    [
        (("--max-components", -1), "max_components: got -1, want 0 or more"),
        (("--min-views", 0), "min_views: got 0, want 1 or more"),
        (("--refine", -1), "refine: got -1, want 0 or more"),
        (("--quantile", "nan"), "quantile: got nan, want a number in (0, 1)"),
        (("--min-component", 2), "min_component: got 2.0, want a number in [0, 1]"),
        (("--texture-size", 9000), "texture_size: got 9000, want 0, or 16 to 8192"),
    ],
)
def test_options_out_of_range(cli, folder, tmp_path, options, text):
    result = cli("mesh", folder / "scene.ply", "--out", tmp_path / "a.glb", *FEW, *options)
    assert_refused(result, text, code=2)
    assert not (tmp_path / "a.glb").exists()


@pytest.mark.viewer
def test_a_run_folder_from_python(tmp_path):
    package("open3d")
    config = MeshConfig(views=16, view_size=96, resolution=48, faces=800, texture_size=128, refine=0)
    result = mesh_scene(config, ball(), run_folder=tmp_path / "run")
    assert result.run_folder == tmp_path / "run"
    assert {"mesh.glb", "summary.json", "report.html", "config.yaml"} <= {path.name for path in result.run_folder.iterdir()}
    assert Mesh.load(tmp_path / "run" / "mesh.glb").num_faces == result.mesh.num_faces
