"""The mesh kernels of the GPU, executed as loops on the CPU, against the CPU loops. Marked `gpu`: the same on a device."""

import pytest
import torch
from torch import Tensor

from tests.support import emulator
from tests.support.meshes import random_triangles, sphere
from tests.support.sides import Side, assert_same
from vision3d.core import native
from vision3d.render.meshes import Fragments, antialias, interpolate, rasterize, texture

pytestmark = pytest.mark.skipif(native.module() is None, reason="the native module is not built")
PLAIN = {"float32": torch.float32, "float64": torch.float64}
SIDES = {f"bodies-{name}": (Side("native", dtype, bodies=True), Side("native", dtype)) for name, dtype in PLAIN.items()}
SIDES |= {f"cuda-{name}": (Side("native", dtype, device="cuda"), Side("native", dtype)) for name, dtype in PLAIN.items()}
if emulator.is_built():
    EMULATED = {name: Side("native", dtype, emulated=True) for name, dtype in PLAIN.items()}
    SIDES |= {f"emulated-{name}": (side, Side("native", side.dtype)) for name, side in EMULATED.items()}


@pytest.fixture(params=[pytest.param(name, marks=pytest.mark.gpu if "cuda" in name else ()) for name in SIDES])
def sides(request: pytest.FixtureRequest) -> tuple[Side, Side]:
    if "cuda" in request.param and not native.has_cuda():
        pytest.skip("the native module is built without CUDA")
    return SIDES[request.param]


def scene(name: str) -> tuple[Tensor, Tensor, int, int]:
    """Positions in float64 (exact in float32), faces, width, height."""
    if name == "sphere":  # faces drawn by a single thread
        positions, faces = sphere(70, 50, subdivisions=4)
        return positions.double(), faces, 70, 50
    if name == "triangles":  # boxes of every size, faces behind the camera, two images
        positions, faces = random_triangles(2, 300)
        return positions.double(), faces, 130, 90
    if name == "large":  # more faces in the queue than a block has threads
        positions, faces = random_triangles(1, 400, seed=2)
        return (positions * positions.new_tensor([4.0, 4.0, 1.0, 1.0])).double(), faces, 150, 110
    positions, faces = random_triangles(1, 3)
    return positions.double(), faces[:0], 5, 4


SCENES = ["sphere", "triangles", "large", "no faces"]


def drawn(name: str) -> tuple[dict[str, Tensor], tuple[Tensor, int, int]]:
    """Fragments of the reference, as input of the following operations."""
    positions, faces, width, height = scene(name)
    ids, weights, depths = rasterize(positions.float(), faces, width, height, near_plane=0.1, backend="native")
    inputs = {"positions": positions, "ids": ids, "weights": weights.double(), "depths": depths.double()}
    return inputs, (faces, width, height)


@pytest.mark.parametrize("name", SCENES)
def test_faces_of_pixels_are_bitwise_equal(sides, name):
    positions, faces, width, height = scene(name)
    results = []
    for side in sides:
        given = side.place(positions), side.place(faces)
        with side.chosen():
            found = rasterize(*given, width, height, near_plane=0.1, backend="native")
        results.append([value.cpu() for value in found])
    assert all(torch.equal(a, b) for a, b in zip(*results))
    assert (results[1][0] >= 0).any() == (name != "no faces")


def test_scenes_have_faces_of_every_size():
    """Boxes of at most 32 pixels, of up to 4096 and larger ones have different code paths on a GPU."""
    counts = torch.zeros(3, dtype=torch.int64)
    for name in SCENES[:3]:
        positions, faces, width, height = scene(name)
        pixels = positions[..., :2] / positions[..., 3:]
        corners, depths = pixels[0][faces], positions[0, :, 2][faces]
        limits = pixels.new_tensor([width, height])
        low, high = (torch.minimum(part.clamp(min=0), limits) for part in (corners.amin(1), corners.amax(1)))
        areas = (high - low).prod(1)[(depths > 0.1).all(1)]
        counts += torch.stack([((areas > 0) & (areas < 20)).sum(), ((areas > 50) & (areas < 3500)).sum(), (areas > 4500).sum()])
        assert name != "large" or counts[2] > 0
    assert (counts > 20).all()


@pytest.mark.parametrize("name", SCENES[:3])
def test_fragments(sides, name):
    positions, faces, width, height = scene(name)

    def case(given, backend):
        fragments = rasterize(given["positions"], faces.to(given["positions"].device), width, height, near_plane=0.1)
        return fragments.barycentrics, fragments.depths

    assert_same(case, {"positions": positions}, sides)


@pytest.mark.parametrize("name", SCENES[:3])
@pytest.mark.parametrize("sets", ["one", "each"])
def test_attributes(sides, name, sets):
    inputs, (faces, _, _) = drawn(name)
    images, vertices = inputs["positions"].shape[:2]
    attributes = torch.randn(*(() if sets == "one" else (images,)), vertices, 5, dtype=torch.float64)

    def case(given, backend):
        fragments = Fragments(given["ids"], given["weights"], given["depths"])
        return (interpolate(given["attributes"], faces.to(given["ids"].device), fragments, backend=backend),)

    assert_same(case, {**inputs, "attributes": attributes}, sides)


@pytest.mark.parametrize("levels", [False, True])
@pytest.mark.parametrize("wrap", ["repeat", "clamp"])
def test_textures(sides, levels, wrap):
    inputs = {"textures": torch.rand(2, 9, 6, 3).double(), "uvs": torch.rand(2, 17, 23, 2).double() * 3 - 1}
    inputs["uvs"][0, 0, 0] = torch.nan
    inputs["masks"] = torch.rand(2, 17, 23) < 0.8
    if levels:
        inputs["lods"] = torch.rand(2, 17, 23).double() * 4 - 0.5

    def case(given, backend):
        return (texture(given["textures"], given["uvs"], lods=given.get("lods"), masks=given["masks"], wrap=wrap),)

    assert_same(case, inputs, sides)


@pytest.mark.parametrize("name", SCENES[:3])
def test_silhouettes(sides, name):
    inputs, (faces, width, height) = drawn(name)
    inputs["colors"] = torch.rand(len(inputs["positions"]), height, width, 3, dtype=torch.float64)

    def case(given, backend):
        fragments = Fragments(given["ids"], given["weights"], given["depths"])
        where = given["ids"].device
        return (antialias(given["colors"], given["positions"], faces.to(where), fragments, backend=backend),)

    assert_same(case, inputs, sides)
