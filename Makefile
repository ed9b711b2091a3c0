# Everything that a developer does. `make help` lists it; `make demo` and `make test` need nothing but
# git, make, g++, python3-dev and python3-venv, and set up .venv by themselves.
.DEFAULT_GOAL := help
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
MAKEFLAGS += --no-print-directory

PYTHON ?=
TESTS ?= tests
PROCESSES ?= 2
BIN := .venv/bin
# One thread a test process: two processes already fill two cores, and more threads than cores wait for each other.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(PROCESSES) --dist worksteal
CPP_SOURCES := find cuda_ext -name '*.h' -o -name '*.cpp' -o -name '*.cu'
CHECK_ARCHITECTURES ?= 90-real;100-real;120-real
WHEEL_ARCHITECTURES ?= 75-real;80-real;86-real;89-real;90-real;100-real;120
NATIVE_SOURCES := CMakeLists.txt pyproject.toml $(shell find cuda_ext -type f)

.PHONY: help
help:  ## list these commands
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-16s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.venv/installed: .ci/setup $(NATIVE_SOURCES)
	@PYTHON="$(PYTHON)" .ci/setup

.venv/installed-dev: .ci/setup $(NATIVE_SOURCES)
	@PYTHON="$(PYTHON)" .ci/setup dev

.venv/installed-viewer: .ci/setup .ci/setup-viewer tests/outside/package-lock.json $(NATIVE_SOURCES)
	@PYTHON="$(PYTHON)" .ci/setup dev,mesh,viewer
	@.ci/setup-viewer
	@touch $@

.PHONY: setup
setup: .venv/installed-dev  ## create .venv for development (PYTHON=python3.12 selects the interpreter)

.PHONY: build
build: .venv/installed-dev  ## build the wheel, without CUDA, and the source package into dist/
	@VISION3D_CUDA=OFF $(BIN)/python -m build --no-isolation --outdir dist

.PHONY: wheel-cuda
wheel-cuda: .venv/installed-dev  ## build a wheel with CPU and CUDA kernels for all architectures into dist/ (needs nvcc; takes long)
	@command -v "$${CUDACXX:-nvcc}" > /dev/null || { echo "error: nvcc not found: put the CUDA toolkit on PATH or set CUDACXX" >&2; exit 1; }
	@VISION3D_CUDA=ON VISION3D_CUDA_ARCHITECTURES="$(WHEEL_ARCHITECTURES)" $(BIN)/python -m build --no-isolation --wheel --outdir dist

.PHONY: lint
lint: .venv/installed-dev  ## run the linters
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(CPP_SOURCES) | xargs $(BIN)/clang-format --dry-run -Werror

.PHONY: format
format: .venv/installed-dev  ## format the code
	@$(BIN)/ruff check --fix-only --quiet .
	@$(BIN)/ruff format .
	@$(CPP_SOURCES) | xargs $(BIN)/clang-format -i

.PHONY: type
type: .venv/installed-dev  ## check the types
	@$(BIN)/pyright --pythonpath $(BIN)/python

.PHONY: imports
imports: .venv/installed-dev  ## check the import order of packages
	@$(BIN)/python -m pytest -q tests/test_imports.py

.PHONY: test
test: .venv/installed-dev  ## run the quick tests (TESTS=tests/io narrows them)
	@$(PYTEST) -m "not slow and not gpu and not viewer" $(TESTS)

.PHONY: test-slow
test-slow: .venv/installed-dev  ## run all tests, including those above 5 s (as CI does)
	@$(PYTEST) -m "not gpu and not viewer" $(TESTS)

.PHONY: test-torch
test-torch:  ## run the tests that depend on torch with the oldest and newest version (downloads both)
	@.ci/test-torch

.PHONY: test-gpu
test-gpu:  ## build with CUDA and run the tests that need a GPU; fail where the kernels do not run
	@VISION3D_CUDA=ON .ci/setup dev
	@$(BIN)/python -m pytest -m gpu --require-gpu $(TESTS)

.PHONY: test-viewer
test-viewer: .venv/installed-viewer  ## run the tests that need a display, a browser, node or Open3D (installs them)
	@$(PYTEST) -m "viewer and not gpu" $(TESTS)

.PHONY: check-native
check-native:  ## stress the thread pool of the kernels under sanitizers
	@.ci/check-native

.PHONY: fuzz-native
fuzz-native: .venv/installed-dev  ## call every operation with random arguments under AddressSanitizer (minutes to compile)
	@.ci/fuzz-native

.PHONY: check-cuda
check-cuda: .venv/installed-dev  ## compile the CUDA side with nvcc (CHECK_ARCHITECTURES="90-real;100-real;120-real")
	@command -v "$${CUDACXX:-nvcc}" > /dev/null || { echo "error: nvcc not found: put the CUDA toolkit on PATH or set CUDACXX" >&2; exit 1; }
	@$(BIN)/cmake -S . -B build/cuda -G Ninja -Wno-dev -DVISION3D_CUDA=ON "-DVISION3D_CUDA_ARCHITECTURES=$(CHECK_ARCHITECTURES)" -DCMAKE_BUILD_TYPE=Release \
	  -DPython_EXECUTABLE="$$PWD/$(BIN)/python" -DCMAKE_MAKE_PROGRAM="$$PWD/$(BIN)/ninja" \
	  -Dnanobind_DIR="$$($(BIN)/python -m nanobind --cmake_dir)"
	@$(BIN)/cmake --build build/cuda --target _native
	@cd build/cuda/cuda_ext && ../../../$(BIN)/python -c "import _native as m; assert m.has_cuda; print('compiled for', m.cuda_architectures, m.cuda_problem(0))"

.PHONY: check-device
check-device: .venv/installed-dev  ## run all commands on a pretended GPU and print waits and copies of a step beside their budget
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -s tests/test_pretended_device.py

.PHONY: check-cuda-races
check-cuda-races: .venv/installed-dev  ## run the CUDA kernels on the CPU under ThreadSanitizer (OPTIONS=--full takes long)
	@.ci/check-cuda-races $(OPTIONS)

.PHONY: bench
bench: .venv/installed-dev  ## run the benchmarks on an idle machine (PEERS=FOLDER adds other programs)
	@for name in raster rotations step scaling physics install fit formats; do \
	  echo "$$name"; $(BIN)/python "benchmarks/bench_$$name.py" $(if $(PEERS),--peers $(PEERS)); \
	done

.PHONY: demo
demo: .venv/installed  ## train on the bundled photos and report held-out quality
	@$(BIN)/vision3d demo --overwrite

.PHONY: check
check:  ## run what CI runs
	@.ci/run

.PHONY: clean
clean:  ## remove all build output and .venv
	@rm -rf .venv build dist .pytest_cache .ruff_cache .hypothesis
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +
