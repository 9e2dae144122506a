# `make demo` and `make test` each set up .venv on first use.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo test check docs bench claims clean

demo: .venv/ready
	$(BIN)/lossfit compare tweets --metric accuracy --out demo/tweets --resume
	$(BIN)/lossfit compare tweets --metric accuracy --label-noise 0.4 --out demo/tweets-noisy --resume
	$(BIN)/lossfit compare yeast --metric balanced_accuracy --out demo/yeast --resume
	@echo "Open demo/tweets/report.html, demo/tweets-noisy/report.html and demo/yeast/report.html."

test: .venv/ready
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2

check: .venv/ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

docs: .venv/ready
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict

claims: .venv/ready
	$(BIN)/lossfit claims --out docs/claims

bench: .venv/ready
	$(BIN)/python benchmarks/dense.py

.venv/ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $@

clean:
	rm -rf .venv demo site
