"""Adam for the rows of a Gaussian scene: fused native kernel, with moments that follow every row."""

from collections.abc import Mapping

import torch
from jaxtyping import Bool, Float, Integer
from torch import Tensor

from vision3d.core import native
from vision3d.core.errors import ConfigError, InputError, ShapeError
from vision3d.core.op_checks import checked
from vision3d.optim.reference import adam as reference

Rows = Bool[Tensor, " n"] | Integer[Tensor, " k"]


class SplatAdam:
    """Adam (Kingma and Ba 2015) over named tensors that share their first axis, one row per Gaussian.

    Like `torch.optim.Adam` with one group per tensor, but rows can be kept, appended, replaced and reset, including moments.
    These operations replace the entries of `params` by new leaf tensors, so keep the dict and not its tensors. The step count
    belongs to the group: rows added later start with zero moments and the group's bias correction.

    Args:
        params: Leaf tensors (N, ...) by name; the optimizer stores this dict itself.
        learning_rates: One learning rate per name; change `optimizer.learning_rates[name]` to schedule it.
        betas: Decay of the two moments, in [0, 1).
        eps: Added to the root of the second moment. 1e-15 since gradients of small Gaussians are tiny.

    Raises:
        ConfigError: The names differ, or a number is out of range.
        ShapeError: The tensors have different first axes.

    Example:
        >>> params = {"means": torch.zeros(5, 3, requires_grad=True)}
        >>> optimizer = SplatAdam(params, {"means": 0.1})
        >>> params["means"].sum().backward()
        >>> optimizer.step()
        >>> optimizer.keep(torch.tensor([0, 1]))
        >>> params["means"].detach()
        tensor([[-0.1000, -0.1000, -0.1000],
                [-0.1000, -0.1000, -0.1000]])
    """

    def __init__(
        self,
        params: dict[str, Tensor],
        learning_rates: Mapping[str, float],
        *,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-15,
    ) -> None:
        if set(params) != set(learning_rates):
            raise ConfigError("learning_rates", f"got {sorted(learning_rates)}, want one for each of {sorted(params)}")
        if not all(0 <= beta < 1 for beta in betas):
            raise ConfigError("betas", f"got {betas}, want two numbers in [0, 1)")
        if eps < 0:
            raise ConfigError("eps", f"got {eps}, want a number >= 0")
        self.params = params
        self.learning_rates = dict(learning_rates)
        self.betas = betas
        self.eps = eps
        self._check_rows()
        for name in params:
            self._set(name, params[name].detach())
        self.steps = dict.fromkeys(params, 0)
        self.exp_avgs = {name: torch.zeros_like(p) for name, p in params.items()}
        self.exp_avg_sqs = {name: torch.zeros_like(p) for name, p in params.items()}

    @property
    def num_rows(self) -> int:
        """Number of Gaussians."""
        return len(next(iter(self.params.values())))

    def zero_grad(self) -> None:
        """Drop all gradients."""
        for param in self.params.values():
            param.grad = None

    @torch.no_grad()
    def step(self, visible: Bool[Tensor, " n"] | None = None) -> None:
        """One step of every group that has a gradient.

        Args:
            visible: Rows to update, with their moments; the others do not change (selective Adam, for scenes of which a step
                sees only a small part). None updates all rows, like `torch.optim.Adam`.

        Raises:
            ShapeError: `visible` is not one bool per row, or a gradient does not have its parameter's shape.
        """
        if visible is not None and (visible.dtype != torch.bool or visible.shape != (self.num_rows,)):
            raise ShapeError("visible", f"{visible.dtype} of shape {tuple(visible.shape)}", f"bool of {(self.num_rows,)}")
        for name, param in self.params.items():
            if param.grad is None:
                continue
            grad = param.grad.to_dense() if param.grad.is_sparse else param.grad
            self.steps[name] += 1
            state = param, grad, self.exp_avgs[name], self.exp_avg_sqs[name]
            options = visible, self.learning_rates[name], *self.betas, self.eps, self.steps[name]
            if _runs_native(param):
                native.in_place(_adam_step, (state[0], *state[2:]), *state, *options)
            else:
                reference.adam_step(*state, *options)

    def uncount(self) -> None:
        """Undo the count of a `step` in which no row was visible."""
        for name in self.steps:
            self.steps[name] -= 1

    def nonfinite_group(self) -> str | None:
        """Name of the first group whose gradient has a NaN or an infinity, or None."""
        for name, param in self.params.items():
            if param.grad is not None and not _all_finite(param.grad):
                return name
        return None

    @torch.no_grad()
    def keep(self, rows: Rows) -> None:
        """Keep only these rows, in the given order.

        Args:
            rows: Mask of the rows, or their indices.
        """
        rows = self._index(rows)
        for name, param in self.params.items():
            self._set(name, param.detach()[rows])
            self.exp_avgs[name] = self.exp_avgs[name][rows]
            self.exp_avg_sqs[name] = self.exp_avg_sqs[name][rows]

    @torch.no_grad()
    def append(self, rows: Mapping[str, Float[Tensor, "k ..."]]) -> None:
        """Add rows at the end, with zero moments.

        Raises:
            ShapeError: A group is missing, or its row shape or count differs from the others.
        """
        if set(rows) != set(self.params):
            raise ShapeError("rows", f"groups {sorted(rows)}", f"groups {sorted(self.params)}")
        count = len(next(iter(rows.values())))
        for name, param in self.params.items():
            if rows[name].shape != (count, *param.shape[1:]):
                raise ShapeError(f"rows[{name!r}]", rows[name].shape, (count, *param.shape[1:]))
        for name, param in self.params.items():
            new = rows[name].to(param)
            self._set(name, torch.cat([param.detach(), new]))
            for moments in (self.exp_avgs, self.exp_avg_sqs):
                moments[name] = torch.cat([moments[name], torch.zeros_like(new)])

    @torch.no_grad()
    def reset(self, rows: Rows | None = None, groups: tuple[str, ...] | None = None) -> None:
        """Zero the moments of these rows (None: all) in these groups (None: all).

        Raises:
            InputError: A group has no such name.
        """
        unknown = set(groups or ()) - set(self.params)
        if unknown:
            raise InputError(f"groups: {sorted(unknown)} unknown; valid: {sorted(self.params)}")
        where = slice(None) if rows is None else self._index(rows)
        for name in groups or tuple(self.params):
            self.exp_avgs[name][where] = 0
            self.exp_avg_sqs[name][where] = 0

    def state_dict(self) -> dict[str, Tensor]:
        """Step counts and moments as `<group>.step`, `<group>.exp_avg`, `<group>.exp_avg_sq`."""
        state = {f"{name}.step": torch.tensor(step) for name, step in self.steps.items()}
        state |= {f"{name}.exp_avg": moments.clone() for name, moments in self.exp_avgs.items()}
        return state | {f"{name}.exp_avg_sq": moments.clone() for name, moments in self.exp_avg_sqs.items()}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Load the result of `state_dict` for parameters of the same shapes.

        Raises:
            InputError: The groups differ.
            ShapeError: A tensor does not match its parameter.
        """
        want = {f"{name}.{part}" for name in self.params for part in ("step", "exp_avg", "exp_avg_sq")}
        if set(state) != want:
            raise InputError(f"optimizer state: unexpected or missing entries {sorted(want ^ set(state))}")
        for name, param in self.params.items():
            for part in ("exp_avg", "exp_avg_sq"):
                if state[f"{name}.{part}"].shape != param.shape:
                    raise ShapeError(f"{name}.{part}", state[f"{name}.{part}"].shape, tuple(param.shape))
        for name, param in self.params.items():
            self.steps[name] = int(state[f"{name}.step"])
            self.exp_avgs[name] = state[f"{name}.exp_avg"].to(param, copy=True)
            self.exp_avg_sqs[name] = state[f"{name}.exp_avg_sq"].to(param, copy=True)

    def _set(self, name: str, values: Tensor) -> None:
        self.params[name] = values.contiguous().requires_grad_()

    def _index(self, rows: Tensor) -> Tensor:
        if rows.dtype == torch.bool and rows.shape != (self.num_rows,):
            raise ShapeError("rows", rows.shape, (self.num_rows,))
        return rows

    def _check_rows(self) -> None:
        counts = {name: len(param) for name, param in self.params.items()}
        if len(set(counts.values())) > 1:
            raise ShapeError("params", f"row counts {counts}", "the same first axis in every group")


def _runs_native(param: Tensor) -> bool:
    return param.dtype in (torch.float32, torch.float64) and native.runs_on(param)


def _all_finite(grad: Tensor) -> bool:
    grad = grad.coalesce().values() if grad.is_sparse else grad
    if grad.device.type == "cpu" and grad.dtype == torch.float32 and grad.is_contiguous() and _runs_native(grad):
        return native.require().all_finite(grad.detach().view(-1))
    return bool(torch.isfinite(grad).all())


@native.custom_op("adam_step", mutates_args=("param", "exp_avg", "exp_avg_sq"))
@checked("param: float *s, grad: float *s, exp_avg: float *s, exp_avg_sq: float *s, visible: bool? n")
def _adam_step(
    param: Tensor,
    grad: Tensor,
    exp_avg: Tensor,
    exp_avg_sq: Tensor,
    visible: Tensor | None,
    learning_rate: float,
    beta1: float,
    beta2: float,
    eps: float,
    step: int,
) -> None:
    if param.dim() == 0:
        raise ShapeError("param", param.shape, "at least one axis")
    if visible is not None and len(visible) != len(param):
        raise ShapeError("visible", visible.shape, (len(param),))
    rows, size = len(param), param[:1].numel()
    state = (tensor.detach().view(rows, size) for tensor in (param, grad.contiguous(), exp_avg, exp_avg_sq))
    native.require().adam_step(*state, visible, learning_rate, beta1, beta2, eps, step, **native.where(param))
