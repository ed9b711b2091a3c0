"""Compares the exchange with PyTorch3D's Python code and prints the largest errors as JSON. See test_with_others.py."""

import importlib.machinery
import json
import sys
from dataclasses import replace
from unittest.mock import MagicMock

import torch

# Its compiled module cannot be loaded without CUDA; nothing of it is called here.
stub = MagicMock()
stub.__spec__ = importlib.machinery.ModuleSpec("pytorch3d._C", None)
sys.modules["pytorch3d._C"] = stub

from pytorch3d.renderer.cameras import PerspectiveCameras  # noqa: E402
from pytorch3d.renderer.mesh.textures import TexturesUV  # noqa: E402
from pytorch3d.structures import Meshes  # noqa: E402

from tests.support.scenes import ring_cameras  # noqa: E402
from vision3d.interop import from_pytorch3d, to_pytorch3d  # noqa: E402
from vision3d.scene import Mesh  # noqa: E402

torch.manual_seed(0)
NAMES = ("vertices", "faces", "uvs", "normals", "texture", "vertex_colors")


def is_same(a, b):
    pairs = [(getattr(a, name), getattr(b, name)) for name in NAMES]
    return all((left is None) == (right is None) and (left is None or torch.equal(left, right)) for left, right in pairs)


def main() -> None:
    errors, exact = {}, {}
    for width, height in ((48, 36), (36, 48)):
        cameras = replace(ring_cameras(5, width, height), names=None)
        cameras.Ks[:, 0, 2] += 3
        cameras.Ks[:, 1, 1] *= 1.1
        points = torch.rand(5, 20, 3) - 0.5
        x = points @ cameras.viewmats[:, :3, :3].mT + cameras.viewmats[:, None, :3, 3]
        depth = x[..., 2]
        pixels = (x @ cameras.Ks.mT)[..., :2] / depth[..., None]
        for space in ("screen", "ndc"):
            made = to_pytorch3d(cameras, space=space)
            assert isinstance(made, PerspectiveCameras) and made.in_ndc() == (space == "ndc")
            theirs = made.transform_points_screen(points)
            # In units of the image width, as for pixels.
            errors[f"projection, {space} {width}x{height}"] = float((theirs[..., :2] - pixels).abs().max()) / width
            view = made.get_world_to_view_transform().transform_points(points)
            errors[f"depth, {space} {width}x{height}"] = float((view[..., 2] - depth).abs().max())
            errors[f"left and up, {space} {width}x{height}"] = float((view[..., :2] + x[..., :2]).abs().max())
            again = from_pytorch3d(made)
            for name in ("viewmats", "Ks"):
                error = float((getattr(again, name) - getattr(cameras, name)).abs().max())
                errors[f"back, {name}, {space} {width}x{height}"] = error / (width if name == "Ks" else 1)
            assert torch.equal(again.width, cameras.width) and torch.equal(again.height, cameras.height)
            if space == "screen":
                same = all(torch.equal(getattr(again, name), getattr(cameras, name)) for name in ("viewmats", "Ks"))
                exact["screen"] = exact.get("screen", True) and same

    faces = torch.tensor([[0, 1, 2], [2, 1, 3], [3, 0, 2]])
    one = Mesh(torch.randn(4, 3), faces, torch.randint(0, 9, (4, 2)) / 8, torch.randn(4, 3), torch.rand(4, 6, 3))
    two = Mesh(torch.randn(3, 3), faces[:1], torch.randint(0, 9, (3, 2)) / 8, torch.randn(3, 3), torch.rand(4, 6, 3))
    made = to_pytorch3d([one, two])
    assert isinstance(made, Meshes) and len(made) == 2 and isinstance(made.textures, TexturesUV)
    assert torch.equal(made.verts_packed(), torch.cat([one.vertices, two.vertices]))
    exact["meshes"] = all(is_same(a, b) for a, b in zip(from_pytorch3d(made), (one, two)))
    seams = replace(one, uvs=torch.randint(0, 9, (3, 3, 2)) / 8)
    exact["uvs by corner"] = is_same(from_pytorch3d(to_pytorch3d(seams))[0], seams)
    colored = replace(one, uvs=None, texture=None, normals=None, vertex_colors=torch.rand(4, 3))
    exact["colours"] = is_same(from_pytorch3d(to_pytorch3d(colored))[0], colored)
    rows, columns = torch.tensor([0, 1, 3, 2]), torch.tensor([0, 4, 5, 2])
    centers = torch.stack([(columns + 0.5) / 6, (rows + 0.5) / 4], 1)
    sampled = to_pytorch3d(replace(one, uvs=centers)).textures.faces_verts_textures_packed()
    errors["its sampling at centres of pixels"] = float((sampled - one.texture[rows, columns][one.faces]).abs().max())
    corners = TexturesUV([one.texture], [one.faces], [torch.rand(4, 2)], align_corners=True)
    again = from_pytorch3d(Meshes([one.vertices], [one.faces], corners))[0]
    sampled = to_pytorch3d(again).textures.faces_verts_textures_packed()
    errors["its sampling with align_corners"] = float((sampled - corners.faces_verts_textures_packed()).abs().max())
    sys.stdout.write(json.dumps({"exact": exact, **errors}) + "\n")


main()
