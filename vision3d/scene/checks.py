"""Checks of shapes, dtypes and values shared by the scene types, and their tables for notebooks."""

import base64
import html
import io
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from vision3d.core.errors import DeviceError, InputError, ShapeError


def check_shape(name: str, value: object, want: Sequence[int | str], *, kind: str = "float") -> None:
    """Raise a ShapeError unless `value` is a tensor of shape `want` (strings match any size) and of this kind of dtype."""
    if not isinstance(value, Tensor):
        raise ShapeError(name, type(value).__name__, f"a {kind} tensor of shape {_shape(want)}")
    if value.ndim != len(want) or any(isinstance(w, int) and w != s for w, s in zip(want, value.shape)):
        raise ShapeError(name, tuple(value.shape), f"shape {_shape(want)}")
    is_right = {
        "float": value.dtype in (torch.float32, torch.float64),
        "int64": value.dtype == torch.int64,
        "bool": value.dtype == torch.bool,
    }
    if not is_right[kind]:
        raise ShapeError(name, f"dtype {value.dtype}", "float32 or float64" if kind == "float" else f"dtype torch.{kind}")


def check_device(owner: str, tensors: dict[str, Tensor | None]) -> None:
    """Raise a DeviceError unless all tensors are on one device."""
    devices = {name: value.device for name, value in tensors.items() if value is not None}
    if len(set(devices.values())) > 1:
        raise DeviceError(f"{owner}: {', '.join(f'{n} on {d}' for n, d in devices.items())}; want one device")


def check_finite(owner: str, name: str, value: Tensor) -> None:
    """Raise an InputError with the number of rows of `value` that contain NaN or infinity."""
    if bool(torch.isfinite(value.detach().sum())):  # fast path; the sum can also overflow
        return
    is_bad = ~torch.isfinite(value.detach()).reshape(len(value), -1).all(-1)
    if bool(is_bad.any()):
        raise InputError(
            f"{owner}: {name} is not finite in {int(is_bad.sum())} of {len(value)} rows (first: row {int(is_bad.nonzero()[0])})"
        )


def moved(value: Tensor | None, device: torch.device | str) -> Tensor | None:
    return None if value is None else value.to(device)


def html_table(title: str, rows: Iterable[tuple[str, object]], extra: str = "") -> str:
    """A small HTML table of names and values, for `_repr_html_`."""
    cells = "".join(
        f"<tr><th style='text-align:left'>{html.escape(k)}</th><td>{html.escape(str(v))}</td></tr>" for k, v in rows
    )
    return f"<div><b>{html.escape(title)}</b><table>{cells}</table>{extra}</div>"


def html_image(image: Tensor) -> str:
    """An image (H, W, 3) in [0, 1] as an HTML element, for `_repr_html_`."""
    from PIL import Image

    buffer = io.BytesIO()
    values = (image.detach().cpu().clamp(0, 1) * 255).round().to(torch.uint8)
    Image.fromarray(values.numpy()).save(buffer, "PNG")
    return f"<img src='data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}'>"


def span(value: Tensor, digits: int = 3) -> str:
    """Smallest and largest value, as text."""
    if not value.numel():
        return "none"
    low, high = value.detach().amin().item(), value.detach().amax().item()
    return f"{low:.{digits}g} to {high:.{digits}g}"


def _shape(want: Sequence[int | str]) -> str:
    return f"({', '.join(map(str, want))}{',' if len(want) == 1 else ''})"
