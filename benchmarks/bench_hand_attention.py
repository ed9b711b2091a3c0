"""Attention with narrow heads, compiled, against torch's: forward and backward, CPU time of one thread."""

import argparse
import json

import torch
from support import ForeignLoad, add_options, cpu_times, write

from vision3d.stages.hand.network.native_attention import attend, attend_reference

BATCH, TOKENS, HEADS = 32, 336, 8
"""As in a step of `hand train`: the last stage of the network."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    add_options(parser)
    parser.parse_args()
    torch.set_num_threads(1)
    generator = torch.Generator().manual_seed(0)
    query, key, value, v_output = (torch.randn(BATCH, TOKENS, 8 * HEADS, generator=generator) for _ in range(4))
    rows = [row.requires_grad_() for row in (query, key, value)]
    results = {"batch": BATCH, "tokens": TOKENS, "heads": HEADS, "threads": 1}
    with ForeignLoad() as load:
        for name, function in (("compiled", attend), ("torch", attend_reference)):
            times = cpu_times(lambda function=function: torch.autograd.grad(function(*rows, HEADS), rows, v_output))
            results[name] = {key: round(1000 * seconds, 2) for key, seconds in times.items()}
    results["torch_over_compiled"] = round(results["torch"]["median"] / results["compiled"]["median"], 2)
    print(json.dumps(results, indent=1))
    write("hand_attention", results, load.share)


if __name__ == "__main__":
    main()
