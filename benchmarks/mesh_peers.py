"""Other mesh renderers for bench_meshes.py, if their packages are installed. All use one thread.

`step()` renders an image and computes the gradients of a loss with respect to vertices and their colors; `forward()` only
renders.
"""

from typing import Any

import numpy as np
import torch

from vision3d import Mesh
from vision3d.geometry.cameras import camera_rays
from vision3d.geometry.se3 import inverse


class Deodr:
    """DEODR: perspective-affine colors, silhouettes drawn over the image (sigma 1), float64."""

    def __init__(self, mesh: Mesh, colors: torch.Tensor, viewmat: torch.Tensor, K: torch.Tensor, size: int) -> None:
        from deodr.differentiable_renderer import Camera, Scene3D
        from deodr.triangulated_mesh import ColoredTriMesh

        self.scene = Scene3D(sigma=1, integer_pixel_centers=False)
        vertices = mesh.vertices.double().numpy()
        shape = ColoredTriMesh(mesh.faces.numpy(), vertices, nb_colors=3, colors=colors.double().numpy(), clockwise=False)
        self.scene.set_mesh(shape)
        self.scene.set_light(None, 1.0)
        self.scene.set_background_color([0.0, 0.0, 0.0])
        self.camera = Camera(viewmat[:3].double().numpy(), K.double().numpy(), size, size, tol=1e-5)

    def forward(self) -> np.ndarray:
        return self.scene.render(self.camera)

    def step(self, target: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Gradients of the sum of squares with respect to vertices and colors."""
        image = self.forward()
        self.scene.clear_gradients()
        self.scene.render_backward(2 * (image - target))
        return self.scene.mesh._vertices_b, self.scene.mesh.vertices_colors_b

    def raster_step(self, target: np.ndarray) -> None:
        """Only DEODR's compiled part; projection and silhouettes are computed before."""
        flat = self.scene.scene_2d
        flat.clear_gradients()
        image, _ = flat.render(1)
        flat.render_backward(2 * (image - target))


class Open3d:
    """Open3D's ray casting (Embree), float32."""

    def __init__(self, mesh: Mesh, viewmat: torch.Tensor, K: torch.Tensor, size: int) -> None:
        import open3d

        self.scene = open3d.t.geometry.RaycastingScene(nthreads=1)
        faces = open3d.core.Tensor(mesh.faces.numpy().astype(np.uint32))
        self.scene.add_triangles(open3d.core.Tensor(mesh.vertices.numpy()), faces)
        origins, directions = camera_rays(inverse(viewmat), K, size, size)
        self.rays = open3d.core.Tensor(torch.cat([origins.expand_as(directions), directions], -1).numpy())
        self.forward()

    def forward(self) -> Any:
        return self.scene.cast_rays(self.rays, nthreads=1)


class Mitsuba:
    """Mitsuba 3 in its LLVM variant: first hits of one ray per pixel, one thread."""

    def __init__(self, mesh: Mesh, viewmat: torch.Tensor, K: torch.Tensor, size: int) -> None:
        import drjit
        import mitsuba

        mitsuba.set_variant("llvm_ad_rgb")
        drjit.set_thread_count(1)
        self.drjit, self.mitsuba = drjit, mitsuba
        shape = mitsuba.Mesh("mesh", mesh.num_vertices, mesh.num_faces)
        values = mitsuba.traverse(shape)
        values["vertex_positions"] = mesh.vertices.flatten().numpy()
        values["faces"] = mesh.faces.flatten().numpy().astype(np.uint32)
        values.update()
        self.scene = mitsuba.load_dict({"type": "scene", "mesh": shape})
        rays = [value.reshape(-1, 3).T.numpy() for value in camera_rays(inverse(viewmat), K, size, size)]
        self.rays = [mitsuba.Point3f(*rays[0]), mitsuba.Vector3f(*rays[1])]
        self.forward()

    def forward(self) -> Any:
        """Depths and faces of the first hits."""
        hits = self.scene.ray_intersect_preliminary(self.mitsuba.Ray3f(*self.rays), coherent=True)
        self.drjit.eval(hits.t, hits.prim_index)
        self.drjit.sync_thread()
        return hits
