"""The up axis of things without cameras."""

import pytest
import torch

from tests.support.scenes import ring_scene
from vision3d.geometry import shapes
from vision3d.scene import Boxes, FrameSequence, Mesh, MeshGaussians, PointCloud, Scene, SkinnedMesh
from vision3d.scene.upright import axis_vector, up_by_convention

MESH = Mesh(*shapes.icosphere(0))
CLOUD = PointCloud(torch.rand(3, 3))
SKIN = SkinnedMesh.from_frames(MESH, MESH.vertices[None].repeat(2, 1, 1), [0.0, 1.0])
FRAMES = FrameSequence(CLOUD, torch.tensor([0.0, 1.0]), {"points": torch.rand(2, 3, 3)})


@pytest.mark.parametrize(
    "value, suffix, want",
    [
        *((ring_scene(5), suffix, "-y") for suffix in (".ply", ".spz", ".sog", ".glb", ".json", "")),
        *((MESH, suffix, "y") for suffix in (".glb", ".gltf", ".obj", "")),
        *((MESH, suffix, "z") for suffix in (".stl", ".PLY")),
        (SKIN, ".glb", "y"),
        (CLOUD, ".ply", "z"),
        (FRAMES, ".zarr", "z"),
        (FRAMES, ".bvh", "y"),
        (Boxes(torch.ones(1, 7)), ".json", "z"),
        (MeshGaussians.from_mesh(MESH), ".safetensors", "y"),
        (Scene().add("a", ring_scene(5)), "", "-y"),
        (Scene().add("a", ring_scene(5)).add("b", MESH), "", "y"),
        (Scene().add("a", MESH).add("b", Boxes(torch.ones(1, 7))), "", "z"),
        (Scene(), "", "z"),
    ],
)
def test_up_by_convention(value, suffix, want):
    assert up_by_convention(value, suffix) == want


def test_vectors_of_axes():
    assert axis_vector("-y").tolist() == [0, -1, 0] and axis_vector("z").tolist() == [0, 0, 1]
