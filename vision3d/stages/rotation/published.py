"""Results of Zhou et al. 2019 that could be confirmed, and differences of a run from theirs.

The values come from a third party's notes on the paper with page numbers; unconfirmed ones are left out.
"""

from typing import Any

from vision3d.stages.rotation.config import IkConfig, PointCloudConfig, SanityConfig, TrainingConfig

MEANS: dict[str, dict[str, float]] = {
    "sanity": {"6d": 0.49, "5d": 0.49, "quat": 3.32, "euler": 6.98},
    "pointcloud": {"6d": 2.85, "9d_direct": 4.21},
    "ik": {"6d": 1.9, "5d": 2.0, "quat": 3.3, "9d_direct": 22.9},
}
"""Mean errors: [deg], and [cm] for `ik`."""
_GEODESIC_6D = 0.45
_ALIASES = {"6d_columns": "6d"}


def published_mean(experiment: str, rep: str, config: TrainingConfig) -> float | None:
    """The mean error in the paper, or None without a confirmed value."""
    name = _ALIASES.get(rep, rep)
    if isinstance(config, SanityConfig) and config.loss == "geodesic":
        return _GEODESIC_6D if name == "6d" else None
    return MEANS[experiment].get(name)


def differences(config: TrainingConfig, about: dict[str, Any]) -> list[str]:
    """Differences of a run from the paper, in words."""
    found = []
    if isinstance(config, SanityConfig):
        if config.steps != 500_000:
            found.append(f"{config.steps:,} steps, published 500,000")
        found += _rate(config, "1e-5, in the code 1e-6 after 10,000 steps", drop=10_000)
        if config.width != 128:
            found.append(f"layers of {config.width}, published 128")
    elif isinstance(config, PointCloudConfig):
        found.append(
            f"{config.steps:,} steps of {config.clouds} clouds x {config.rotations} rotations, published 2.6 million of 1 x 10"
        )
        found += _rate(config, "1e-5", drop=0)
        found.append(f"{about['points']} points of a cloud, published about 1,290")
        if config.sampling == "haar":
            found.append(
                "uniform rotations (mean angle 126.5 deg), in the published code angles uniform in 0 to 180 deg (mean 90)"
            )
        found.append(f"{about['test_clouds']} test clouds x {config.test_rotations} rotations, published 400 x 100")
    elif isinstance(config, IkConfig):
        found.append(f"{about['training_poses']:,} poses of {about['training_clips']} clips, published 865 clips of CMU")
        found.append(f"{about['joints']} joints, published 57")
        found.append(f"{config.steps:,} steps, published 1.96 million")
        found += _rate(config, "1e-5", drop=0)
        if config.jitter_deg:
            found.append(f"joints of training poses rotated at random by {config.jitter_deg:g} deg, published not")
        if config.width != 1024:
            found.append(f"layers of {config.width}, published 1024")
    return found


def _rate(config: TrainingConfig, words: str, drop: int) -> list[str]:
    if (config.schedule, config.lr, config.drop_after) == ("constant", 1e-5, drop):
        return []
    return [f"Adam, {config.schedule}, maximum learning rate {config.lr:g}; published constant {words}"]
