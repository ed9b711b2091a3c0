"""`vision3d info`: describe the contents of a file or folder."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import tyro

from vision3d.cli.options import VerbOptions, parse
from vision3d.cli.output import print_summary, set_up_output
from vision3d.core.errors import FileFormatError, InputError, MissingFileError
from vision3d.core.plain import from_json

if TYPE_CHECKING:
    from torch import Tensor

    from vision3d.scene import Cameras, GaussianScene, PosedImages, Scene

Values = dict[str, Any]

_ATTRIBUTES = ("means", "quats", "log_scales", "opacity_logits", "sh", "labels")
_VIDEOS = (".mp4", ".mov", ".avi", ".mkv", ".webm", ".m4v")


@dataclasses.dataclass(frozen=True, kw_only=True)
class InfoOptions(VerbOptions):
    """Inspect a scene of Gaussians (.ply, .spz, .sog, .splat, .ksplat, .glb), a mesh (with joints, morph
    targets and clips), points, boxes, a cameras.json, a data set, a run folder, an image or a video."""

    path: tyro.conf.Positional[Path]
    """File or folder."""


def run(arguments: Sequence[str]) -> None:
    """Describe a file or folder."""
    options = parse(InfoOptions, arguments, "info")
    set_up_output(options)
    values = describe(options.path)
    print_summary(options, _table(values), {"path": str(options.path), **values})


def describe(path: Path) -> Values:
    """Statistics of a file or folder as plain values, `kind` first.

    Raises:
        MissingFileError: The path does not exist.
        InputError: It is not a type that vision3d reads.
    """
    from vision3d.cli.info_types import describe_more
    from vision3d.io.dataset import load_dataset
    from vision3d.scene import Cameras, GaussianScene, PosedImages, Scene, load

    if not path.exists():
        raise MissingFileError(path)
    if path.is_dir() and (path / "config.yaml").is_file():
        return _of_run(path)
    if path.is_file() and path.suffix.lower() in _VIDEOS:
        return _of_video(path)
    if path.is_file() and path.suffix.lower() == ".ply":
        return _of_ply(path)
    if path.is_file() and path.suffix.lower() in (".glb", ".gltf"):
        return {**_of_gltf(path), "bytes": _size(path)}
    value = load_dataset(path, skip_missing=True) if _is_data_set(path) else load(path)
    if isinstance(value, GaussianScene):
        return {**_of_gaussians(value), "bytes": _size(path)}
    if isinstance(value, Cameras):
        return _of_cameras(value)
    if isinstance(value, PosedImages):
        return _of_photographs(value)
    if isinstance(value, Scene):
        return {**_of_scene(value), "bytes": _size(path)}
    if (values := describe_more(value)) is not None:
        return {**values, "bytes": _size(path)}
    height, width, channels = value.shape  # pyright: ignore[reportAttributeAccessIssue]
    return {"kind": "image", "size": f"{width}x{height}", "channels": channels, "bytes": path.stat().st_size}


def _size(path: Path) -> int:
    """Bytes of a file, of all files of a folder, or of those next to the meta.json of SOG."""
    folder = path.parent if path.name.lower() == "meta.json" else path
    return path.stat().st_size if folder.is_file() else sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


def _is_data_set(path: Path) -> bool:
    from vision3d.io.json_types import type_of
    from vision3d.io.transforms_json import has_photographs

    if path.is_dir():
        others = ["scene.json", ".zgroup", "frames.json"]
        others += [] if (path / "transforms.json").is_file() else ["meta.json"]
        return not any((path / name).is_file() for name in others)
    return path.suffix.lower() == ".json" and type_of(path) not in ("boxes", "selection", "sog") and has_photographs(path)


def _of_ply(path: Path) -> Values:
    from vision3d.cli.info_types import describe_more
    from vision3d.io.ply import load
    from vision3d.scene import GaussianScene

    value = load(path)
    values = _of_gaussians(value) if isinstance(value, GaussianScene) else describe_more(value) or {}
    return {**values, "bytes": path.stat().st_size}


def _of_gltf(path: Path) -> Values:
    """Gaussians, or a mesh with its animation."""
    from vision3d.cli.info_types import describe_more
    from vision3d.io import gltf
    from vision3d.scene import GaussianScene, load

    reason = None
    if gltf.can_move(path):
        try:
            return describe_more(gltf.load_skin(path)) or {}
        except InputError as error:
            reason = str(error).removeprefix(f"{path}: ")
    value = load(path)
    values = _of_gaussians(value) if isinstance(value, GaussianScene) else describe_more(value) or {}
    return values if reason is None else {**values, "motion_not_read": reason}


def _of_gaussians(scene: "GaussianScene") -> Values:
    return {
        "kind": "Gaussian scene",
        "gaussians": scene.num_gaussians,
        "mode": scene.mode,
        "antialiased": scene.antialiased,
        "sh_degree": scene.sh_degree,
        "attributes": [name for name in _ATTRIBUTES if getattr(scene, name) is not None],
        **_bounds(scene.means),
        "median_m": _numbers(scene.means.median(0).values),
        "scale_quantiles_m": _quantiles(scene.scales[:, :2] if scene.mode != "3dgs" else scene.scales),
        "opacity_quantiles": _quantiles(scene.opacities),
        **({} if scene.labels is None else {"labels": len(scene.labels.unique())}),
    }


def _of_cameras(cameras: "Cameras") -> Values:
    import torch

    sizes = sorted(set(zip(cameras.width.tolist(), cameras.height.tolist())))
    fovs = torch.rad2deg(2 * torch.atan(0.5 * cameras.height / cameras.Ks[:, 1, 1]))
    distortion = cameras.distortion
    return {
        "kind": "cameras",
        "views": len(cameras),
        "model": cameras.model,
        "sizes": [f"{width}x{height}" for width, height in sizes],
        **({"fov_deg": _numbers(torch.stack([fovs.min(), fovs.max()]))} if cameras.model == "pinhole" else {}),
        "distortion": distortion is not None and bool(distortion.any()),
        **_bounds(cameras.centers, "positions_"),
        "first": (cameras.names or ("",))[0],
    }


def _of_photographs(images: "PosedImages") -> Values:
    return {
        **_of_cameras(images.cameras),
        "kind": "photographs with cameras",
        "distortion": images.raw_cameras is not None and images.raw_cameras.distortion is not None,
        "training_views": len(images.train),
        "held_out_views": len(images.test),
        "masks": 0 if images.mask_paths is None else sum(path is not None for path in images.mask_paths),
        "depth_maps": 0 if images.depth_paths is None else sum(path is not None for path in images.depth_paths),
        "points": 0 if images.points is None else len(images.points),
    }


def _of_scene(scene: "Scene") -> Values:
    return {
        "kind": "scene",
        "objects": {name: repr(value) for name, value in scene.objects.items()},
        "cameras": 0 if scene.cameras is None else len(scene.cameras),
    }


def _of_run(path: Path) -> Values:

    from vision3d.core.config import read_yaml

    values: Values = {"kind": "run", "configuration": read_yaml(path / "config.yaml")}
    summary = path / "summary.json"
    if summary.is_file():
        try:
            content = from_json(summary.read_bytes())
            values |= {"status": content["status"], "wall_s": content["wall_s"], "results": content["results"]}
        except (ValueError, KeyError, TypeError) as error:
            raise FileFormatError(summary, "is not the summary of a run") from error
    if (path / "scene.ply").is_file():
        values["scene"] = _of_ply(path / "scene.ply")
    return values


def _of_video(path: Path) -> Values:
    from vision3d.io.video import read_video

    video = read_video(path)
    size = f"{video.width}x{video.height}"
    return {"kind": "video", "size": size, "fps": video.fps, "duration_s": video.duration, "bytes": path.stat().st_size}


def _bounds(points: "Tensor", prefix: str = "") -> Values:
    low, high = points.aminmax(dim=0)
    return {f"{prefix}min_m": _numbers(low), f"{prefix}max_m": _numbers(high)}


def _quantiles(values: "Tensor") -> dict[str, float]:
    """Quantiles at 1, 50 and 99 %; by sorting, since torch.quantile is limited to 16 million values."""
    ordered = values.flatten().sort().values
    return {f"{share}%": _round(float(ordered[round(share / 100 * (len(ordered) - 1))])) for share in (1, 50, 99)}


def _numbers(values: "Tensor") -> list[float]:
    return [_round(value) for value in values.tolist()]


def _round(value: float) -> float:
    return float(f"{value:.4g}")


def _table(values: Mapping[str, Any], indent: str = "") -> str:
    width = max(map(len, values))
    lines = []
    for name, value in values.items():
        if name == "configuration":  # too long; see config.yaml
            continue
        if isinstance(value, Mapping) and name in ("results", "scene", "objects", "clips") and value:
            lines.append(f"{indent}{name}:")
            lines.append(_table(value, indent + "  "))
        else:
            lines.append(f"{indent}{name:{width}}  {_text(value)}")
    return "\n".join(lines)


def _text(value: object) -> str:
    if isinstance(value, bool) or value is None:
        return {True: "yes", False: "no", None: "-"}[value]
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {_text(item)}" for name, item in value.items()) or "-"
    if isinstance(value, list | tuple):
        return " ".join(_text(item) for item in value)
    return f"{value:.6g}" if isinstance(value, float) else f"{value:,}" if isinstance(value, int) else str(value)
