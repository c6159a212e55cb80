# Two commands for a newcomer: `make run` and `make test`. Everything is installed into .venv from requirements.lock.
# A Python of your choice: make run PYTHON=/path/to/python3.12. Options of the night: make run ARGS="--rows 0:100".
# .venv has the audit's alibi, which needs NumPy 1 and so Python 3.11 or 3.12. Without it the pipeline runs on NumPy 2, under
# every Python that TensorFlow 2.21 has wheels for: 3.11 to 3.13. Stores are read under 3.11 and newer.
PYTHON ?= $(shell for p in python3.12 python3.11 python3 python; do \
	$$p -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 12))' 2>/dev/null && echo $$p && break; done)
NO_PYTHON = expected Python 3.11 or 3.12 on the PATH, found neither; name one: make $@ PYTHON=...
# The first of these versions that is installed, on the PATH or among pyenv's.
find_python = $(shell for v in $(1); do for p in python$$v "$${PYENV_ROOT:-$$HOME/.pyenv}"/versions/$$v.*/bin/python; do \
	"$$p" -c '' 2>/dev/null && echo "$$p" && exit; done; done)
PYTHON_NUMPY2 ?= $(call find_python,3.13 3.12 3.11)
PYTHON_READER ?= $(call find_python,3.14 3.13)
BIN := .venv/bin
ARGS ?=
# Into an environment, from a lock; uv does it in a fifth of pip's time.
define install
$(BIN)/uv pip install --quiet --python $(1)/bin/python --require-hashes --no-deps -r $(2)
$(BIN)/uv pip install --quiet --python $(1)/bin/python --no-deps --no-build-isolation --editable .
endef
# What an analyst does with a store needs the base install, exports and remote stores: tests/storage without the tests of writing
# and of the pipeline. Slow ones run in .venv alone.
READER_TESTS = tests/house/test_door.py tests/house/test_readme.py tests/browse/test_browse_app.py tests/browse/test_browse_published.py $(filter-out $(addprefix tests/storage/,test_crash% test_disk% \
	test_export_virelay% test_figures% test_storage_chunks% test_storage_lock% test_storage_nights% test_storage_part% test_storage_rounding% \
	test_storage_seal% test_virtual%),$(wildcard tests/storage/test_*.py)) -m "not slow"
# What of the pipeline meets NumPy and pandas in another way than a reader does.
NUMPY2_TESTS = tests/storage/test_figures.py tests/pages/test_report.py tests/night/test_night_without_reference.py

.PHONY: run test test-numpy2 test-reader check lock bench peers virelay atlas mlflow quantus clean

run: .venv/installed
	$(BIN)/nightlens run $(ARGS)

# Three processes for two cores, for some tests wait for heartbeats and servers; the order keeps those from coming last.
test: .venv/installed
	$(BIN)/python -m pytest -n 3 --dist loadfile --no-loadscope-reorder $(ARGS)

check: .venv/installed
	$(BIN)/ruff check --no-cache .
	$(BIN)/ruff format --no-cache --check .
	$(BIN)/mypy

bench: .venv/installed
	$(BIN)/python tests/benchmarks/attribution.py $(ARGS)

# The newest of everything; `make lock UPGRADE=` keeps what is locked and adds what is new in pyproject.toml.
UPGRADE ?= --upgrade
COMPILE = $(BIN)/uv pip compile $(UPGRADE) --universal --generate-hashes --python-version 3.11 --custom-compile-command "make lock" -q
PEERS := tests/benchmarks/peers
PIPELINE := --extra pipeline --extra dask --extra remote --extra export --extra browse --extra tensorboard --extra mlflow --extra dev
lock: .venv/installed
	$(COMPILE) $(PIPELINE) --extra reference -o requirements.lock pyproject.toml
	$(COMPILE) --no-config $(PIPELINE) -o requirements-numpy2.lock pyproject.toml
	$(COMPILE) --no-config --extra remote --extra export --extra browse --extra tensorboard -o tests/reader.lock pyproject.toml tests/reader.in
	$(COMPILE) -o tests/virelay.lock tests/virelay.in
	$(COMPILE) --override tests/atlas.overrides -o tests/atlas.lock tests/atlas.in
	$(COMPILE) --override tests/mlflow.overrides -o tests/mlflow.lock tests/mlflow.in
	$(COMPILE) --no-deps -o tests/quantus.lock tests/quantus.in
	$(COMPILE) -o $(PEERS)/captum.lock $(PEERS)/captum.in
	$(COMPILE) --override $(PEERS)/xplique.overrides -o $(PEERS)/xplique.lock $(PEERS)/xplique.in

# The pipeline without the reference, on NumPy 2 and pandas 3: what reads and draws, and a small night that says it was not audited.
test-numpy2: .venv-numpy2/installed
	.venv-numpy2/bin/python -m pytest -n 2 --dist loadfile $(READER_TESTS) $(NUMPY2_TESTS) $(ARGS)

# An analyst's environment: the base install with exports and remote stores, under the newest Python here.
test-reader:
	$(if $(PYTHON_READER),$(MAKE) --no-print-directory .venv-reader/installed,\
		@echo "test-reader: neither Python 3.14 nor 3.13 is installed; reading was tested under older ones only")
	$(if $(PYTHON_READER),.venv-reader/bin/python -m pytest -n 2 --dist loadfile $(READER_TESTS) $(ARGS))

virelay: .venv-virelay/installed

atlas: .venv-atlas/installed

mlflow: .venv-mlflow/installed

quantus: .venv-quantus/installed

# Other engines for `make bench`: 4 GB to download, most of it what PyTorch brings for GPUs, and 8.4 GB on the disk.
peers: .venv-captum/installed .venv-xplique/installed

# The last thing in an environment is its stamp: an interrupted install is started again.
.venv/installed: requirements.lock pyproject.toml
	@test -n "$(PYTHON)" || { echo "$(NO_PYTHON)" >&2; exit 2; }
	$(PYTHON) -m venv --clear .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes --no-deps -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@

.venv-numpy2/installed: requirements-numpy2.lock pyproject.toml | .venv/installed
	$(PYTHON_NUMPY2) -m venv --clear .venv-numpy2
	$(call install,.venv-numpy2,$<)
	@touch $@

.venv-reader/installed: tests/reader.lock pyproject.toml | .venv/installed
	$(PYTHON_READER) -m venv --clear .venv-reader
	$(call install,.venv-reader,$<)
	@touch $@

# They need a newer NumPy than the audit's alibi allows; the tests of exports open what they find with these, and log to that server.
.venv-virelay/installed .venv-atlas/installed .venv-mlflow/installed: .venv-%/installed: tests/%.lock
	@test -n "$(PYTHON)" || { echo "$(NO_PYTHON)" >&2; exit 2; }
	$(PYTHON) -m venv --clear .venv-$*
	.venv-$*/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes --no-deps -r $<
	@touch $@

# Other people's removal curves, for a test. It lies beside .venv, which has what it imports: the locks of the product stay without it.
.venv-quantus/installed: tests/quantus.lock | .venv/installed
	rm -rf .venv-quantus
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes --no-deps --target .venv-quantus -r $<
	@touch $@

# They want another NumPy than the audit's alibi, and PyTorch.
.venv-captum/installed .venv-xplique/installed: .venv-%/installed: $(PEERS)/%.lock
	@test -n "$(PYTHON)" || { echo "$(NO_PYTHON)" >&2; exit 2; }
	$(PYTHON) -m venv --clear .venv-$*
	.venv-$*/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes --no-deps -r $<
	@touch $@

clean:
	rm -rf .venv .venv-numpy2 .venv-reader .venv-virelay .venv-atlas .venv-mlflow .venv-quantus .venv-captum .venv-xplique .mypy_cache .pytest_cache .ruff_cache *.egg-info
