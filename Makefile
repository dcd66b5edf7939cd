# Two commands are all a newcomer needs: `make demo` and `make test`.
# PIP_ARGS reaches every pip call, e.g. PIP_ARGS="--extra-index-url https://download.pytorch.org/whl/cpu".
PYTHON ?= python3
PIP_ARGS ?=
VENV := .venv
BIN := $(VENV)/bin
ZOO := .venv-zoo
TIMM := .venv-timm
TORCH_TRT := .venv-torch-trt
TRT := .venv-trt
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt $(PIP_ARGS)

# A process a core, four at most: each makes the tiny networks of the tests anew. A file's tests stay together.
PARALLEL ?= --numprocesses auto --maxprocesses 4 --dist loadfile
ARM64 := .arm64
.PHONY: demo test test-slow test-arm64 zoo timm lint install dev clean

demo: install
	$(BIN)/compress run configs/quickstart.yaml

test: dev lint
	$(BIN)/python -m pytest -m "not slow" $(PARALLEL)

test-slow: dev $(ZOO)/installed $(TORCH_TRT)/installed $(TRT)/installed
	$(BIN)/python -m pytest -m slow $(PARALLEL) --durations 25

# The device side as a board has it: Debian's arm64 userland under qemu (apt install qemu-user-static), fetched once.
test-arm64: dev $(ARM64)/ready
	$(BIN)/python -m pytest -m slow tests/slow/test_arm64.py

$(ARM64)/ready: tests/slow/arm64.sh $(BIN)/python
	tests/slow/arm64.sh $(ARM64) $(BIN)/python

# Every network of RobustBench's zoos against its own definition, in an environment that has robustbench.
zoo: $(ZOO)/installed
	$(ZOO)/bin/python benchmarks/zoo.py

# The smallest network of every family of timm through the whole tool, in an environment that has timm.
timm: $(TIMM)/installed
	$(TIMM)/bin/python benchmarks/timm_families.py

lint: dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports
	$(BIN)/mypy
	$(BIN)/vermin --quiet --no-tips --violations --target=3.10- --eval-annotations edge

# The packages of benchmarks/NAME-requirements.txt over those of the tool's own environment.
$(ZOO)/installed $(TIMM)/installed: .venv-%/installed: $(VENV)/installed benchmarks/%-requirements.txt
	$(BIN)/python -m venv .venv-$*
	.venv-$*/bin/python -m pip install --quiet --disable-pip-version-check --no-deps -r benchmarks/$*-requirements.txt
	.venv-$*/bin/python -c 'import pathlib, site; pathlib.Path(site.getsitepackages()[0], "main.pth").write_text("$(CURDIR)\n" + "\n".join(str(p) for p in pathlib.Path("$(VENV)").resolve().glob("lib/python*/site-packages")) + "\n")'
	@touch $@

# TensorRT's own Python bindings of both majors, without the libraries: what our code touches is looked up in them. A Python
# or processor that has no wheel of one is no fault here; the test says what it misses.
$(TRT)/installed: $(BIN)/python
	rm -rf $(TRT) && mkdir $(TRT)
	for pinned in 10/tensorrt-cu12-bindings==10.3.0 11/tensorrt-cu13-bindings==11.4.0.106; do \
		$(BIN)/python -m pip install --quiet --disable-pip-version-check $(PIP_ARGS) --no-deps --only-binary :all: --target $(TRT)/$${pinned%%/*} $${pinned#*/} || echo "no $${pinned#*/} for this Python"; \
	done
	@touch $@

# Torch-TensorRT's converters and the library that they are built for. Without their two compiled libraries, which want a
# torch with CUDA, they import beside any torch. Wheels are for x86-64 only; elsewhere the tests say that they skip.
$(TORCH_TRT)/installed: $(BIN)/python tests/slow/torch-tensorrt-converters.txt tests/slow/torch-tensorrt-paired.txt
	rm -rf $(TORCH_TRT) && mkdir $(TORCH_TRT)
ifeq ($(shell uname -m),x86_64)
	for part in converters paired; do \
		$(BIN)/python -m pip install --quiet --disable-pip-version-check $(PIP_ARGS) --no-deps --target $(TORCH_TRT)/$$part -r tests/slow/torch-tensorrt-$$part.txt || exit 1; \
	done
	rm $(TORCH_TRT)/converters/torch_tensorrt/lib/libtorchtrt.so $(TORCH_TRT)/converters/torch_tensorrt/lib/libtorchtrt_runtime.so
endif
	@touch $@

install: $(VENV)/installed
dev: $(VENV)/installed-dev

$(BIN)/python:
	$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or newer is needed, this is " + sys.version.split()[0] + "; choose another with make PYTHON=python3.12" if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv $(VENV)

$(VENV)/installed: $(BIN)/python pyproject.toml constraints.txt
	$(PIP) -e .
	@touch $@

$(VENV)/installed-dev: $(VENV)/installed
	$(PIP) -e ".[dev]"
	@touch $@

clean:
	rm -rf $(VENV) $(ZOO) $(TIMM) $(ARM64) $(TORCH_TRT) $(TRT) dist build .pytest_cache .ruff_cache .mypy_cache .import_linter_cache
