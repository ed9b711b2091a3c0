"""Materials: law and parameters (`Material`), presets, stress, energy and plastic flow in one place."""

from pathlib import Path

from vision3d.core.config import load_yaml
from vision3d.stages.simulate.materials.config import ALIASES, Material, law_name
from vision3d.stages.simulate.materials.laws import energy_density, kirchhoff_stress, packing_factor
from vision3d.stages.simulate.materials.plasticity import initial_memory, return_map

__all__ = [
    "ALIASES",
    "Material",
    "energy_density",
    "initial_memory",
    "kirchhoff_stress",
    "law_name",
    "load_material",
    "packing_factor",
    "return_map",
]


def load_material(source: Path | str) -> Material:
    """The material of a preset (jelly, rubber, metal, sand, snow, water, foam) or of a YAML file.

    Raises:
        MissingFileError: Neither a file nor a preset; the message lists the presets.
        ConfigError: A key is unknown or has an invalid value.
    """
    return load_yaml(Material, source, stage="materials")
