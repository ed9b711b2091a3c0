import pytest
import torch

from vision3d.render.splats import kernels


@pytest.fixture(params=["reference", "native"])
def backend(request: pytest.FixtureRequest) -> str:
    """Each available backend with its own operations."""
    if request.param not in kernels.available(torch.device("cpu")):
        pytest.skip(f"backend {request.param} is not built")
    return request.param
