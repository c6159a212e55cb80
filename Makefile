# Two commands for a newcomer: `make run` and `make test`. Everything is installed into .venv from requirements.lock.
# A Python of your choice: make run PYTHON=/path/to/python3.12. Options of the night: make run ARGS="--rows 0:100".
PYTHON ?= $(shell for p in python3.12 python3.11 python3 python; do \
	$$p -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 12))' 2>/dev/null && echo $$p && break; done)
BIN := .venv/bin
ARGS ?=

.PHONY: run test check lock bench virelay clean

run: .venv/installed
	$(BIN)/nightlens run $(ARGS)

# Three processes for two cores, for some tests wait for heartbeats and servers; the order keeps those from coming last.
test: .venv/installed
	$(BIN)/python -m pytest -n 3 --dist loadfile --no-loadscope-reorder $(ARGS)

check: .venv/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: .venv/installed
	$(BIN)/python tests/benchmarks/attribution.py $(ARGS)

lock: .venv/installed
	$(BIN)/uv pip compile --upgrade --universal --generate-hashes --python-version 3.11 --extra pipeline --extra reference \
		--extra dask --extra remote --extra export --extra dev --custom-compile-command "make lock" -q -o requirements.lock pyproject.toml
	$(BIN)/uv pip compile --upgrade --universal --generate-hashes --python-version 3.11 --custom-compile-command "make lock" \
		-q -o tests/virelay.lock tests/virelay.in

virelay: .venv-virelay/installed

# The environment is made beside and moved into place by its stamp: an interrupted install is started again.
.venv/installed: requirements.lock pyproject.toml
	@test -n "$(PYTHON)" || { echo "expected Python 3.11 or 3.12 on the PATH, found neither; name one: make run PYTHON=..." >&2; exit 2; }
	$(PYTHON) -m venv --clear .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes --no-deps -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@

# ViRelAy needs a newer NumPy than the audit's alibi allows; the tests of exports open their projects with this one.
.venv-virelay/installed: tests/virelay.lock
	@test -n "$(PYTHON)" || { echo "expected Python 3.11 or 3.12 on the PATH, found neither; name one: make $@ PYTHON=..." >&2; exit 2; }
	$(PYTHON) -m venv --clear .venv-virelay
	.venv-virelay/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes --no-deps -r tests/virelay.lock
	@touch $@

clean:
	rm -rf .venv .venv-virelay .mypy_cache .pytest_cache .ruff_cache *.egg-info
