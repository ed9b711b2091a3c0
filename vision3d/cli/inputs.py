"""Parsing of inputs of verbs: scenes, cameras, and values given as text."""

import logging
import re
from pathlib import Path
from typing import TYPE_CHECKING

from vision3d.core.errors import ConfigError, FileFormatError, InputError, MissingFileError

if TYPE_CHECKING:
    from vision3d.scene import Cameras, FrameSequence, GaussianScene, Mesh, MeshGaussians, Scene, SkinnedMesh

logger = logging.getLogger(__name__)
_COLORS = {"black": (0.0, 0.0, 0.0), "white": (1.0, 1.0, 1.0), "gray": (0.5, 0.5, 0.5)}


def load_gaussians(path: Path) -> "GaussianScene":
    """The Gaussians of a .ply, of a run folder with scene.ply, or of a folder with scene.json or SOG's meta.json.

    Raises:
        MissingFileError: The path does not exist.
        InputError: It contains something else.
    """
    from vision3d.scene import GaussianScene, Scene

    if not path.exists():
        raise MissingFileError(path, "a Gaussian scene (.ply) or a run folder with scene.ply")
    if not path.is_dir():
        return GaussianScene.load(path).validate()
    if (path / "scene.json").is_file():
        return Scene.load(path).gaussians().validate()
    if (path / "scene.ply").is_file():
        return GaussianScene.load(path / "scene.ply").validate()
    if (path / "meta.json").is_file() and not (path / "transforms.json").is_file():
        return GaussianScene.load(path).validate()
    raise InputError(f"{path}: is a folder without scene.ply or scene.json; want a Gaussian scene (.ply)")


def load_moving(path: Path) -> "GaussianScene | Mesh | MeshGaussians | Scene | FrameSequence | SkinnedMesh":
    """Like `load_objects`; a .glb or .gltf with clips is a `SkinnedMesh`, frames (.zarr or their run folder) a `FrameSequence`.

    Raises:
        MissingFileError: The path does not exist.
        InputError: It contains something else, or nothing that can be rendered.
    """
    from vision3d.scene import FrameSequence

    if (path / "frames.zarr").is_dir():
        path = path / "frames.zarr"
    if path.suffix.lower() == ".zarr" and path.is_dir():
        return FrameSequence.load(path).validate()
    return _moving_skin(path) or load_objects(path)


def load_objects(path: Path) -> "GaussianScene | Mesh | MeshGaussians | Scene":
    """Everything that can be rendered in a file, a run folder with scene.ply, or a folder with scene.json.

    The mesh of a .glb written by `vision3d mesh` is returned in the axes of its scene, so that it matches the scene's cameras.

    Raises:
        MissingFileError: The path does not exist.
        InputError: It contains something else, or nothing that can be rendered.
    """
    from vision3d.scene import FrameSequence, GaussianScene, Mesh, MeshGaussians, Scene, SkinnedMesh, load
    from vision3d.scene.codecs import kind_of

    if not path.exists():
        raise MissingFileError(
            path, "a Gaussian scene (.ply) or a run folder with scene.ply, a mesh (.glb, .obj), or a folder with scene.json"
        )
    if path.is_dir() and not (path / "scene.json").is_file():
        return load_gaussians(path)
    value = load(path)
    if isinstance(value, Scene):
        kinds = (GaussianScene, Mesh, MeshGaussians, FrameSequence, SkinnedMesh)
        if not any(isinstance(part, kinds) for part in value.objects.values()):
            raise InputError(f"{path / 'scene.json'}: has no Gaussians and no meshes; there is nothing to render")
        return value.validate()
    if isinstance(value, Mesh):
        from vision3d.io.glb import in_scene_axes

        return in_scene_axes(path, value.validate())
    if isinstance(value, GaussianScene | MeshGaussians):
        return value.validate()
    raise InputError(f"{path}: holds {kind_of(value)}, want a Gaussian scene (.ply) or a mesh (.glb, .obj)")


def _moving_skin(path: Path) -> "SkinnedMesh | None":
    """A mesh with clips; None if the file has none."""
    from vision3d.scene import SkinnedMesh

    if path.suffix.lower() not in (".glb", ".gltf") or not path.is_file():
        return None
    try:
        skin = SkinnedMesh.load(path)
    except InputError:
        return None  # it is static, or unreadable, which loading the mesh reports
    return skin.validate() if skin.clips else None


def load_cameras(path: Path) -> "Cameras":
    """The cameras of a cameras.json, a transforms.json or a data set, without lens distortion.

    Raises:
        MissingFileError: The path does not exist.
        FileFormatError: It is damaged, or a pose is singular or not finite.
    """
    from vision3d.io.dataset import load_dataset
    from vision3d.io.frames import undistorted_cameras
    from vision3d.scene import Cameras

    if not path.exists():
        raise MissingFileError(path, "a cameras.json, a transforms.json or a data set")
    if path.is_dir():
        if (path / "cameras.json").is_file() and not (path / "transforms.json").is_file():
            path = path / "cameras.json"
        else:
            return load_dataset(path, skip_missing=True).cameras
    if path.suffix.lower() != ".json":
        raise FileFormatError(path, "is not a cameras file; want a cameras.json, a transforms.json or a data set folder")
    return undistorted_cameras(Cameras.load(path))


def cameras_beside(scene: Path) -> "Cameras | None":
    """The cameras.json of a run folder or next to a scene file, unless written by another program."""
    path = (scene if scene.is_dir() else scene.parent) / "cameras.json"
    if not path.is_file():
        return None
    try:
        cameras = load_cameras(path)
    except FileFormatError as error:
        logger.info("not used: %s", error)
        return None
    logger.info("cameras of the photos: %s", path)
    return cameras


def parse_size(option: str, text: str) -> tuple[int, int]:
    """Parse width and height from WIDTHxHEIGHT.

    Raises:
        ConfigError: The syntax is wrong, or there are more than `vision3d.io.guards.MAX_PIXELS` pixels.
    """
    from vision3d.io.guards import MAX_PIXELS

    match = re.fullmatch(r"(\d{1,5})x(\d{1,5})", text.strip().lower())
    if match is None or not all(int(part) for part in match.groups()):
        raise ConfigError(option, f"got {text!r}, want WIDTHxHEIGHT in pixels, such as 640x480")
    width, height = int(match[1]), int(match[2])
    if width * height > MAX_PIXELS:
        raise ConfigError(option, f"got {text}, which has {width * height} pixels; want at most {MAX_PIXELS}")
    return width, height


def parse_color(option: str, text: str) -> tuple[float, float, float]:
    """Parse a color in [0, 1] from a name, #rrggbb, or r,g,b in [0, 1].

    Raises:
        ConfigError: The syntax is wrong.
    """
    text = text.strip().lower()
    if text in _COLORS:
        return _COLORS[text]
    if re.fullmatch(r"#[0-9a-f]{6}", text):
        red, green, blue = (int(text[i : i + 2], 16) / 255 for i in (1, 3, 5))
        return red, green, blue
    try:
        red, green, blue = map(float, text.split(","))
    except ValueError:
        red = green = blue = -1.0
    if not all(0 <= value <= 1 for value in (red, green, blue)):
        raise ConfigError(option, f"got {text!r}, want {', '.join(_COLORS)}, #rrggbb, or r,g,b in 0 to 1 such as 1,0.5,0")
    return red, green, blue
