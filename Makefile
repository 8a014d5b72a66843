# Everything a fresh machine needs is Python >= 3.11, make and a package registry.

PYTHON ?= python3
BIN := .venv/bin

.PHONY: setup demo test docker-test check bench soak proto fmt wheels compose-smoke clean

setup: .venv/.ready  ## virtual environment with every member and the development tools

.venv/.ready: pyproject.toml proto/pyproject.toml $(wildcard libs/*/pyproject.toml services/*/pyproject.toml) sdk/pyproject.toml cli/pyproject.toml standalone/pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit("Easel needs Python 3.11 or newer; this is " + sys.version.split()[0]) if sys.version_info < (3, 11) else None'
	@test -x .uv/bin/uv || { $(PYTHON) -m venv .uv && .uv/bin/pip install --quiet uv; }
	.uv/bin/uv sync --quiet --python $(PYTHON)
	@touch $@

demo: setup  ## the main job on this machine; RUNTIME=docker: in containers; KEEP=1 leaves the platform up
	$(BIN)/python tools/demo.py $(if $(RUNTIME),--runtime $(RUNTIME)) $(if $(KEEP),--keep)

test: setup  ## unit, property, contract, flow and end-to-end tests
	$(BIN)/python -m pytest -q -m "not soak and not docker" -n 3 --dist loadfile --ignore tests/e2e
	$(BIN)/python -m pytest -q -m "not soak and not docker" -n 2 --dist loadfile tests/e2e

docker-test: setup  ## tests with a real Docker engine, which is installed and started where there is none (as root)
	$(BIN)/python deploy/engine.py
	$(BIN)/python -m pytest -q -m "docker and not soak" tests

check: setup  ## ruff, mypy strict, import-linter, generated files up to date
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python tools/check_generated.py

bench: setup  ## every benchmark, ratios side by side; results on stdout
	$(BIN)/python benchmarks/run_all.py

soak: setup  ## all fault and soak tests; results are dated into docs/soak.md
	$(BIN)/python tools/soak.py

proto: setup  ## regenerate what is generated: protobuf code, AsyncAPI, CLI and service.json pages
	$(BIN)/python tools/check_generated.py --write
	$(BIN)/ruff format -q .

fmt: setup
	$(BIN)/ruff check --fix -q . || true
	$(BIN)/ruff format -q .

wheels: setup  ## wheels of every member into dist/, and a platform run from them in a clean environment
	$(BIN)/python tools/wheels.py

compose-smoke: setup  ## images, the compose stack, examples/filetype deployed in it and called
	$(BIN)/python tools/compose_smoke.py

clean:
	rm -rf .venv .uv dist .demo .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
