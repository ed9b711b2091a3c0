"""`vision3d` under torchrun with one pretended GPU a process: `torchrun ... -m tests.support.pretended_pair ARGUMENT...`.

What NCCL would exchange is exchanged by gloo. Each process prints a line of JSON: the backend asked for, its GPU, its counts.
"""

import dataclasses
import json
import os
import sys
from typing import Any

import torch

from tests.support.pretend import pretended_gpu
from vision3d.cli.app import execute


def main() -> None:
    torch.set_num_threads(1)
    asked: dict[str, Any] = {"device": None}
    start = torch.distributed.init_process_group

    def init_process_group(backend: str, **options: Any) -> None:
        asked["backend"] = backend
        start("gloo", **options)

    torch.distributed.init_process_group = init_process_group
    torch.distributed.is_nccl_available = lambda: True
    with pretended_gpu() as gpu:
        torch.cuda.device_count = lambda: 2  # of this machine; each process works on its own
        torch.cuda.set_device = lambda device: asked.update(device=device)
        code = execute(sys.argv[1:])
    sys.stderr.write(json.dumps({"rank": os.environ["RANK"], **asked, **dataclasses.asdict(gpu.counts)}) + "\n")
    sys.exit(code)


if __name__ == "__main__":
    main()
