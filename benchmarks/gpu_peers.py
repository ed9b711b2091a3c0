"""The packages that bench_gpu.py compares with, as calls that do the same work; none is needed.

Written from the documentation of gsplat 1.5, fused-ssim, nvdiffrast 0.3 and roma.
"""

import importlib
import importlib.metadata
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

PACKAGES = {  # name: module, how to install it
    "gsplat": ("gsplat", "pip install gsplat"),
    "fused_ssim": ("fused_ssim", "pip install git+https://github.com/rahul-goel/fused-ssim"),
    "nvdiffrast": ("nvdiffrast.torch", "pip install git+https://github.com/NVlabs/nvdiffrast"),
    "warp": ("warp", "pip install warp-lang"),
    "roma": ("roma", "pip install roma"),
}
DISTRIBUTIONS = ("gsplat", "fused-ssim", "nvdiffrast", "warp-lang", "roma", "numpy")


def missing(*names: str) -> str | None:
    """What is missing for a comparison with these packages; None if all can be used."""
    for name in names:
        module, command = PACKAGES[name]
        try:
            importlib.import_module(module)
        except Exception as error:  # of any kind: extensions that do not fit this torch or driver
            return f"{name}: {type(error).__name__}: {_first_line(error)}; {command}"
        if name == "warp" and warp_device() is None:
            return "warp: is installed, but sees no GPU"
    return None


def with_peers(
    ours: dict[str, Any], peers: dict[str, tuple[tuple[str, ...], Callable[[], Any]]]
) -> tuple[dict[str, Any], dict[str, str]]:
    """What is to be compared by name, and the reasons for the peers that cannot be.

    Args:
        ours: What is there in any case.
        peers: By name: the packages that it needs, and a function that makes it.
    """
    found, absent = dict(ours), {}
    for name, (packages, make) in peers.items():
        reason = missing(*packages)
        if reason is None:
            try:
                found[name] = make()
            except Exception as error:
                reason = f"cannot start: {type(error).__name__}: {_first_line(error)}"
        if reason is not None:
            absent[name] = reason
    return found, absent


def versions() -> dict[str, str]:
    """Versions of the installed packages; `absent` for the others."""
    found = {}
    for name in DISTRIBUTIONS:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = "absent"
    return found


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [""])[0]


def warp_device() -> str | None:
    """The device on which Warp runs."""
    import warp

    warp.config.log_level = warp.LOG_ERROR
    warp.init()
    return "cuda:0" if warp.get_cuda_device_count() else None


def gsplat_image(mode: str, scene: dict[str, Tensor], size: tuple[int, int], degree: int, *, packed: bool) -> Tensor:
    """An image (1, h, w, 3) of Gaussians with harmonics by gsplat."""
    import gsplat

    function = gsplat.rasterization if mode == "3dgs" else gsplat.rasterization_2dgs
    names = ("means", "quats", "scales", "opacities", "sh", "viewmats", "Ks")
    return function(*(scene[name] for name in names), *size, sh_degree=degree, packed=packed)[0]


class GsplatStep:
    """A training step as in gsplat's examples: gsplat, fused-ssim, one fused Adam per parameter; no densification.

    Args:
        mode: 3dgs or 2dgs.
        params: means, quats, log_scales, opacity_logits, sh.
        view: viewmats (1, 4, 4) and Ks (1, 3, 3).
        target: (h, w, 3) uint8.
    """

    def __init__(
        self, mode: str, params: dict[str, Tensor], view: dict[str, Tensor], target: Tensor, degree: int, ssim: float
    ) -> None:
        from fused_ssim import fused_ssim

        self.params = {name: value.detach().clone().requires_grad_() for name, value in params.items()}
        self.view, self.target, self.degree, self.ssim = view, target, degree, ssim
        self.mode, self.fused_ssim = mode, fused_ssim
        is_gpu = target.is_cuda and type(target) is Tensor
        groups = [{"params": [value], "lr": 1e-4} for value in self.params.values()]
        self.optimizer = torch.optim.Adam(groups, eps=1e-15, fused=is_gpu)

    def __call__(self) -> None:
        p, (height, width) = self.params, self.target.shape[:2]
        scene = {
            "means": p["means"], "quats": p["quats"], "scales": p["log_scales"].exp(),
            "opacities": p["opacity_logits"].sigmoid(), "sh": p["sh"], **self.view,
        }  # fmt: skip
        image = gsplat_image(self.mode, scene, (width, height), self.degree, packed=False)
        target = self.target[None].float() / 255
        similarity = self.fused_ssim(image.permute(0, 3, 1, 2), target.permute(0, 3, 1, 2), padding="valid")
        loss = torch.lerp(torch.nn.functional.l1_loss(image, target), 1 - similarity, self.ssim)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self.optimizer.step()


def fused_ssim_of(a: Tensor, b: Tensor) -> Tensor:
    """Mean SSIM of (1, h, w, 3) images by fused-ssim."""
    from fused_ssim import fused_ssim

    return fused_ssim(a.permute(0, 3, 1, 2), b.permute(0, 3, 1, 2), padding="valid")


def nvdiffrast_drawing(faces: Tensor, viewmat: Tensor, K: Tensor, size: int) -> Callable[[Tensor, Tensor], Tensor]:
    """A function of vertices and their colors that returns the antialiased image (1, size, size, 3) on black."""
    import nvdiffrast.torch as dr

    near, far = 0.01, 100.0
    projection = K.new_zeros(4, 4)
    projection[0, 0], projection[1, 1] = 2 * K[0, 0] / size, 2 * K[1, 1] / size
    projection[0, 2], projection[1, 2] = 2 * K[0, 2] / size - 1, 2 * K[1, 2] / size - 1  # row 0 of the image is y = -1
    projection[2, 2], projection[2, 3], projection[3, 2] = (far + near) / (far - near), -2 * far * near / (far - near), 1
    matrix = (projection @ viewmat).mT
    triangles, context = faces.int(), dr.RasterizeCudaContext()

    def draw(vertices: Tensor, colors: Tensor) -> Tensor:
        clip: Any = torch.addmm(matrix[3], vertices, matrix[:3])[None]
        raster, _ = dr.rasterize(context, clip, triangles, (size, size))
        image, _ = dr.interpolate(colors[None], raster, triangles)
        return dr.antialias(image, raster, clip, triangles)

    return draw
