"""Forward mode (dual numbers, torch.func.jvp): correct or rejected, never wrong or missing tangents."""

import pytest
import torch
from torch.autograd import forward_ad

from tests.support.gaussians import cameras, random_gaussians
from tests.support.geometry_cases import CASES
from vision3d import rasterize, rasterize_2dgs
from vision3d.core import native
from vision3d.core.errors import BackendError
from vision3d.geometry import se3
from vision3d.geometry.skinning import skin
from vision3d.optim.losses import ssim

REFUSED = ("covariance.covar_to_quat_scale",)


def duals(function, inputs, tangents):
    """Tangents of the outputs by dual numbers."""
    with forward_ad.dual_level():
        outputs = function(*(forward_ad.make_dual(x, t) for x, t in zip(inputs, tangents)))
        outputs = outputs if isinstance(outputs, tuple) else (outputs,)
        found = [forward_ad.unpack_dual(output).tangent for output in outputs]
    return [torch.zeros_like(y) if t is None else t for y, t in zip(outputs, found)]


def transform(function, inputs, tangents):
    """The same by torch.func.jvp."""
    found = torch.func.jvp(function, tuple(inputs), tuple(tangents))[1]
    return found if isinstance(found, tuple) else (found,)


def check_against_reverse_mode(function, inputs, how, tolerance=1e-9):
    """<v, J t> = <J^T v, t> for random v and t."""
    tangents = [torch.randn_like(value) for value in inputs]
    leaves = [value.clone().requires_grad_() for value in inputs]
    outputs = function(*leaves)
    outputs = outputs if isinstance(outputs, tuple) else (outputs,)
    cotangents = [torch.randn_like(output) for output in outputs]
    loss = sum((v * output).sum() for v, output in zip(cotangents, outputs))
    grads = torch.autograd.grad(loss, leaves, allow_unused=True)
    terms = [(grad * t).sum() for grad, t in zip(grads, tangents) if grad is not None]
    found = sum((v * t).sum() for v, t in zip(cotangents, how(function, inputs, tangents)))
    scale = 1 + sum(term.abs() for term in terms)
    torch.testing.assert_close(found / scale, sum(terms) / scale, atol=tolerance, rtol=0)


@pytest.mark.parametrize("how", [duals, transform])
@pytest.mark.parametrize("name", list(CASES))
def test_tangents_are_correct(name, how):
    case = CASES[name]
    inputs = case.inputs(3)
    if name in REFUSED:
        with pytest.raises(BackendError, match="has no forward-mode derivatives"):
            how(case, inputs, inputs)
    else:
        check_against_reverse_mode(case, inputs, how)


def test_tangents_are_correct_without_a_graph():
    x, t = torch.randn(2, 4, 6, dtype=torch.float64)
    with torch.no_grad():
        found = duals(se3.exp, [x], [t])[0]
    h = 1e-6
    torch.testing.assert_close(found, (se3.exp(x + h * t) - se3.exp(x - h * t)) / (2 * h), atol=1e-8, rtol=0)


@pytest.mark.parametrize("how", [duals, transform])
def test_skinning_has_tangents(how):
    vertices, weights = torch.randn(5, 3, dtype=torch.float64), torch.rand(5, 2, dtype=torch.float64)
    indices = torch.tensor([[0, 1]] * 5)

    def placed(vertices, weights, quats, translations):
        return skin(vertices, weights, indices, quats, translations, method="dqs")

    inputs = [vertices, weights, torch.randn(3, 2, 4, dtype=torch.float64), torch.randn(3, 2, 3, dtype=torch.float64)]
    check_against_reverse_mode(placed, inputs, how)


@pytest.mark.parametrize("how", [duals, transform])
def test_ssim_has_tangents(how):
    check_against_reverse_mode(ssim, list(torch.rand(2, 16, 16, 3, dtype=torch.float64)), how)


@pytest.mark.skipif(native.module() is None, reason="the native module is not built")
@pytest.mark.parametrize("how", [duals, transform])
@pytest.mark.parametrize("function", [rasterize, rasterize_2dgs])
def test_the_native_rasterizers_reject_forward_mode(function, how):
    g, (viewmats, Ks) = random_gaussians(8), cameras(1, 16, 16)

    def image(means):
        return function(**{**g, "means": means}, viewmats=viewmats, Ks=Ks, width=16, height=16, backend="native")[0]

    with pytest.raises(BackendError, match="has no forward-mode derivatives"):
        how(image, [g["means"]], [torch.ones_like(g["means"])])


def made_up(kind: str):
    if kind.startswith("Tensor") or kind.startswith("Optional[Tensor"):
        return torch.ones(2)
    if "List[Tensor" in kind:
        return [torch.ones(2)]
    if kind.startswith("List[int"):
        return [1, 1, 1]
    return {"int": 1, "SymInt": 1, "float": 1.0, "bool": True, "str": ""}[kind.removeprefix("Optional[").removesuffix("]")]


def ops():
    # The modules that define the operations.
    import vision3d.optim.adam
    import vision3d.render.meshes
    import vision3d.render.meshes.native_antialias
    import vision3d.render.meshes.native_drawing
    import vision3d.render.meshes.native_fragments
    import vision3d.render.meshes.native_textures
    import vision3d.stages.equivariant.kernels  # noqa: F401

    names = {schema.name.removeprefix("vision3d::") for schema in torch._C._jit_get_all_schemas()
             if schema.name.startswith("vision3d::")}  # fmt: skip
    assert len(names) > 25
    return sorted(names)


@pytest.mark.parametrize("name", ops())
def test_every_native_operation_rejects_tangents(name):
    op = getattr(torch.ops.vision3d, name).default
    arguments = [made_up(str(argument.type)) for argument in op._schema.arguments]
    places = [i for i, value in enumerate(arguments) if torch.is_tensor(value)]

    def call(*tensors):
        given = dict(zip(places, tensors))
        return op(*(given.get(i, value) for i, value in enumerate(arguments)))

    tensors = [arguments[i] for i in places]
    for how in (duals, transform):
        for enabled in (True, False):
            with torch.set_grad_enabled(enabled), pytest.raises(BackendError, match=f"{name}: has no forward-mode"):
                how(call, tensors, tensors)
