"""Shared fixtures and options."""

import collections
import os
import random
from pathlib import Path

import hypothesis
import jaxtyping
import pytest

import tests.support.typecheck  # noqa: F401  looked up by its dotted name below

# While the tests run, every call into these packages is checked against its annotations, including shapes.
CHECKED = ["vision3d.geometry", "vision3d.render", "vision3d.io", "vision3d.optim"]
jaxtyping.install_import_hook(CHECKED, "tests.support.typecheck.check")

hypothesis.settings.register_profile("house", deadline=None, print_blob=True, derandomize=True)
hypothesis.settings.load_profile("house")


def pytest_addoption(parser):
    parser.addoption("--update-golden", action="store_true", help="write golden files instead of comparing")
    parser.addoption("--require-gpu", action="store_true", help="fail, not skip, where the CUDA kernels do not run")


def pytest_collection_modifyitems(config, items):
    marked = [item for item in items if item.get_closest_marker("gpu") is not None]
    problem = _cuda_problem() if marked else ""
    if problem and config.getoption("--require-gpu"):
        pytest.exit(f"the CUDA kernels do not run here: {problem}", returncode=1)
    if problem:
        for item in marked:
            item.add_marker(pytest.mark.skip(reason="no CUDA device with kernels"))


def pytest_terminal_summary(terminalreporter):
    """Prints the number of skipped tests by reason."""
    reasons = collections.Counter()
    for report in terminalreporter.stats.get("skipped", []):
        if isinstance(report.longrepr, tuple):
            reasons[report.longrepr[2].removeprefix("Skipped: ")] += 1
    if reasons:
        terminalreporter.section("skipped, by reason")
        for reason, count in reasons.most_common():
            terminalreporter.write_line(f"{count:5}  {reason}")


def _isas():
    from vision3d.core import native  # after the hook above

    return native.require().available_isas() if native.module() else []


@pytest.fixture(params=_isas())
def isa(request):
    """Runs the test with each instruction set of the native module that this CPU supports."""
    from vision3d.core import native

    module = native.require()
    before = module.isa()
    module.set_isa(request.param)
    yield request.param
    module.set_isa(before)


@pytest.fixture(autouse=True)
def _fixed_random_state():
    """Makes random numbers independent of the order of the tests."""
    import numpy as np
    import torch

    random.seed(0)
    np.random.seed(0)  # noqa: NPY002  libraries under test draw from the global state
    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def _type_checks(request):
    """Disables the checks for tests of how invalid arguments are rejected without them."""
    if request.node.get_closest_marker("wrong_types") is None:
        yield
        return
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder of the data sets that are not part of the project: $VISION3D_DATA."""
    name = os.environ.get("VISION3D_DATA")
    if not name:
        pytest.skip("VISION3D_DATA is not set")
    if not Path(name).is_dir():
        pytest.fail(f"VISION3D_DATA={name} is not a folder")
    return Path(name)


@pytest.fixture
def update_golden(request) -> bool:
    """Whether to write golden files."""
    return request.config.getoption("--update-golden")


@pytest.fixture
def cli():
    """Runs the program in this process: `code, stdout, stderr = cli("doctor", "--json")`."""
    import contextlib
    import io
    import logging
    import warnings

    from vision3d.cli.app import execute

    logger = logging.getLogger("vision3d")
    before = (list(logger.handlers), logger.propagate, logger.level)

    def run(*arguments: object) -> tuple[int, str, str]:
        out, err = io.StringIO(), io.StringIO()
        with warnings.catch_warnings(), contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            code = execute([str(argument) for argument in arguments])
        return code, out.getvalue(), err.getvalue()

    yield run
    logger.handlers, logger.propagate = before[0], before[1]
    logger.setLevel(before[2])


def _cuda_problem() -> str:
    from vision3d.core import native  # after the hook above

    return native.cuda_problem()
