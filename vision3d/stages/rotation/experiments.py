"""The first two experiments of Zhou et al. 2019: reproducing a rotation, and two point clouds. (`ik` has the third.)"""

import math
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from vision3d.geometry.gram_schmidt import haar_rotmats
from vision3d.geometry.rotation import geodesic_distance, so3_exp
from vision3d.geometry.vectors import unit
from vision3d.stages.rotation.clouds import Clouds
from vision3d.stages.rotation.config import PointCloudConfig, SanityConfig
from vision3d.stages.rotation.experiment import angles_deg, entries_loss
from vision3d.stages.rotation.networks import SanityNet, SiamesePointNet
from vision3d.training.group import Group

_TEST_SEED = 20_190  # seed of the test data, never used in training: those seeds are multiplied
_CHUNK = 10_000


class SanityExperiment:
    """Reproduce the input rotation."""

    name, unit = "sanity", "deg"
    source = "uniform rotations"

    def __init__(self, config: SanityConfig, device: torch.device, group: Group | None = None) -> None:
        self.config, self.device = config, device
        self.share = (group or Group()).share(config.batch_size)
        generator = torch.Generator().manual_seed(_TEST_SEED)
        self.test = haar_rotmats(3, config.test_rotations, generator=generator)

    def network(self, rep: str) -> nn.Module:
        return SanityNet(**self.shape(rep))

    def shape(self, rep: str) -> dict[str, Any]:
        return {"rep": rep, "width": self.config.width}

    def loss(self, network: nn.Module, generator: torch.Generator) -> Float[Tensor, ""]:
        drawn = haar_rotmats(3, self.config.batch_size, generator=generator)
        rotmats = drawn[self.share.start : self.share.stop].to(self.device)
        predicted = network(rotmats)
        if self.config.loss == "entries":
            return entries_loss(predicted, rotmats)
        return geodesic_distance(predicted, rotmats).mean()

    def errors(self, network: nn.Module) -> Float[Tensor, " n"]:
        parts = [part.to(self.device) for part in self.test.split(_CHUNK)]
        return torch.cat([angles_deg(network(part), part) for part in parts])

    def about(self) -> dict[str, Any]:
        return {"test_rotations": len(self.test)}

    def facts(self) -> dict[str, Any]:
        return {}


class PointCloudExperiment:
    """Estimate the rotation between a cloud and its rotated copy."""

    name, unit = "pointcloud", "deg"

    def __init__(self, config: PointCloudConfig, clouds: Clouds, device: torch.device, group: Group | None = None) -> None:
        self.config, self.clouds, self.device = config, clouds, device
        self.share = (group or Group()).share(config.clouds, "clouds")
        self.source = clouds.source
        generator = torch.Generator().manual_seed(_TEST_SEED)
        shape = (len(clouds.test), config.test_rotations)
        self.test_rotmats = draw_rotmats(config.sampling, *shape, generator=generator)
        self.test_clouds = pick_points(clouds.test, config.points, generator)

    def network(self, rep: str) -> nn.Module:
        return SiamesePointNet(rep)

    def shape(self, rep: str) -> dict[str, Any]:
        return {"rep": rep}

    def loss(self, network: nn.Module, generator: torch.Generator) -> Float[Tensor, ""]:
        config, train = self.config, self.clouds.train
        chosen = torch.randint(len(train), (config.clouds,), generator=generator)
        clouds = pick_points(train[chosen], config.points, generator)
        rotmats = draw_rotmats(config.sampling, config.clouds, config.rotations, generator=generator)
        clouds, rotmats = (values[self.share.start : self.share.stop].to(self.device) for values in (clouds, rotmats))
        return entries_loss(network(clouds, turn(clouds, rotmats)), rotmats)

    def errors(self, network: nn.Module) -> Float[Tensor, " n"]:
        found = []
        for cloud, rotmats in zip(self.test_clouds.to(self.device), self.test_rotmats.to(self.device)):
            predicted = network(cloud[None], turn(cloud[None], rotmats[None]))
            found.append(angles_deg(predicted[0], rotmats))
        return torch.cat(found)

    def about(self) -> dict[str, Any]:
        return {
            "training_clouds": len(self.clouds.train),
            "test_clouds": len(self.clouds.test),
            "points": self.test_clouds.shape[1],
            "test_rotations": self.test_rotmats[..., 0, 0].numel(),
            "sampling": self.config.sampling,
        }

    def facts(self) -> dict[str, Any]:
        return {"points": self.test_clouds.shape[1], "sampling": self.config.sampling}


def turn(clouds: Float[Tensor, "s n 3"], rotmats: Float[Tensor, "s r 3 3"]) -> Float[Tensor, "s r n 3"]:
    """Rotated copies of clouds."""
    return clouds[:, None] @ rotmats.mT


def pick_points(clouds: Float[Tensor, "s n 3"], count: int, generator: torch.Generator) -> Float[Tensor, "s m 3"]:
    """`count` random points of each cloud; 0: all."""
    if not 0 < count < clouds.shape[1]:
        return clouds
    order = torch.rand(clouds.shape[:2], generator=generator).topk(count, dim=1).indices
    return clouds.gather(1, order[..., None].expand(-1, -1, 3))


def draw_rotmats(sampling: str, *shape: int, generator: torch.Generator) -> Float[Tensor, "*shape 3 3"]:
    """Uniform rotations (`haar`), or with uniform axes and angles uniform in 0 to pi (`published`).

    The code of the paper uses half angles in -pi to pi, which is equivalent.
    """
    if sampling == "haar":
        return haar_rotmats(3, *shape, generator=generator)
    axes = unit(torch.randn(*shape, 3, generator=generator))
    return so3_exp(math.pi * torch.rand(*shape, 1, generator=generator) * axes)
