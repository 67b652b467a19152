# Everything starts from here, on a machine that has only python3 (3.10 or newer, with venv) and make.
# PYTHON makes the environment in VENV, ARGS goes to pytest: make test ARGS="tests/unit/test_order.py -x"
PYTHON ?= python3
VENV ?= .venv
ARGS ?=
# Two processes share the test files, in the order of their names: the long ones of tests/distributed come first.
WORKERS ?= 2
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
SPREAD := -n $(WORKERS) --dist loadfile --no-loadscope-reorder
BENCHMARKS := $(filter-out %/__init__.py,$(wildcard tests/benchmarks/*.py))

.DEFAULT_GOAL := help
FASHION := dcgan sngan wgangp sagan progan biggan
# What makes images, and their name; what bigtrain can do in them, and under which Python.
DOCKER ?= docker
IMAGE ?= bigtrain
EXTRAS := hf aws video onnx tensorboard dashboard
IMAGE_PYTHON := 3.11

.PHONY: help install lint format test test-all benchmarks lock image quickstart fashion

help: ## this list
	@sed -nE 's/^([a-z-]+):.*## (.*)/\1 \2/p' $(MAKEFILE_LIST) | while read -r name text; do \
		printf '  make %-12s %s\n' "$$name" "$$text"; done

install: $(INSTALLED) ## make the environment and install bigtrain into it, with what its tests need

# torch and torchvision first and together, so that pip picks the pair that was built for each other.
$(INSTALLED): pyproject.toml
	test -x $(BIN)/pip || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip install -q torch torchvision
	$(BIN)/pip install -q -e '.[dev]'
	touch $@

lint: install ## is it formatted, does ruff find a fault, do the types fit
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

format: install ## format the code and repair what ruff can repair
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

test: install ## the tests that run on every change
	$(BIN)/python -m pytest $(SPREAD) $(ARGS)

test-all: install ## these and the long ones
	$(BIN)/python -m pytest $(SPREAD) -m "long or not long" $(ARGS)

benchmarks: install ## measure what must not become slow
	@set -e; for benchmark in $(BENCHMARKS); do \
		echo "==> $$benchmark"; PYTHONPATH=. $(BIN)/python $$benchmark; done

# Two files, so that torch and CUDA, which are large, are a layer of their own. An index that uv was told of (UV_INDEX) is
# not named in them.
lock: install ## renew the versions and hashes of what the image is made of
	@set -e; cd docker; all=$$(mktemp); trap 'rm -f "$$all"' EXIT; \
	$(abspath $(BIN))/uv pip compile ../pyproject.toml $(EXTRAS:%=--extra %) --generate-hashes --only-binary :all: \
		--python-version $(IMAGE_PYTHON) --python-platform x86_64-manylinux_2_28 --upgrade \
		--no-annotate --no-header --quiet > "$$all"; \
	for file in torch.lock requirements.lock; do \
		echo "# By make lock, for Python $(IMAGE_PYTHON) on Linux (x86-64), of pyproject.toml." > $$file; done; \
	awk '/^[a-z]/ { file = /^(torch|torchvision|triton)==|^(cuda|nvidia)-/ ? "torch.lock" : "requirements.lock" } \
		{ print >> file }' "$$all"

image: ## build the container's image, by DOCKER (docker, podman or buildah)
	$(DOCKER) build -f docker/Dockerfile -t $(IMAGE) \
		--build-arg VERSION=$$(sed -nE 's/^__version__ = "(.*)"/\1/p' bigtrain/__init__.py) \
		--build-arg REVISION=$$(git rev-parse HEAD) $(ARGS) .

# Given again, it goes on where it was stopped, and passes over what is finished.
quickstart: install ## from nothing to samples of handwritten digits, in minutes
	@set -e; begun=$$(date +%s); \
	$(BIN)/bigtrain shards build digits: data/digits --resolutions 4,8,16; \
	$(BIN)/bigtrain fit --config configs/quickstart.yaml --run runs/quickstart; \
	made=$$($(BIN)/bigtrain sample runs/quickstart --num 100 --out runs/quickstart/grid.png); \
	echo "quickstart took $$(($$(date +%s) - begun)) s after the installation"; \
	echo "$$made"

# Likewise. The images are those of Debian's package dataset-fashion-mnist. Two trainings at a time, with a core each:
# with one thread the numbers do not depend on how many cores there are.
fashion: install ## six networks on Fashion-MNIST, 20 minutes of one core each: README's table and curves
	@set -e; export OMP_NUM_THREADS=1; \
	$(BIN)/bigtrain shards build idx:/usr/share/datasets/fashion-mnist data/fashion --resolutions 4,8,16,32; \
	echo $(FASHION) | xargs -n 1 | xargs -P 2 -I NAME \
		$(BIN)/bigtrain fit --config configs/NAME_fashion32.yaml --run runs/fashion32/NAME; \
	$(BIN)/bigtrain evaluate $(FASHION:%=runs/fashion32/%) --standing-stats 100 \
		--truncation 0.3,0.5,0.7,1,1.5,2,none \
		--table runs/fashion32/table.md --plot runs/fashion32/curves.png --json runs/fashion32/scores.json; \
	cat runs/fashion32/table.md
