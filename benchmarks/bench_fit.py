"""Held-out quality of a fit in a given time: a known scene, the same scene with a wrong gradient, the bundled photo set."""

import argparse
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import resources
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from support import ForeignLoad, add_options, refuse_foreign_load, write

from vision3d.geometry.cameras import look_at
from vision3d.io.images import write_image
from vision3d.render import render_views
from vision3d.render.splats import native_3dgs
from vision3d.scene import Cameras, GaussianScene, PosedImages
from vision3d.stages.fit import FitConfig, fit

RECOVERY = FitConfig(minutes=2, max_gaussians=2000, init_count=2000, init="random", sh_degree=0, checkpoint_every=0)
ABLATION_STEPS = 3000


def blobs(count: int = 500, seed: int = 0) -> GaussianScene:
    """Colored ellipsoids in the unit ball, axes of 0.03 to 0.15."""
    generator = torch.Generator().manual_seed(seed)
    radius = torch.rand(count, 1, generator=generator) ** (1 / 3)
    return GaussianScene(
        means=torch.nn.functional.normalize(torch.randn(count, 3, generator=generator), dim=-1) * radius,
        quats=torch.randn(count, 4, generator=generator),
        log_scales=(0.03 * 5 ** torch.rand(count, 3, generator=generator)).log(),
        opacity_logits=4 * torch.rand(count, generator=generator) - 1,
        sh=3 * torch.rand(count, 1, 3, generator=generator) - 1.5,
    )


def sphere_cameras(count: int, size: int) -> Cameras:
    """Cameras evenly on a sphere of radius 4 (golden spiral), looking at its center."""
    place = torch.arange(count) + 0.5
    height = 1 - 2 * place / count
    angle = place * torch.pi * (3 - 5**0.5)
    around = (1 - height**2).sqrt()
    eyes = 4 * torch.stack([around * angle.cos(), around * angle.sin(), height], -1)
    K = torch.tensor([[1.7 * size, 0, size / 2], [0, 1.7 * size, size / 2], [0, 0, 1]])
    return Cameras.from_camtoworlds(look_at(eyes, torch.zeros(3), torch.tensor([0.0, 0.0, 1.0])), K, size, size)


def photographs(folder: Path) -> PosedImages:
    """32 views of the blobs at 128x128 and 8 held out, rendered by the torch reference, as lossless 8-bit images."""
    cameras = sphere_cameras(40, 128)
    paths = [folder / f"{i:02d}.png" for i in range(40)]
    for path, view in zip(paths, render_views(blobs(), cameras, backend="reference"), strict=True):
        assert view.image is not None
        write_image(path, view.image)
    return PosedImages(cameras, tuple(paths), torch.arange(40) % 5 == 2, source=folder)


@contextmanager
def halved_conic_gradient() -> Iterator[None]:
    """Halves the gradient of the conics' second entry, as if the two equal entries of a matrix counted only once."""
    right = native_3dgs._blend_vjp

    def wrong(*inputs: Any) -> Any:
        v_means2d, v_conics, *rest = right(*inputs)
        return v_means2d, v_conics * v_conics.new_tensor([1, 0.5, 1]), *rest

    with mock.patch.object(native_3dgs, "_blend_vjp", wrong):
        yield


def recovery() -> dict[str, Any]:
    """Known scene of 500 Gaussians, 32 views, two minutes from a random initialization."""
    with tempfile.TemporaryDirectory() as folder:
        return fit(RECOVERY, photographs(Path(folder))).summary


def ablation() -> dict[str, Any]:
    """The same scene, 3000 steps, with the correct gradient and with the gradient of the second entry of the conics halved."""
    config = FitConfig(**{**vars(RECOVERY), "minutes": None, "steps": ABLATION_STEPS})
    with tempfile.TemporaryDirectory() as folder:
        images = photographs(Path(folder))
        right = fit(config, images).summary
        with halved_conic_gradient():
            wrong = fit(config, images).summary
    return {"right": right, "halved": wrong, "lost_db": right["psnr"] - wrong["psnr"]}


def demo() -> dict[str, Any]:
    """The bundled photo set, five minutes from a random initialization, default options."""
    data = Path(str(resources.files("vision3d") / "assets" / "demo"))
    return fit(FitConfig(minutes=5, checkpoint_every=0), data).summary


PARTS = {"recovery": recovery, "ablation": ablation, "demo": demo}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("parts", nargs="*", choices=[*PARTS, []], help="parts to run (default: all)")
    add_options(parser)
    options = parser.parse_args()
    if not options.busy:
        refuse_foreign_load()
    torch.set_num_threads(2)
    for name in options.parts or PARTS:
        with ForeignLoad() as load:
            results = PARTS[name]()
        print(name, results)
        write(f"fit_{name}", {"what": PARTS[name].__doc__, **results}, load.share)


if __name__ == "__main__":
    main()
