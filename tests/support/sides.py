"""Pairs of implementations that must agree: the CUDA kernel bodies as loops on the CPU, the CPU kernels, the torch reference,
the CUDA kernels emulated on the CPU (`make check-cuda-races`), a device."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor

from tests.support import emulator
from tests.support.band import assert_close_outside_band, assert_same_gradients
from vision3d.core import native

Case = Callable[[dict[str, Tensor], str], tuple[Tensor, ...]]


@dataclass(frozen=True)
class Side:
    """One of two implementations that must agree."""

    backend: str
    dtype: torch.dtype
    device: str = "cpu"
    bodies: bool = False
    emulated: bool = False

    @contextmanager
    def chosen(self) -> Iterator[None]:
        if self.emulated:
            with emulator.used():
                yield
            return
        require = native.require
        if self.bodies:
            native.require = lambda: require().kernel_bodies
        try:
            yield
        finally:
            native.require = require

    def place(self, value: Tensor) -> Tensor:
        value = value.to(self.device)
        return value.to(self.dtype) if value.is_floating_point() else value

    def run(self, case: Case, inputs: dict[str, Tensor]) -> tuple[tuple[Tensor, ...], dict[str, Tensor]]:
        """Outputs of the case, and gradients of a weighted sum of its float outputs with fixed weights."""
        given = {name: self.place(value) for name, value in inputs.items()}
        leaves = {name: value.requires_grad_() for name, value in given.items() if value.is_floating_point()}
        generator = torch.Generator().manual_seed(3)
        with self.chosen():
            outputs = case(given, self.backend)
            weights = [torch.randn(output.shape, generator=generator, dtype=torch.float64) for output in outputs]
            loss = sum((a * self.place(w)).sum() for a, w in zip(outputs, weights) if a.requires_grad)
            grads = torch.autograd.grad(loss, list(leaves.values()), allow_unused=True)
        grads = {name: torch.zeros_like(leaf) if grad is None else grad for (name, leaf), grad in zip(leaves.items(), grads)}
        grads = {name: grad.detach().cpu() for name, grad in grads.items()}
        return tuple(output.detach().cpu() for output in outputs), grads


SIDES = {
    "float32": (Side("native", torch.float32, bodies=True), Side("native", torch.float32)),
    "float64": (Side("native", torch.float64), Side("reference", torch.float64)),
    "cuda-float32": (Side("native", torch.float32, device="cuda"), Side("native", torch.float32)),
    "cuda-float64": (Side("native", torch.float64, device="cuda"), Side("reference", torch.float64)),
}
if emulator.is_built():
    SIDES |= {
        "emulated-float32": (Side("native", torch.float32, emulated=True), Side("native", torch.float32)),
        "emulated-float64": (Side("native", torch.float64, emulated=True), Side("reference", torch.float64)),
    }


def assert_same(case: Case, inputs: dict[str, Tensor], sides: tuple[Side, Side], *, atol: float = 1e-5) -> None:
    """Outputs and gradients agree within the precision: `atol` in float32, much better in float64."""
    (got, got_grads), (want, want_grads) = (side.run(case, inputs) for side in sides)
    assert len(got) == len(want)
    assert any(grad.any() for grad in want_grads.values())
    exact = sides[0].dtype == torch.float64
    for i, (a, b) in enumerate(zip(got, want)):
        if not b.is_floating_point():
            assert torch.equal(a, b), f"output {i}"
        elif exact:
            torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9, msg=lambda text, i=i: f"output {i}: {text}")
        else:
            scale = float(b.abs().max().clamp(min=1)) if b.numel() else 1.0
            assert_close_outside_band(a / scale, b / scale, atol=atol, what=f"output {i}")
    for name, want_grad in want_grads.items():
        if exact:
            scale = float(want_grad.abs().max().clamp(min=1)) if want_grad.numel() else 1.0
            torch.testing.assert_close(
                got_grads[name], want_grad, rtol=1e-8, atol=1e-9 * scale, msg=lambda text, name=name: f"{name}: {text}"
            )
    assert_same_gradients(got_grads, want_grads)
