PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

REFERENCE := out/reference
SOURCE ?= $(REFERENCE)/source
ELSEWHERE ?= $(SOURCE)/checkpoints
JOBS ?= 2
UV ?= uv
UPGRADE ?=
KILLS ?= 60
DEMO_FIGURES := population,rotations,mechanism,importance,heldout,drawn,table_drawn
PUBLISHED_FIGURES := confounding,dose_response,influence,msb_by_depth,msb_by_operator,msb_invariance,shift_surface,table_classification,within_between
TABLES ?= data/reference/digits
POPULATION := data/reference/population/tables
STUDY ?= $(POPULATION)
TRAINED := $(REFERENCE)/zoo
MEASURE := $(BIN)/invariscope collect --out $(REFERENCE)/tables
REFERENCE_DATA := $(REFERENCE)/data/mnist/test.parquet
LOOKED := max avg aps
ATTACKED := max avg subsample soft-beta1 blur-3 aps lp-p4 tips

.PHONY: answer bench demo docs docs-site drawn figures looks power reference reference-tables reproduce test test-full soak lint types lock zoo sweep clean

demo: $(VENV)/installed  ## bundled zoo -> tables -> statistics -> figures, in out/demo
	$(BIN)/invariscope demo --out out/demo

test: lint types  ## linter, formatter check, type check, tests
	$(BIN)/pytest -q -n 2 --dist worksteal

test-full: lint types  ## all tests with their long variants, on all of the real data as well (three quarters of an hour)
	INVARISCOPE_FULL=1 $(BIN)/pytest -q -n 2 --dist worksteal --timeout 7200

soak: $(VENV)/installed  ## kill runs at KILLS random moments, and compare what the next ones make of it (minutes)
	INVARISCOPE_FULL=1 INVARISCOPE_KILLS=$(KILLS) $(BIN)/pytest -q tests/collectors/test_faults.py --timeout 36000

docs: demo  ## what docs/bundled-zoo.md shows, from a demo of one's own
	$(MAKE) drawn TABLES=out/demo/tables

docs-site: $(VENV)/installed  ## the documentation site, in out/docs-site; warnings are errors, no network is needed
	$(BIN)/sphinx-build -q -W --keep-going -b html docs out/docs-site
	@echo "open out/docs-site/index.html"

drawn: $(VENV)/installed  ## what docs/bundled-zoo.md shows of the zoo measured in TABLES
	mkdir -p docs/demo
	$(BIN)/invariscope analyze $(TABLES) --out out/demo/results --all > docs/demo/output.txt
	$(BIN)/invariscope figures $(TABLES) --out docs/demo --only $(DEMO_FIGURES)
	cp out/demo/results/summary.md out/demo/results/headline.png docs/demo/
	$(BIN)/python -m reference.readme docs/demo/summary.md docs/bundled-zoo.md

answer: $(VENV)/installed  ## RESULTS.md, its figures and what README shows of them, from the tables of the population study
	$(BIN)/python -m reference.answer $(POPULATION) docs/population RESULTS.md data/reference/study
	$(BIN)/python -m reference.readme docs/population/summary.md README.md
	$(BIN)/python -m reference.readme docs/population/findings.md README.md --marker findings

power: $(VENV)/installed  ## power of the population study as it stands, which RESULTS.md shows (minutes)
	$(BIN)/python -m reference.power $(POPULATION) $(dir $(POPULATION))power.csv

looks: $(VENV)/installed  ## the pictures of docs/look.md: of the bundled zoo, and of networks of timm trained for it (half an hour)
	for operator in $(LOOKED); do \
	  $(BIN)/invariscope look data/zoo --only smallcnn-$$operator-circular-s40000-e020 --data digits \
	    --out out/looks/$$operator > docs/look/$$operator.out || exit 1; \
	  sed '/^written/d' docs/look/$$operator.out > docs/look/$$operator.txt && rm docs/look/$$operator.out && \
	  cp out/looks/$$operator/look.png docs/look/$$operator.png || exit 1; \
	done
	$(BIN)/python -m reference.looks out/looks/timm
	cp out/looks/timm/*.png out/looks/timm/*.txt docs/look

figures: answer  ## every figure and number of README, RESULTS.md and the documents from the published tables (3 minutes)
	$(MAKE) drawn TABLES=data/reference/digits
	rm -rf out/figures && mkdir -p out/figures/published docs/published
	cp -R $(addprefix data/reference/published/,checkpoints layers invariance surface) out/figures/published
	$(BIN)/invariscope analyze out/figures/published --out out/figures/results --power --all > docs/published/output.txt
	$(BIN)/invariscope figures out/figures/published --out docs/published --only $(PUBLISHED_FIGURES)
	cp out/figures/results/summary.md out/figures/results/headline.png docs/published/
	$(BIN)/python -m reference.readme docs/published/summary.md docs/published-operators.md --marker published
	$(BIN)/invariscope figures data/reference/published --out docs/published --only swap
	$(BIN)/python -m reference.tips out/figures/published > docs/published/tips.txt
	$(BIN)/python -m reference.results data/reference/study docs/reference

$(REFERENCE_DATA): | $(VENV)/installed  # the last of its files
	$(BIN)/python -m reference.prepare $(SOURCE) $(REFERENCE)/data

reference: $(REFERENCE_DATA)  ## train and measure the reference study (SOURCE=folder of cifar10/ and mnist/; hours)
	$(BIN)/invariscope train data/reference/mnist.yaml --out $(TRAINED)/mnist --jobs $(JOBS)
	$(BIN)/invariscope train data/reference/cifar10.yaml --out $(TRAINED)/cifar10 --jobs $(JOBS)
	$(MAKE) reference-tables

reference-tables:  ## measure what is trained, and the published networks of ELSEWHERE where there are any
	for data in mnist cifar10; do \
	  $(MEASURE) $(TRAINED)/$$data --data parquet:$(REFERENCE)/data/$$data --limit 1000 --jobs $(JOBS) || exit 1; \
	done
	if [ -d $(ELSEWHERE) ]; then \
	  mkdir -p $(TRAINED)/elsewhere && cp tests/third_party/zoo.yaml tests/third_party/nets.py \
	    $(TRAINED)/elsewhere && ln -sfn $(abspath $(ELSEWHERE)) $(TRAINED)/elsewhere/checkpoints && \
	  $(MEASURE) $(TRAINED)/elsewhere --data parquet:$(REFERENCE)/data/cifar10 --limit 1000 --jobs $(JOBS) --allow-outside --allow-code; \
	fi
	for operator in $(ATTACKED); do \
	  $(MEASURE) $(TRAINED)/cifar10 --data parquet:$(REFERENCE)/data/cifar10 --limit 1000 --jobs $(JOBS) \
	    --collect robustness --only "vgg8-$$operator-circular-s?-e006" --robust-images 200 \
	    --attack-steps 10 --eps-linf 1/255,2/255 --eps-l2 0.25,0.5 || exit 1; \
	done
	$(MEASURE) $(TRAINED)/cifar10 --data parquet:$(REFERENCE)/data/cifar10 --limit 1000 \
	  --collect cost --only '*-circular-s0-e00[46]'
	$(MEASURE) $(TRAINED)/mnist --data parquet:$(REFERENCE)/data/mnist --limit 100 --jobs $(JOBS) \
	  --collect swaps --swap-images 100 --only 'smallcnn-*-s0-mnist-e004'
	$(MEASURE) $(TRAINED)/cifar10 --data parquet:$(REFERENCE)/data/cifar10 --limit 100 --jobs $(JOBS) \
	  --collect swaps --swap-images 100 --only 'vgg8-*-s0-e006'
	$(BIN)/invariscope compact $(REFERENCE)/tables
	rm -rf data/reference/study && mkdir -p data/reference/study
	for table in checkpoints layers invariance swaps robustness cost; do \
	  if [ -d $(REFERENCE)/tables/$$table ]; then cp -R $(REFERENCE)/tables/$$table data/reference/study; fi; \
	done

reproduce: $(REFERENCE_DATA)  ## train three runs of a study again, drawn by chance, and compare (STUDY=folder of its tables; minutes)
	$(BIN)/python -m reference.reproduce $(STUDY) out/reproduce

lint: $(VENV)/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/installed  ## mypy cannot follow the editable install: it is given the package as a folder of links
	mkdir -p $(VENV)/types/invariscope
	ln -sfn $(foreach room,$(wildcard invariscope/*) zoo collectors analysis data,$(CURDIR)/$(room)) $(VENV)/types/invariscope
	MYPYPATH=$(VENV)/types $(BIN)/mypy

lock:  ## pin the packages of the extra `dev` anew, for all platforms, with uv (UPGRADE=--upgrade: the newest releases)
	cp requirements.lock requirements.lock.new
	$(UV) pip compile pyproject.toml --extra dev --universal --python-version 3.11 $(UPGRADE) --quiet \
	  --no-annotate --no-header --output-file requirements.lock.new
	{ sed -n '/^#/p' requirements.lock; sed -E '/^(nvidia|cuda|triton)/d' requirements.lock.new; } > requirements.lock.whole
	rm requirements.lock.new
	mv requirements.lock.whole requirements.lock

zoo: $(VENV)/installed  ## train the bundled zoo again (runs that are there are kept)
	$(BIN)/invariscope train data/recipes/population_bundled.yaml --out data/zoo --jobs 2

sweep: $(VENV)/installed  ## find, measure and replace the downsampling of 150 networks: docs/networks.md (20 minutes)
	$(BIN)/python tests/sweep_networks.py --out docs/networks

bench: $(VENV)/installed  ## speed, memory and coverage, as ratios: benchmarks/RESULTS.md (hours, on a quiet machine)
	$(BIN)/python -m benchmarks.correlation
	$(BIN)/python -m benchmarks.scale
	$(BIN)/python -m benchmarks.intervals
	$(BIN)/python -m benchmarks.stopping
	$(BIN)/python -m benchmarks.assigned
	$(BIN)/python -m benchmarks.speed
	$(BIN)/python -m benchmarks.runtimes
	$(BIN)/python -m benchmarks.memory
	$(BIN)/python -m benchmarks.engine
	$(BIN)/python -m benchmarks.tips
	$(BIN)/python -m benchmarks.taps
	$(BIN)/python -m benchmarks.training
	$(BIN)/python -m benchmarks.trust

$(VENV)/installed: pyproject.toml setup.py requirements.lock
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "invariscope needs Python 3.11 or newer: make PYTHON=/path/to/python3.11")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --requirement requirements.lock
	$(BIN)/pip install --quiet --no-deps torchattacks==3.5.1
	$(BIN)/pip install --quiet --no-deps --no-build-isolation --editable .
	touch $@

clean:
	rm -rf $(VENV) out
