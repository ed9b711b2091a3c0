"""`vision3d detect export`: a detector as an ONNX graph."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

import tyro

from vision3d.cli.options import Flag, VerbOptions, parse
from vision3d.cli.output import print_summary, set_up_output
from vision3d.core.errors import ConfigError, OutputExistsError
from vision3d.core.option_marks import HelpGroups


@dataclasses.dataclass(frozen=True, kw_only=True)
class DetectExportOptions(VerbOptions):
    """Write a detector as .onnx and compare both on a generated street. Pillars: from the points of a sector, with a horizontal
    ground 1.73 m below z = 0. LION: from the bird's-eye image behind its sequence operators. The boxes still overlap."""

    HELP_GROUPS: ClassVar[HelpGroups] = {"main options": ("weights", "boxes", "overwrite")}

    out: tyro.conf.Positional[Path]
    """The .onnx file to write."""
    weights: str = "detector"
    """Weights: a .safetensors of `detect train`, or the name of bundled ones."""
    boxes: int = 200
    """Number of boxes that the graph returns."""
    overwrite: Flag = False
    """Replace an existing file."""


def run(arguments: Sequence[str]) -> None:
    """Write the graph."""
    options = parse(DetectExportOptions, arguments, "detect export")
    set_up_output(options)
    if options.boxes < 1:
        raise ConfigError("--boxes", f"got {options.boxes}, want at least 1")
    if options.out.exists() and not options.overwrite:
        raise OutputExistsError(options.out, "give --overwrite or another name")

    from vision3d.stages.detect.export import export_detector
    from vision3d.stages.detect.network.files import load_detector

    detector = load_detector(options.weights)
    found = export_detector(detector, options.out, count=options.boxes)
    shapes = {**found.inputs, **found.outputs}
    words = ", ".join(f"{name} ({', '.join(map(str, shape))})" for name, shape in shapes.items())
    values = {"inputs": found.inputs, "outputs": found.outputs, "difference": found.difference}
    values |= {"bytes": options.out.stat().st_size, "classes": list(detector.config.classes)}
    text = f"{options.out}: {words}, {values['bytes']:,} bytes, differs from the network by {found.difference:.1e} at most"
    print_summary(options, text, values)
