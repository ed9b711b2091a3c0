"""Every public function names a wrong shape or type, and accepts empty batches."""

from inspect import unwrap  # bypasses the runtime type checks of the tests

import pytest
import torch

from vision3d.core.errors import ShapeError
from vision3d.geometry import (
    cameras,
    covariance,
    distortion,
    paths,
    quaternion,
    rotation,
    se3,
    spherical_harmonics as sph,
    triangles,
)

ENTRANCES = [
    (quaternion.quat_to_rotmat, [("quats", (4,))]),
    (quaternion.normalize, [("quats", (4,))]),
    (quaternion.conjugate, [("quats", (4,))]),
    (quaternion.multiply, [("left", (4,)), ("right", (4,))]),
    (quaternion.rotate, [("quats", (4,)), ("points", (3,))]),
    (quaternion.rotmat_to_quat, [("rotmats", (3, 3))]),
    (quaternion.wxyz_to_xyzw, [("quats", (4,))]),
    (quaternion.xyzw_to_wxyz, [("quats", (4,))]),
    (rotation.hat, [("vectors", (3,))]),
    (rotation.vee, [("matrices", (3, 3))]),
    (rotation.so3_exp, [("rotvecs", (3,))]),
    (rotation.so3_log, [("rotmats", (3, 3))]),
    (rotation.rotvec_to_quat, [("rotvecs", (3,))]),
    (rotation.quat_to_rotvec, [("quats", (4,))]),
    (rotation.geodesic_distance, [("rotmats", (3, 3)), ("others", (3, 3))]),
    (rotation.from_6d, [("values", (6,))]),
    (rotation.to_6d, [("rotmats", (3, 3))]),
    (rotation.nearest_rotation, [("matrices", (3, 3))]),
    (se3.exp, [("tangents", (6,))]),
    (se3.log, [("matrices", (4, 4))]),
    (se3.inverse, [("matrices", (4, 4))]),
    (se3.transform_points, [("matrices", (4, 4)), ("points", (7, 3))]),
    (se3.adjoint, [("matrices", (4, 4))]),
    (se3.split_similarity, [("matrices", (4, 4))]),
    (cameras.project, [("points_cam", (7, 3)), ("Ks", (3, 3))]),
    (cameras.pixel_rays, [("pixels", (7, 2)), ("Ks", (3, 3))]),
    (cameras.camera_centers, [("viewmats", (4, 4))]),
    (cameras.opengl_to_opencv, [("camtoworlds", (4, 4))]),
    (cameras.look_at, [("eye", (3,)), ("target", (3,)), ("up", (3,))]),
    (distortion.distort, [("plane", (7, 2)), ("distortion", (4,))]),
    (distortion.undistort, [("distorted", (7, 2)), ("distortion", (4,))]),
    (triangles.gaussians_to_edges, [("quats", (4,)), ("scales", (3,))]),
    (triangles.edges_to_gaussians, [("edges", (3, 2))]),
    (triangles.edges_to_covars, [("edges", (3, 2))]),
    (triangles.edges_to_vertices, [("means", (3,)), ("edges", (3, 2))]),
    (triangles.vertices_to_edges, [("vertices", (3, 3))]),
    (covariance.quat_scale_to_covar, [("quats", (4,)), ("scales", (3,))]),
    (covariance.covar_to_quat_scale, [("covars", (3, 3))]),
    (covariance.symmetric_to_vec6, [("matrices", (3, 3))]),
    (covariance.vec6_to_symmetric, [("values", (6,))]),
    (paths.mean_up, [("camtoworlds", (4, 4))]),
]
EMPTY = [
    *ENTRANCES[:-1],
    (sph.rotate_sh, [("sh", (9, 3)), ("rotmats", (3, 3))]),
    (sph.eval_sh, [("sh", (9, 3)), ("directions", (3,))]),
]


@pytest.mark.parametrize(("function", "arguments"), ENTRANCES, ids=lambda x: getattr(x, "__name__", ""))
def test_wrong_shapes_and_types_are_named(function, arguments):
    for wrong, (name, shape) in enumerate(arguments):
        tensors = [torch.rand(2, *shape) for _, shape in arguments]
        tensors[wrong] = torch.rand(2, *shape[:-1], shape[-1] + 3)
        with pytest.raises(ShapeError, match=f"{name}: got "):
            unwrap(function)(*tensors)
    if len(arguments) == 1:
        name, shape = arguments[0]
        with pytest.raises(ShapeError, match=f"{name}: got torch.int64, want torch.float32 or torch.float64"):
            unwrap(function)(torch.ones(2, *shape, dtype=torch.int64))


@pytest.mark.parametrize(("function", "arguments"), EMPTY, ids=lambda x: getattr(x, "__name__", ""))
def test_empty_batches(function, arguments):
    results = function(*[torch.zeros(0, *shape) for _, shape in arguments])
    for result in results if isinstance(results, tuple) else (results,):
        assert result.shape[0] == 0
