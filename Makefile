# Each target sets up what it needs in .venv by itself.  Requires Python 3.11 or later.
#   make demo [CT=file] [MODEL=folder]   segment a chest CT and leave the result in demo/
#   make test                            run all tests
#   make evaluate                        disease that readers marked, painted disease, baselines (needs the real CT)
#   make evaluate-all                    the same, older painted lesions, ablations, probe, robustness; goes on after a stop
#   make ablations                       train the models of its ablations by training (before evaluate-all; about an hour)
#   make bench [QUICK=1]                 time and memory beside other methods (about an hour; QUICK=1: minutes)
#   make robustness                      bad input, faults and security; ends with how many were tried and held
#   make soak [CASES=300]                many cases in one process: does the memory stay flat?
#   make fuzz [FUZZ_SECONDS=3600]        broken headers by the thousand; findings lie in fuzz/
#   make audit                           bandit, pip-audit (needs a network) and an SBOM, audit/sbom.json
#   make slow                            the slow lane of CI: robustness, audit, soak
#   make screenshots [CT=file]           pictures of the Slicer panel at work, into Resources/Screenshots
#   make lint                            formatting, lint, types
#   make format                          let ruff put the formatting right
#   make clean                           remove what the above made, .venv and ablations excepted
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --disable-pip-version-check --quiet

# The torch that everything was tried with.  Installed alone and first: left to pick any version within the
# requirements, pip takes the newest of the public index, which on Linux brings gigabytes of CUDA libraries even
# where a wheel folder (PIP_FIND_LINKS) offers a CPU build of this one.  TORCH_OPTIONS goes to this install alone.
TORCH := torch==2.13.0
TORCH_OPTIONS ?=

# The page in the browser needs it; it asks for slicer-core 5.11 and works with the tests' 5.13 too.
LAYER_DM := slicer-layer-dm==2.0.0

REQUIREMENTS := pyproject.toml DiffSegLung/Resources/requirements.txt

.PHONY: help demo browser test evaluate evaluate-all ablations bench robustness soak fuzz audit slow screenshots lint format clean

help:
	@sed -n 's/^#   //p' Makefile

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or later is needed: make PYTHON=...")'
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed-torch: | $(BIN)/python
	@echo "Installing $(TORCH) ..."
	$(PIP) $(TORCH_OPTIONS) $(TORCH)
	@touch $@

# The order is kept below, also by make -j: two pips must not write into one .venv.
$(VENV)/.installed-runtime: $(REQUIREMENTS) $(VENV)/.installed-torch
	@echo "Installing DiffSegLung and what it needs ..."
	$(PIP) --editable .
	@touch $@

$(VENV)/.installed-test: $(VENV)/.installed-runtime
	@echo "Installing what the tests need ..."
	$(PIP) --editable '.[test]'
	$(PIP) --no-deps $(LAYER_DM)
	@touch $@

$(VENV)/.installed-dev: $(VENV)/.installed-test
	@echo "Installing ruff, mypy and pre-commit ..."
	$(PIP) --editable '.[dev]'
	@touch $@

# --- demo ---

# The CT of the demo: CT=file, else a real one where the development data lie, else the phantom.
PHANTOM := demo/phantom.nrrd
CT ?= $(shell file='$(or $(DIFFSEGLUNG_DATA),../shared/data)/train/P001.nii.gz'; \
    if [ -e "$$file" ]; then echo "$$file"; else echo '$(PHANTOM)'; fi)
MODEL ?=

$(PHANTOM): | $(VENV)/.installed-runtime
	@mkdir -p demo
	$(BIN)/diffseglung phantom '$@'

demo: $(VENV)/.installed-runtime $(filter $(PHANTOM),$(CT))
	@mkdir -p demo
	@echo 'Segmenting $(CT)'
	@$(BIN)/diffseglung segment '$(CT)' --output demo/segmentation.seg.nrrd --overview demo/overview.png \
	    --report demo --manifest demo/manifest.json $(if $(MODEL),--model '$(MODEL)')
	@echo
	@echo 'Segmentation  demo/segmentation.seg.nrrd   (opens in 3D Slicer)'
	@echo 'Picture       demo/overview.png'
	@echo 'Report        demo/report.html             (opens in a browser; numbers also in demo/measures.csv)'
	@echo 'Provenance    demo/manifest.json'

# --- checks ---

# For the tests of page and printed report.  Where Debian's packages may not be installed they are skipped; in
# CI (CI=true) they fail.
browser:
	@if command -v chromium chromium-browser google-chrome >/dev/null && command -v pdftotext >/dev/null; then :; \
	elif [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	    echo "Installing Chromium and poppler ..."; \
	    apt-get update -qq && DEBIAN_FRONTEND=noninteractive \
	        apt-get install -qq --yes --no-install-recommends chromium poppler-utils >/dev/null || true; \
	else echo "No Chromium or pdftotext: apt-get install chromium poppler-utils"; fi

# A process a core, a file of tests at a time: each keeps its own Slicer, and torch shall not want all cores.
test: $(VENV)/.installed-test browser
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest Testing -m "not slow" --numprocesses auto --dist loadfile

# The user's own models, where ablations puts its own and evaluate-all looks for them.
MODELS := $(or $(DIFFSEGLUNG_MODELS),$(CURDIR)/ablations/models)

evaluate: $(VENV)/.installed-runtime
	DIFFSEGLUNG_MODELS='$(MODELS)' $(BIN)/diffseglung evaluate --output Testing/evaluation

evaluate-all: $(VENV)/.installed-runtime
	DIFFSEGLUNG_MODELS='$(MODELS)' $(BIN)/diffseglung evaluate --all --output Testing/evaluation

# One core; a run that was stopped goes on.
ablations: $(VENV)/.installed-runtime
	OMP_NUM_THREADS=1 $(BIN)/python -m Testing.evaluation.ablations --models '$(MODELS)'

# On a quiet machine; the figures are kept beside those of `evaluate`.
bench: $(VENV)/.installed-runtime
	$(BIN)/python -m Testing.bench.run $(if $(QUICK),--quick)
# The slow cases, which make test leaves out, too; one process, so that the model is loaded once.
robustness: $(VENV)/.installed-test
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest Testing/robustness --quiet

CASES ?= 300
soak: $(VENV)/.installed-runtime
	OMP_NUM_THREADS=1 $(BIN)/python -m Testing.robustness.soak $(CASES)

FUZZ_SECONDS ?= 3600
fuzz: $(VENV)/.installed-test
	OMP_NUM_THREADS=1 $(BIN)/python -m Testing.robustness.fuzz $(FUZZ_SECONDS) fuzz

$(VENV)/.installed-audit: $(VENV)/.installed-runtime
	@echo "Installing bandit, pip-audit and cyclonedx ..."
	$(PIP) --editable '.[audit]'
	@touch $@

audit: $(VENV)/.installed-audit
	@mkdir -p audit
	$(BIN)/bandit --recursive DiffSegLung DiffSegLungLib --severity-level medium --quiet
	$(BIN)/cyclonedx-py environment $(BIN)/python --pyproject pyproject.toml --output-file audit/sbom.json
	$(BIN)/python -m Testing.robustness.audit $(BIN)/pip-audit

# CI's slow lane: what takes too long for each change.
slow: robustness audit soak

# With a display (or xvfb-run) the window is a real one; without, Qt draws off screen.
screenshots: $(VENV)/.installed-test $(filter $(PHANTOM),$(CT))
	QT_QPA_PLATFORM=$${QT_QPA_PLATFORM:-$(if $(DISPLAY),xcb,offscreen)} \
	    $(BIN)/python Testing/ui/take_screenshots.py '$(CT)' Resources/Screenshots

SOURCES := DiffSegLung DiffSegLungLib Testing

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check $(SOURCES)
	$(BIN)/ruff format --check $(SOURCES)
	$(BIN)/mypy

format: $(VENV)/.installed-dev
	$(BIN)/ruff check --fix $(SOURCES)
	$(BIN)/ruff format $(SOURCES)

clean:
	rm -rf demo build dist fuzz audit *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find DiffSegLungLib Testing -name __pycache__ -prune -exec rm -rf {} +
