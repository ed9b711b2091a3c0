"""`vision3d hand export`: a network of hands as an ONNX graph."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

import tyro

from vision3d.cli.options import Flag, VerbOptions, parse
from vision3d.cli.output import print_summary, set_up_output
from vision3d.core.errors import OutputExistsError
from vision3d.core.option_marks import HelpGroups


@dataclasses.dataclass(frozen=True, kw_only=True)
class HandExportOptions(VerbOptions):
    """Write a network of hands as .onnx, from crops to joints and vertices, and compare both on generated hands."""

    HELP_GROUPS: ClassVar[HelpGroups] = {"main options": ("weights", "overwrite")}

    out: tyro.conf.Positional[Path]
    """The .onnx file to write."""
    weights: str = "hand"
    """Weights: a .safetensors of `hand train`, or the name of bundled ones."""
    overwrite: Flag = False
    """Replace an existing file."""


def run(arguments: Sequence[str]) -> None:
    """Write the graph."""
    options = parse(HandExportOptions, arguments, "hand export")
    set_up_output(options)
    if options.out.exists() and not options.overwrite:
        raise OutputExistsError(options.out, "give --overwrite or another name")

    from vision3d.stages.hand import load_hand_model
    from vision3d.stages.hand.export import export_hand

    found = export_hand(load_hand_model(options.weights), options.out)
    shapes = {**found.inputs, **found.outputs}
    words = ", ".join(f"{name} ({', '.join(map(str, shape))})" for name, shape in shapes.items())
    values = {"inputs": found.inputs, "outputs": found.outputs, "difference_mm": found.difference_mm}
    values |= {"bytes": options.out.stat().st_size}
    differs = f"vertices differ from the network's by {found.difference_mm:.1e} mm at most"
    print_summary(options, f"{options.out}: {words}, {values['bytes']:,} bytes, {differs}", values)
