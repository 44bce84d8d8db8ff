# Two commands matter: `make demo` and `make test`. Each prepares the environments it needs, once, and reuses them afterwards.

SHELL := /bin/sh
.DEFAULT_GOAL := help
.NOTPARALLEL:
.SUFFIXES:
.DELETE_ON_ERROR:

export NAT_TELEMETRY_ENABLED := false
export PIP_DISABLE_PIP_VERSION_CHECK := 1
export PIP_NO_INPUT := 1
unexport PYTHONHOME PYTHONPATH

BIN := .venv/bin
PIP := -m pip -qq

.PHONY: help
help: ## Show this list
	@echo "Usage: make TARGET [PYTHON=python3.12]"
	@sed -n 's/^\([a-z-]*\):[^#]*## \(.*\)/\1|\2/p' Makefile | while IFS='|' read -r target text; do \
		printf '  %-10s %s\n' "$$target" "$$text"; done

.PHONY: demo
demo: .venv/.runtime ## From a topic to a preference dataset, offline, in seconds
	@$(BIN)/nat finetune --config_file configs/demo.yml

# Apart from .venv, as torch is large.
.PHONY: train-demo
train-demo: .venv-train/.ready ## From a topic to a trained model, offline, on the CPU, in minutes
	@HF_HUB_OFFLINE=1 .venv-train/bin/nat finetune --config_file configs/train_local.yml

.PHONY: test
test: lint layers types unit docs compat readers training wheel ## Every check, as CI runs it
	@echo "All checks passed: format, lint, layers, types, tests, coverage, docs, comparison with NVIDIA's package, TRL reads the datasets and trains, wheel."

# The rooms that need no NAT.
PURE := tests/core tests/demo tests/generation tests/pairing

.PHONY: check
check: lint layers types ## Format, lint, layers, types and the pure tests, in less than a minute
	$(BIN)/pytest -q -n auto -m "not runs" $(PURE)

.PHONY: setup
setup: .venv/.dev ## Prepare .venv for development

.PHONY: format
format: .venv/.dev ## Rewrite the code in the project's format
	$(BIN)/ruff check --quiet --select I --fix .
	$(BIN)/ruff format .

.PHONY: lint
lint: .venv/.dev ## Check format and lint rules
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

.PHONY: layers
layers: .venv/.dev ## Check which room imports which
	$(BIN)/lint-imports --no-logo

.PHONY: types
types: .venv/.dev ## Check types
	$(BIN)/mypy

.PHONY: unit
unit: .venv/.dev ## Run the tests; the core must be covered to the last branch
	$(BIN)/pytest -n auto --cov --cov-report=term
	$(BIN)/coverage report --include='*/nat_dpo_pipeline/core/*' --fail-under=100

# Strict: a link that leads nowhere fails. What is said on standard error is about MkDocs' future and NAT's past.
.PHONY: docs
docs: .venv/.dev ## Build the documentation as a site, in .build/site
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet 2>.build/docs.log || { cat .build/docs.log >&2; exit 1; }
	@echo "The documentation is in .build/site/index.html"

.PHONY: compat
compat: .venv-compat/.ready ## Compare with NVIDIA's own package, in an environment that has it
	.venv-compat/bin/pytest -qq tests/compat

# Apart from the other tests and their settings, as warnings of torch and its like are not ours.
.PHONY: readers
readers: .venv-train/.ready ## Read datasets with TRL, in an environment that has it
	HF_HUB_OFFLINE=1 .venv-train/bin/pytest -qq -c /dev/null --rootdir=tests/readers --confcutdir=tests/readers \
		--import-mode=importlib -p no:cacheprovider -o asyncio_default_fixture_loop_scope=function tests/readers

.PHONY: training
training: .venv-train/.ready ## Train small models with TRL, in an environment that has it
	HF_HUB_OFFLINE=1 .venv-train/bin/python -m pytest -qq -c /dev/null --rootdir=tests/training --confcutdir=tests/training \
		--import-mode=importlib -p no:cacheprovider -o asyncio_mode=auto -o asyncio_default_fixture_loop_scope=function tests/training

.PHONY: wheel
wheel: .venv/.dev .venv-wheel/.created ## Build the wheel, install it in clean environments and use it there
	@rm -rf .build/dist .build/bare
	$(BIN)/python -m build --outdir .build/dist . >.build/build.log 2>&1 || { cat .build/build.log >&2; exit 1; }
	@"$$(head -n 1 .build/python)" -m venv --without-pip .build/bare
	@$(BIN)/python $(PIP) --python .build/bare/bin/python install --no-deps .build/dist/*.whl
	.build/bare/bin/python -I tests/packaging/check_bare.py
	@.venv-wheel/bin/python $(PIP) install --no-deps --force-reinstall .build/dist/*.whl
	@.venv-wheel/bin/python $(PIP) install .build/dist/*.whl
	.venv-wheel/bin/python -I tests/packaging/check_installed.py

.PHONY: bench
bench: .venv-compat/.bench ## Measure speed, beside NVIDIA's package and others
	@for script in benchmarks/*.py; do .venv-compat/bin/python -W ignore "$$script" || exit 1; done

.PHONY: clean
clean: ## Remove environments, caches and build results
	rm -rf .venv .venv-compat .venv-train .venv-wheel .build dist .hypothesis .mypy_cache .pytest_cache .ruff_cache .import_linter_cache
	find src tests benchmarks -name __pycache__ -type d -prune -exec rm -rf {} +

# Environments. A stamp file tells that one is complete; it is older than what it was made from when that changed.

.venv/.runtime: .venv/.created pyproject.toml
	@[ ! -e $@ ] || echo "Updating .venv ..."
	@$(BIN)/python $(PIP) install --editable .
	@touch $@

.venv/.dev: .venv/.created pyproject.toml
	@[ ! -e $@ ] || echo "Updating .venv ..."
	@$(BIN)/python $(PIP) install --editable '.[dev]'
	@touch .venv/.runtime $@

.venv-compat/.ready: .venv-compat/.created pyproject.toml
	@[ ! -e $@ ] || echo "Updating .venv-compat ..."
	@.venv-compat/bin/python $(PIP) install --editable . --group compat
	@touch $@

.venv-compat/.bench: .venv-compat/.ready
	@.venv-compat/bin/python $(PIP) install --editable '.[scale]' --group bench
	@touch $@

# torch first: it is the largest by far, and what comes after it must not bring another one.
.venv-train/.ready: .venv-train/.created pyproject.toml
	@[ ! -e $@ ] || echo "Updating .venv-train ..."
	@.venv-train/bin/python $(PIP) install torch==2.13.0
	@.venv-train/bin/python $(PIP) install --editable '.[train]' torch==2.13.0 --group readers
	@touch $@

.venv/.created .venv-compat/.created .venv-train/.created .venv-wheel/.created: .build/python
	@echo "Setting up $(@D) with Python $$(sed -n 2p .build/python) (about a minute, once) ..."
	@"$$(head -n 1 .build/python)" -m venv --clear $(@D)
	@$(@D)/bin/python $(PIP) install --upgrade pip
	@touch $@

# Which interpreter: only running one tells, for a version manager's shim may lead nowhere and Debian's python3 may lack ensurepip.
# The file changes, and with it every environment, only when the answer does.
PROBE := import ensurepip, os, sys, venv; assert (3, 11) <= sys.version_info < (3, 14); \
	print(os.path.realpath(sys.executable), sys.version.split()[0], os.getcwd(), sep="\n")

.build/python: FORCE
	@mkdir -p .build
	@for python in "$(PYTHON)" python3.13 python3.12 python3.11 python3 none; do \
		"$$python" -c '$(PROBE)' >.build/python.$$$$ 2>/dev/null && break; \
	done; \
	if [ "$$python" = none ]; then \
		rm -f .build/python.$$$$; \
		echo "error: no usable Python: 3.11, 3.12 or 3.13 with its venv module is needed; name one with 'make PYTHON=...'" >&2; exit 1; \
	elif [ -n "$(PYTHON)" ] && [ "$$python" != "$(PYTHON)" ]; then \
		echo "PYTHON=$(PYTHON) is not a usable Python 3.11 to 3.13; using $$python instead" >&2; \
	fi; \
	if cmp -s .build/python.$$$$ .build/python; then rm .build/python.$$$$; else mv .build/python.$$$$ .build/python; fi

.PHONY: FORCE
FORCE:
