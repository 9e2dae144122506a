# `make demo` and `make test` each set up .venv on first use.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo test check bench claims vision clean

demo: .venv/ready
	$(BIN)/lossfit compare tweets --metric accuracy --out demo/tweets --resume
	$(BIN)/lossfit compare tweets --metric accuracy --label-noise 0.4 --out demo/tweets-noisy --resume
	$(BIN)/lossfit compare yeast --metric balanced_accuracy --out demo/yeast --resume
	@echo "Open demo/tweets/report.html, demo/tweets-noisy/report.html and demo/yeast/report.html."

test: .venv/ready .timm/ready
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2

check: .venv/ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

claims: .venv/ready
	$(BIN)/lossfit claims --out docs/claims

vision: .venv/ready .timm/ready
	$(BIN)/python examples/vision_timm.py --timm .timm
	$(BIN)/python examples/segmentation.py

bench: .venv/ready
	$(BIN)/python benchmarks/dense.py

.venv/ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $@

# Its torchvision is not the one that belongs to the CPU build of torch, so it stays out of .venv.
.timm/ready: constraints.txt .venv/ready
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --upgrade -c constraints.txt --target .timm timm torchvision
	touch $@

clean:
	rm -rf .venv .timm demo
