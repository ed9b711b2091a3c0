"""Objects from one image by TripoSR with weights of the user's, as planes that can be edited by text."""

import logging
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from vision3d.core.device import resolve_device
from vision3d.core.errors import ConfigError, MissingFileError
from vision3d.core.progress import Progress, ProgressCallback
from vision3d.core.runs import RunFolder
from vision3d.io import glb
from vision3d.io.images import write_image
from vision3d.render.triplanes.baking import bake_surface
from vision3d.report.sheets import frame_sheet
from vision3d.scene.mesh import Mesh
from vision3d.scene.triplane import Triplane
from vision3d.stage import stage
from vision3d.stages.edit.fitting import fit_planes
from vision3d.stages.edit.lrm.files import license_of, load_lrm
from vision3d.stages.edit.lrm.images import object_image
from vision3d.stages.edit.lrm.surface import LrmObject
from vision3d.stages.edit.network.files import load_planes_model
from vision3d.stages.edit.run_config import EditConfig, ReconstructConfig
from vision3d.stages.edit.views import images_of, orbit

logger = logging.getLogger(__name__)

_POINTS = 65_536


@dataclass(frozen=True, eq=False)
class ReconstructResult:
    """An object of an image; the world has z up, and the image shows it from -y."""

    planes: Triplane
    """Its colors and density in our planes, which `edit` takes."""
    mesh: Mesh
    """Its surface, with a texture of the colors of the LRM."""
    summary: dict[str, Any]
    run_folder: Path | None = None


@stage("edit reconstruct", {"image": "image"})
def reconstruct(
    config: ReconstructConfig,
    image: Path | str,
    *,
    run_folder: RunFolder | Path | str | None = None,
    progress: ProgressCallback | None = None,
) -> ReconstructResult:
    """Reconstruct an object from one image by TripoSR (Tochilkin et al. 2024), with weights from a folder of the user's.

    The surface of its density, and the colors there, are fitted by planes of ours.

    Args:
        config: Options.
        image: The object, cut out (transparent around it), or on gray.
        run_folder: Receives planes.safetensors, object.glb, input.png, what the network saw, and views.png. None: nothing is
            written.
        progress: Progress callback.

    Raises:
        ConfigError: No folder is given.
        MissingFileError: The image, the folder or one of its files does not exist.
        FileFormatError: The weights are a pickle or damaged, or their layout is another; the message lists the names.
        InputError: The image shows nothing, or there is not enough memory.
    """
    device = resolve_device(config.device)
    assert isinstance(run_folder, RunFolder | None)  # `stage` opened it
    if config.lrm is None:
        raise ConfigError("lrm", "got none, want a folder with config.yaml and model.safetensors of TripoSR")
    if not Path(image).is_file():  # before the weights are read
        raise MissingFileError(image, "an image of an object")
    network = load_lrm(config.lrm).to(device)
    seen = object_image(image, network.sizes.image_size, config.fill)
    model = load_planes_model(config.planes)
    terms = license_of(config.lrm)
    logger.warning("license of the weights in %s: %s", config.lrm, terms)
    started = time.perf_counter()
    with Progress(3, "reconstruct", progress) as bar:
        with torch.no_grad():
            planes = network(seen.to(device))
        found = LrmObject(network.to("cpu"), planes.cpu())
        bar.update(1)
        surface = found.surface(config.grid)
        mesh, texture, _ = bake_surface(surface, config.texture_size, lambda points, _: found.query(points)[1])
        mesh = Mesh(mesh.vertices, mesh.faces, mesh.uvs, mesh.normals, texture)
        bar.update(2)
        points = found.points(surface, _POINTS)
        first = model.encode(points)
        fitted = fit_planes(model.network, first.planes, found.observed(points), steps=config.steps, progress=progress)
        triplane = model.triplane(fitted, points.matrix)
        seconds = time.perf_counter() - started
        path = None if run_folder is None else run_folder.path
        if path is not None:
            triplane.save(path / "planes.safetensors")
            glb.write_mesh(path / "object.glb", mesh, "z")
            write_image(path / "input.png", seen)
            cameras = orbit(mesh, "z", EditConfig(views=4, view_size=config.view_size))
            images = [*images_of(mesh, cameras), *images_of(triplane, cameras)]
            write_image(path / "views.png", frame_sheet(images, ["object.glb"] * 4 + ["planes"] * 4))
        bar.update(3)
    summary = {
        "parameters": sum(value.numel() for value in network.parameters()),
        "license": terms,
        "faces": mesh.num_faces,
        "reconstruct_s": round(seconds, 3),
        "device": str(device),
    }
    return ReconstructResult(triplane, mesh, summary, path)
