"""Scans of meshes by a LiDAR against closed forms."""

import math

import numpy as np
import pytest
import torch

from vision3d.core.config import presets
from vision3d.core.errors import ConfigError, InputError, MissingDependencyError, MissingFileError
from vision3d.render.lidar import Errors, Sensor, scan
from vision3d.render.lidar.casting import Instance, Shape, cast, cast_on
from vision3d.render.lidar.materials import INDEX
from vision3d.scene import Mesh, Scene

pytest.importorskip("embreex")

EXACT = {"range_noise": 0.0, "beam_bias": 0.0, "angle_noise": 0.0, "divergence": 0.0, "reach": 1e4}
SENSOR = Sensor(tuple(np.linspace(20, -30, 40).tolist()), 1.0, min_range=0.1, max_range=200.0, **EXACT)


def box(size: tuple[float, float, float]) -> Mesh:
    corners = torch.tensor([[x, y, z] for x in (-0.5, 0.5) for y in (-0.5, 0.5) for z in (-0.5, 0.5)]) * torch.tensor(size)
    quads = torch.tensor([[0, 1, 3, 2], [4, 6, 7, 5], [0, 4, 5, 1], [2, 3, 7, 6], [0, 2, 6, 4], [1, 5, 7, 3]])
    return Mesh(corners, torch.cat([quads[:, [0, 1, 2]], quads[:, [0, 2, 3]]]))


def plane(level: float, half: float = 300.0) -> Mesh:
    corners = torch.tensor([[-half, -half, level], [half, -half, level], [half, half, level], [-half, half, level]])
    return Mesh(corners, torch.tensor([[0, 1, 2], [0, 2, 3]]))


def sphere(radius: float, rows: int = 400) -> Mesh:
    polar, around = torch.linspace(0, math.pi, rows), torch.linspace(0, 2 * math.pi, 2 * rows)
    p, a = torch.meshgrid(polar, around, indexing="ij")
    points = radius * torch.stack([p.sin() * a.cos(), p.sin() * a.sin(), p.cos()], -1).reshape(-1, 3)
    i, j = torch.meshgrid(torch.arange(rows - 1), torch.arange(2 * rows - 1), indexing="ij")
    first = (i * 2 * rows + j).reshape(-1)
    faces = torch.stack([first, first + 1, first + 2 * rows, first + 1, first + 2 * rows + 1, first + 2 * rows], 1)
    return Mesh(points, faces.reshape(-1, 3))


def shifted(x: float, y: float, z: float, yaw: float = 0.0) -> torch.Tensor:
    matrix = torch.eye(4)
    matrix[:2, :2] = torch.tensor([[math.cos(yaw), -math.sin(yaw)], [math.sin(yaw), math.cos(yaw)]])
    matrix[:3, 3] = torch.tensor([x, y, z])
    return matrix


def test_plane_points_lie_on_it_at_the_closed_form_distance():
    cloud = scan(plane(-1.7), SENSOR)
    distance = cloud.points.norm(dim=1)
    expected = -1.7 / (cloud.points[:, 2] / distance)
    below = [e for e in SENSOR.elevations if e < 0 and 1.7 / math.sin(math.radians(-e)) < 200]
    assert len(cloud) == len(below) * SENSOR.num_steps
    assert (cloud.points[:, 2] + 1.7).abs().max() < 1e-3
    assert (distance - expected).abs().max() < 1e-3


@pytest.mark.parametrize("center", [(8.0, 0.0, 0.0), (-7.0, 0.1, 0.5), (0.5, -9.0, -1.0)])
def test_sphere_distances(center: tuple[float, float, float]):
    scene = Scene().add("ball", sphere(1.5), shifted(*center))
    cloud = scan(scene, SENSOR)
    middle = torch.tensor(center)
    way = torch.nn.functional.normalize(cloud.points, dim=1)
    along = way @ middle
    expected = along - (along**2 - middle @ middle + 1.5**2).clamp(min=0).sqrt()
    assert len(cloud) > 100
    # the polyhedron deviates from the sphere most where rays graze it
    facing = (along**2 - middle @ middle + 1.5**2) > 0.05
    assert (cloud.points.norm(dim=1) - expected)[facing].abs().max() < 1e-3
    # the number of rays is that of the cone in which the sphere is seen
    rays = torch.from_numpy(SENSOR.directions()).reshape(-1, 3)
    inside = int(((rays @ middle) / middle.norm() > math.sqrt(1 - (1.5 / float(middle.norm())) ** 2)).sum())
    assert abs(len(cloud) - inside) <= 0.05 * inside


def test_rotated_box_distances_and_ids():
    turned = shifted(6, 3, 0.2, 0.7)
    scene = Scene().add("ground", plane(-1.7)).add("box", box((4.0, 2.0, 1.5)), turned)
    cloud = scan(scene, SENSOR)
    owner = cloud.attributes["object"]
    points = cloud.points[owner == 1]
    local = (points - turned[:3, 3]) @ turned[:3, :3]
    half = torch.tensor([2.0, 1.0, 0.75])
    assert len(points) > 200
    assert ((local.abs() - half).amax(1).abs() < 1e-3).all()
    ground = cloud.points[owner == 0]
    assert (ground[:, 2] + 1.7).abs().max() < 1e-3
    # slab test of every ray: first intersection with the box or the plane
    rays = torch.nn.functional.normalize(cloud.points.double(), dim=1)
    origin, way = -(turned[:3, 3] @ turned[:3, :3]).double(), rays @ turned[:3, :3].double()
    near = ((-half * way.sign() - origin) / way).amax(1)
    far = ((half * way.sign() - origin) / way).amin(1)
    expected = torch.where((near < far) & (near > 0), near, torch.full_like(near, math.inf))
    floor = torch.where(rays[:, 2] < 0, -1.7 / rays[:, 2], torch.full_like(near, math.inf))
    edge = (near - far).abs() < 1e-3
    assert ((cloud.points.double().norm(dim=1) - torch.minimum(expected, floor))[~edge].abs() < 1e-3).all()


def test_beams_with_their_own_origins():
    sensor = Sensor((-10.0, -20.0), 1.0, (0.2, 0.1), min_range=0.1, max_range=200.0, **EXACT)
    cloud = scan(plane(-1.7), sensor)
    first = cloud.attributes["beam"] == 0
    assert (cloud.points[:, 2] + 1.7).abs().max() < 1e-3
    across = cloud.points[:, :2].norm(dim=1)
    assert (across[first] - 1.9 / math.tan(math.radians(10))).abs().max() < 1e-3
    assert (across[~first] - 1.8 / math.tan(math.radians(20))).abs().max() < 1e-3


def test_pose_moves_the_sensor():
    scene = Scene().add("box", box((2.0, 2.0, 2.0)), shifted(10, 5, 1))
    pose = shifted(4, 5, 1, 0.5)
    cloud = scan(scene, SENSOR, pose)
    there = cloud.points @ pose[:3, :3].T + pose[:3, 3]
    assert len(cloud) > 50
    assert (there[:, 0] - 9).abs().max() < 1e-3


def test_scaled_instance_and_range_of_columns_equal_all_rays():
    """Casting only the block of rays that can hit gives the hits of all rays, at every bearing."""
    rays = SENSOR.directions(np.linspace(0, 0.01, SENSOR.num_beams))
    mesh = box((1.0, 1.0, 1.0))
    shape = Shape.of(mesh.vertices.numpy(), mesh.faces.numpy())
    rng = np.random.default_rng(0)
    for bearing in np.linspace(-math.pi, math.pi, 37):
        matrix = np.eye(4)
        matrix[:3, :3] = np.linalg.qr(rng.standard_normal((3, 3)))[0] * rng.uniform(0.5, 4, 3)
        matrix[:3, 3] = 5 * math.cos(bearing), 5 * math.sin(bearing), rng.uniform(-2, 1)
        placed = [Instance(shape, matrix)]
        origins = rng.uniform(-0.3, 0.3, SENSOR.num_beams).astype(np.float32)
        hits = cast(placed, rays, origins)
        each = np.repeat(origins, rays.shape[1])
        everything = cast_on(placed, rays.reshape(-1, 3), each, np.zeros_like(each))
        assert hits.alone[0] == np.isfinite(everything.distance).sum()
        np.testing.assert_allclose(hits.distance.ravel(), everything.distance, rtol=1e-6)
        np.testing.assert_allclose(hits.cosine.ravel(), everything.cosine, atol=1e-6)


def test_noise_has_its_standard_deviation_and_seeds_repeat():
    noisy = Sensor(SENSOR.elevations, 1.0, min_range=0.1, max_range=200.0, **{**EXACT, "range_noise": 0.05})
    wall = Mesh(
        torch.tensor([[5.0, -900, -900], [5, 900, -900], [5, 900, 900], [5, -900, 900]]), torch.tensor([[0, 1, 2], [0, 2, 3]])
    )
    first, second, other = scan(wall, noisy, seed=1), scan(wall, noisy, seed=1), scan(wall, noisy, seed=2)
    assert torch.equal(first.points, second.points)
    assert not torch.equal(first.points, other.points)
    distance = first.points.norm(dim=1)
    error = distance - 5 / (first.points[:, 0] / distance)
    assert abs(float(error.std()) - 0.05) < 0.003
    assert abs(float(error.mean())) < 0.003


def test_weak_returns_are_lost_with_distance_and_incidence():
    near = Sensor(SENSOR.elevations, 1.0, min_range=0.1, max_range=200.0, **{**EXACT, "reach": 20.0})
    cloud = scan(plane(-1.7), near)
    full = scan(plane(-1.7), SENSOR)
    far = full.points.norm(dim=1) > 60
    assert int(far.sum()) > 300
    assert int((cloud.points.norm(dim=1) > 60).sum()) < 0.2 * int(far.sum())
    assert int((cloud.points.norm(dim=1) < 8).sum()) > 0.95 * int((full.points.norm(dim=1) < 8).sum())


def test_glass_lets_pulses_pass():
    pane = Shape.of(
        np.array([[4.0, -9, -9], [4, 9, -9], [4, 9, 9], [4, -9, 9]]), np.array([[0, 1, 2], [0, 2, 3]]), INDEX["glass"]
    )
    back = Shape.of(np.array([[6.0, -9, -9], [6, 9, -9], [6, 9, 9], [6, -9, 9]]), np.array([[0, 1, 2], [0, 2, 3]]))
    from vision3d.render.lidar.returns import see_through

    rays = SENSOR.directions()[:, 150:210]
    placed = [Instance(pane, np.eye(4)), Instance(back, np.eye(4))]
    hits = cast(placed, rays, SENSOR.beam_origins)
    assert (hits.instance == 0).all()
    see_through(SENSOR, placed, rays, hits, np.random.default_rng(0))
    share = float((hits.instance == 1).mean())
    assert 0.6 < share < 0.8
    passed = hits.instance == 1
    np.testing.assert_allclose((rays[..., 0] * hits.distance)[passed], 6, atol=1e-3)


def test_rain_returns_before_the_surface_without_an_object():
    cloud = scan(plane(-1.7), SENSOR, errors=Errors(rain=0.05))
    owner = cloud.attributes["object"]
    assert int((owner == -1).sum()) > 100
    assert (cloud.points[owner == -1, 2] > -1.7).all()


@pytest.mark.parametrize("name", ["hdl64e", "hdl32e", "vlp16", "vls128"])
def test_sensors_of_the_package(name: str):
    sensor = Sensor.load(name)
    assert sensor.num_beams == {"hdl64e": 64, "hdl32e": 32, "vlp16": 16, "vls128": 128}[name]
    assert name in presets("lidar")
    rays = sensor.directions()
    np.testing.assert_allclose(np.linalg.norm(rays, axis=-1), 1, atol=1e-6)


@pytest.mark.parametrize(
    "change, message",
    [
        ({"elevations": ()}, "at least one"),
        ({"elevations": (0.0, 1.0)}, "decreasing"),
        ({"elevations": (95.0,)}, "above -90"),
        ({"origins": (0.1,)}, "one for each beam"),
        ({"azimuth_step": 0.0}, "azimuth_step"),
        ({"azimuth_step": 1e-9}, "rays"),
        ({"min_range": 300.0}, "max_range"),
        ({"range_noise": -1.0}, "range_noise"),
        ({"range_noise": math.nan}, "range_noise"),
        ({"reach": math.nan}, "not finite"),
        ({"intensity_scale": 0.0}, "intensity_scale"),
        ({"intensity_steps": 0}, "intensity_steps"),
    ],
)
def test_wrong_sensors(change: dict, message: str):
    with pytest.raises(ConfigError, match=message):
        Sensor(**{"elevations": (1.0, 0.0), "azimuth_step": 1.0, **change})


def test_wrong_input(monkeypatch: pytest.MonkeyPatch):
    with pytest.raises(MissingFileError, match="hdl64e"):
        Sensor.load("hdl65")
    with pytest.raises(InputError, match="no meshes"):
        scan(Scene(), SENSOR)
    with pytest.raises(InputError, match="singular"):
        scan(box((1, 1, 1)), SENSOR, torch.zeros(4, 4))
    with pytest.raises(InputError, match="not finite"):
        scan(Mesh(torch.full((3, 3), math.nan), torch.tensor([[0, 1, 2]])), SENSOR)
    monkeypatch.setitem(__import__("sys").modules, "embreex.rtcore_scene", None)
    with pytest.raises(MissingDependencyError, match=r"\[lidar\]"):
        scan(box((1, 1, 1)), SENSOR)


def test_hidden_rays_need_not_be_cast():
    """An instance whose hits alone are not counted gives the same nearest hits."""
    rays = SENSOR.directions(0.003)
    mesh = box((1.0, 1.0, 1.0))
    shape = Shape.of(mesh.vertices.numpy(), mesh.faces.numpy())
    rng = np.random.default_rng(1)
    matrices = []
    for _ in range(30):
        matrix = np.eye(4)
        matrix[:3, :3] = np.linalg.qr(rng.standard_normal((3, 3)))[0] * rng.uniform(0.3, 3, 3)
        matrix[:3, 3] = *rng.uniform(-8, 8, 2), rng.uniform(-2, 1)
        matrices.append(matrix)
    origins = rng.uniform(-0.3, 0.3, SENSOR.num_beams).astype(np.float32)
    counted = cast([Instance(shape, matrix) for matrix in matrices], rays, origins)
    fewer = cast([Instance(shape, matrix, is_counted=False) for matrix in matrices], rays, origins)
    np.testing.assert_array_equal(counted.distance, fewer.distance)
    np.testing.assert_array_equal(counted.instance, fewer.instance)
    assert fewer.alone.sum() < counted.alone.sum()
