# Targets that need Python packages set up .venv on first use.
PYTHON ?= python3
BIN := .venv/bin
# Compiled files are kept: both workers and the commands that tests start import the same ones.
PYTEST := OMP_NUM_THREADS=1 PYTHONDONTWRITEBYTECODE= $(BIN)/python -m pytest

.PHONY: help demo test test-fast test-all test-vision coverage check format docs bench claims vision clean

help: ## Show this help.
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: .venv/ready ## Compare the losses on the bundled data sets, three times.
	$(BIN)/lossfit compare tweets --metric accuracy --out demo/tweets --resume
	$(BIN)/lossfit compare tweets --metric accuracy --label-noise 0.4 --out demo/tweets-noisy --resume
	$(BIN)/lossfit compare yeast --metric balanced_accuracy --out demo/yeast --resume
	@echo "Open demo/tweets/report.html, demo/tweets-noisy/report.html and demo/yeast/report.html."

test: .venv/ready ## Run every test but the slow ones.
	$(PYTEST) -n 2 --dist worksteal

test-fast: .venv/ready ## Run the laws of the core, in less than a minute.
	$(PYTEST) -n 2 --dist worksteal tests/core tests/gaps tests/laws tests/test_layout.py

test-all: .venv/ready .timm/ready ## Run every test, also the slow ones: browsers, wheels, clusters, compilers, trainings.
	$(PYTEST) -n 2 --dist worksteal -m "slow or not slow"

test-vision: .venv/ready .timm/ready ## Run the tests with pictures, which need timm.
	$(PYTEST) -m "slow or not slow" tests/integrations/test_vision.py

coverage: .venv/ready ## Run `make test`, and show the lines that no test runs.
	$(PYTEST) -n 2 --dist worksteal --cov=lossfit --cov-report=term-missing:skip-covered

check: .venv/ready ## Check style and types.
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: .venv/ready ## Mend the style where that needs no thought.
	$(BIN)/ruff check --fix-only .
	$(BIN)/ruff format .

docs: .venv/ready ## Build the documentation in site/.
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict

claims: .venv/ready ## Run the articles' statements, and write docs/claims.
	$(BIN)/lossfit claims --out docs/claims

vision: .venv/ready .timm/ready ## Run the examples with pictures.
	$(BIN)/python examples/vision_timm.py --timm .timm
	$(BIN)/python examples/segmentation.py

bench: .venv/ready ## Time the single-label losses against F.cross_entropy.
	$(BIN)/python benchmarks/dense.py

.venv/ready: pyproject.toml constraints.txt hatch_build.py $(wildcard src/lossfit/native/csrc/*)
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $@

# Its torchvision is not the one that belongs to the CPU build of torch, so it stays out of .venv.
.timm/ready: constraints.txt .venv/ready
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --upgrade -c constraints.txt --target .timm timm torchvision
	touch $@

clean: ## Remove what the other targets made.
	rm -rf .venv .timm demo site
