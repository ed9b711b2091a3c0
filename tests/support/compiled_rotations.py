"""The functions of the geometry core under torch.compile: one graph each, with the same values and gradients.

A separate program, as the compiler cannot read the runtime type checks of the tests. Prints failures.
`python compiled_rotations.py PART OF` checks one of OF parts of the table.
"""

import sys
import warnings

import torch

from vision3d.geometry import (
    conventions,
    dual_quaternion,
    euler,
    gram_schmidt,
    interpolation,
    means,
    procrustes,
    quaternion,
    registration,
    representations,
    rotation,
    spectral,
)
from vision3d.geometry.groups import linear, se3, sim3, so2, so3, son, spd

SOME = ("6d", "6d_symmetric", "5d", "9d_svd", "quat", "10d", "axis_angle4", "rotvec", "gibbs", "mrp", "hopf", "euler_sin_cos")
HALF = torch.tensor([0.4, 0.7], dtype=torch.float64)


def numbers(*shape):
    return torch.randn(*shape, dtype=torch.float64)


def haar(n=3, *shape):
    return gram_schmidt.haar_rotmats(n, *(shape or (2,)), dtype=torch.float64)


def spd_matrices(n):
    return spd.exp(numbers(2, n, n))


CASES = {
    **{f"from {name}": (found.to_rotmat, lambda d=found.dimension: (numbers(2, d),))
       for name, found in representations.REPRESENTATIONS.items() if name in SOME},
    **{f"to {name}": (found.from_rotmat, lambda: (haar(),))
       for name, found in representations.REPRESENTATIONS.items() if name in SOME},
    "by name": (lambda v: representations.to_rotmat(v, "5d"), lambda: (numbers(2, 5),)),
    "euler": (lambda a: euler.rotmat_to_euler(euler.euler_to_rotmat(a, "ZXY"), "yxy"), lambda: (numbers(2, 3),)),
    "columns": (lambda v: gram_schmidt.from_columns(v, 4), lambda: (numbers(2, 12),)),
    "stereographic": (lambda v: gram_schmidt.from_stereographic(v, 4), lambda: (numbers(2, 10),)),
    "similarity head": (gram_schmidt.similarity_from_columns, lambda: (numbers(2, 6), numbers(2, 3))),
    "nearest 2": (procrustes.special_orthogonal, lambda: (numbers(2, 2, 2),)),
    "nearest 5": (procrustes.special_orthogonal, lambda: (numbers(2, 5, 5),)),
    "orthogonal": (procrustes.orthogonal, lambda: (numbers(2, 4, 4),)),
    "geodesic": (rotation.geodesic_distance, lambda: (haar(), haar())),
    "rotate": (quaternion.rotate, lambda: (numbers(2, 4), numbers(2, 3))),
    "slerp": (quaternion.slerp, lambda: (numbers(2, 4), numbers(2, 4), HALF)),
    "squad": (interpolation.squad, lambda: (numbers(5, 4), 4 * torch.rand(3, dtype=torch.float64))),
    "screw": (lambda x, y: interpolation.se3_interpolate(se3.exp(x), se3.exp(y), 0.3), lambda: (numbers(2, 6), numbers(2, 6))),
    "spiral": (lambda x, y: interpolation.sim3_interpolate(sim3.exp(x), sim3.exp(y), 0.3),
               lambda: (numbers(2, 7), numbers(2, 7))),
    "chordal mean": (means.chordal_mean, lambda: (haar(3, 2, 4), torch.rand(2, 4, dtype=torch.float64))),
    "karcher mean": (lambda r: means.karcher_mean(r, steps=3), lambda: (haar(3, 2, 4),)),
    "quaternion mean": (means.quaternion_mean, lambda: (numbers(2, 4, 4),)),
    "umeyama": (lambda x, y: torch.cat([t.flatten() for t in registration.umeyama(x, y)]),
                lambda: (numbers(2, 6, 3), numbers(2, 6, 3))),
    "blend": (lambda d, w, p: dual_quaternion.transform_points(dual_quaternion.blend(d, w), p),
              lambda: (numbers(2, 3, 8), torch.rand(2, 3, dtype=torch.float64), numbers(2, 3))),
    "sclerp": (lambda a, b: dual_quaternion.sclerp(a, b, 0.3), lambda: (numbers(2, 8), numbers(2, 8))),
    "axes": (conventions.change_axes, lambda: (haar(), torch.eye(3, dtype=torch.float64)[[0, 2, 1]])),
    "so2": (lambda a: so2.log(so2.exp(a)), lambda: (numbers(3),)),
    "so3 jacobian": (so3.left_jacobian_inverse, lambda: (numbers(2, 3),)),
    "son": (lambda s: son.log(son.exp(s / 4)), lambda: (numbers(2, 4, 4),)),
    "se3": (lambda x: se3.log(se3.exp(x)), lambda: (numbers(2, 6),)),
    "se3 jacobian": (se3.left_jacobian_inverse, lambda: (numbers(2, 6),)),
    "sim3": (lambda x: sim3.log(sim3.exp(x)), lambda: (numbers(2, 7),)),
    "sim3 jacobian": (sim3.left_jacobian, lambda: (numbers(2, 7),)),
    "gl2": (lambda v: linear.coordinates(linear.from_coordinates(v, 2)), lambda: (numbers(2, 4),)),
    "sl3": (lambda v: linear.coordinates(linear.from_coordinates(v, 3, "sl"), "sl"), lambda: (numbers(2, 8) / 2,)),
    "spd 2": (lambda m: spd.log(m) + spd.sqrt(m), lambda: (spd_matrices(2),)),
    "spd 3": (lambda m: spd.log(m) + spd.sqrt(m), lambda: (spd_matrices(3),)),
    "lyapunov": (spectral.lyapunov, lambda: (spd_matrices(3), numbers(2, 3, 3))),
}  # fmt: skip


TRANSFORMED = ("6d", "5d", "rotvec", "quat")  # no 9d_svd, 10d: torch 2.13 cannot vmap an autograd.Function inside a graph


def check(name: str) -> None:
    """Fails if the compiled function has another value or gradient."""
    function, make = CASES[name]
    inputs = make()

    def run(call):
        leaves = [value.clone().requires_grad_() for value in inputs]
        output = call(*leaves)
        return output, torch.autograd.grad(output.sin().sum(), leaves)

    torch.compiler.reset()
    torch.testing.assert_close(run(torch.compile(function, backend="aot_eager", fullgraph=True)), run(function))


def check_transformed(name: str) -> None:
    """The same for Jacobians by vmap and jacrev."""
    maps = representations.REPRESENTATIONS[name]
    values = numbers(3, maps.dimension)

    def jacobians(x):
        return torch.vmap(torch.func.jacrev(maps.to_rotmat))(x)

    torch.compiler.reset()
    torch.testing.assert_close(torch.compile(jacobians, backend="aot_eager", fullgraph=True)(values), jacobians(values))


def main(part: int = 0, of: int = 1) -> int:
    torch.manual_seed(0)
    warnings.simplefilter("ignore")
    failed = 0
    checks = [*((check, name) for name in CASES), *((check_transformed, name) for name in TRANSFORMED)][part::of]
    for run, name in checks:
        try:
            run(name)
        except Exception as error:  # all failures are printed
            failed += 1
            sys.stdout.write(f"{run.__name__}({name!r}): {type(error).__name__}: {error}"[:600] + "\n")
    sys.stdout.write(f"{len(checks) - failed} of {len(checks)} right\n")
    return failed


if __name__ == "__main__":
    sys.exit(main(*map(int, sys.argv[1:])))
