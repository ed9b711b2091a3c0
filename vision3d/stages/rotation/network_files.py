"""A trained network with its description, and its file."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from vision3d.core.errors import ConfigError, FileFormatError
from vision3d.io.described import read_described, write_described
from vision3d.stages.rotation.networks import PoseNet, SanityNet, SiamesePointNet

_TYPE, _VERSION = "rotation_network", 1
_NETWORKS: dict[str, type[nn.Module]] = {"sanity": SanityNet, "pointcloud": SiamesePointNet, "ik": PoseNet}
_MAX = 8192  # maximum of any size in a file


@dataclass(eq=False)
class RotationNetwork:
    """A network that predicts rotations."""

    network: nn.Module
    experiment: str
    """sanity, pointcloud or ik."""
    shape: dict[str, Any]
    """Arguments to build the network: rep, and its sizes."""
    about: dict[str, Any]
    """Training information: seed, steps, data, time; for ik also the names of the input joints (`joints`) and of the joints
    whose rotations are predicted (`rotated_joints`), and meters per unit of the clips (`scale`)."""

    @property
    def rep(self) -> str:
        """The representation."""
        return self.shape["rep"]

    def __call__(self, *inputs: Tensor) -> Tensor:
        """Rotation matrices.

        Args:
            inputs: sanity: rotations (..., 3, 3). pointcloud: clouds (S, N, 3) and rotated copies (S, R, M, 3). ik: joint
                positions (..., J, 3) [m], the root at 0.
        """
        self.network.eval()
        with torch.inference_mode():
            return self.network(*inputs)


def save_rotation_network(path: Path | str, network: RotationNetwork) -> None:
    """Write a network as .safetensors atomically."""
    own = {"experiment": network.experiment, "shape": network.shape, "about": network.about}
    write_described(path, _TYPE, _VERSION, own, network.network.state_dict())


def load_rotation_network(path: Path | str) -> RotationNetwork:
    """Load a network written by a run: `trainings/6d_seed0/network.safetensors` of its folder.

    Raises:
        MissingFileError: The file does not exist.
        FileFormatError: It is damaged or contains something else.

    Example:
        >>> network = load_rotation_network("runs/sanity/trainings/6d_seed0/network.safetensors")
        >>> network(torch.eye(3)).shape
        torch.Size([3, 3])
    """
    path = Path(path)
    own, tensors = read_described(path, _TYPE, _VERSION, "a network", ("experiment", "shape", "about"))
    experiment, shape, about = own["experiment"], own["shape"], own["about"]
    if not (isinstance(experiment, str) and isinstance(shape, dict) and isinstance(about, dict)):
        raise FileFormatError(path, "has an unknown description", "header")
    if experiment not in _NETWORKS:
        raise FileFormatError(path, f"holds a network of {experiment!r}; want sanity, pointcloud or ik")
    try:
        _check_shape(shape)
        network = _NETWORKS[experiment](**shape)
        network.load_state_dict(tensors)
    except (ConfigError, RuntimeError, TypeError) as error:
        raise FileFormatError(path, f"does not match its description ({str(error).splitlines()[0]})") from error
    return RotationNetwork(network.eval(), experiment, shape, about)


def _check_shape(shape: dict[str, Any]) -> None:
    for name, value in shape.items():
        if name == "rep":
            if not isinstance(value, str):
                raise ConfigError(name, f"got {value!r}, want text")
        elif type(value) is not int or not 0 < value <= _MAX:
            raise ConfigError(name, f"got {value!r}, want a whole number of 1 to {_MAX}")
