# Two commands are all a newcomer needs: `make demo` and `make test`.
# PIP_ARGS reaches every pip call, e.g. PIP_ARGS="--extra-index-url https://download.pytorch.org/whl/cpu".
PYTHON ?= python3
PIP_ARGS ?=
VENV := .venv
BIN := $(VENV)/bin
ZOO := .venv-zoo
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt $(PIP_ARGS)

.PHONY: demo test test-slow zoo lint install dev clean

demo: install
	$(BIN)/compress run configs/quickstart.yaml

test: dev lint
	$(BIN)/python -m pytest -m "not slow"

test-slow: dev $(ZOO)/installed
	$(BIN)/python -m pytest -m slow

# Every network of RobustBench's zoos against its own definition, in an environment that has robustbench.
zoo: $(ZOO)/installed
	$(ZOO)/bin/python benchmarks/zoo.py

lint: dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports
	$(BIN)/mypy
	$(BIN)/vermin --quiet --no-tips --violations --target=3.10- --eval-annotations edge compress/artifact.py compress/errors.py compress/names.py compress/__init__.py

$(ZOO)/installed: $(VENV)/installed benchmarks/zoo-requirements.txt
	$(BIN)/python -m venv $(ZOO)
	$(ZOO)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps -r benchmarks/zoo-requirements.txt
	$(ZOO)/bin/python -c 'import pathlib, site; pathlib.Path(site.getsitepackages()[0], "main.pth").write_text("$(CURDIR)\n" + "\n".join(str(p) for p in pathlib.Path("$(VENV)").resolve().glob("lib/python*/site-packages")) + "\n")'
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
	rm -rf $(VENV) $(ZOO) dist build .pytest_cache .ruff_cache .mypy_cache .import_linter_cache
