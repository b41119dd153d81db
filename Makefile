PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: bench demo docs test test-full soak lint types zoo sweep clean

demo: $(VENV)/installed  ## bundled zoo -> tables -> statistics -> figures, in out/demo
	$(BIN)/shiftscope demo --out out/demo

test: lint types  ## linter, formatter check, type check, tests
	$(BIN)/pytest -q -n 2

test-full: lint types  ## the tests on all of the real data as well (half an hour)
	SHIFTSCOPE_FULL=1 $(BIN)/pytest -q tests/test_third_party.py --timeout 7200

soak: $(VENV)/installed  ## kill runs at 60 random moments, and compare what the next ones make of it (minutes)
	SHIFTSCOPE_FULL=1 SHIFTSCOPE_KILLS=60 $(BIN)/pytest -q tests/collectors/test_faults.py --timeout 3600

docs: demo  ## what the README shows and quotes, from the demo's tables and those of the swaps
	mkdir -p docs/demo
	$(BIN)/shiftscope analyze out/demo/tables --out out/demo/results --power > docs/demo/output.txt
	for figure in out/demo/figures/*.png; do cp $$figure $${figure%.png}.txt docs/demo/; done
	cp out/demo/results/summary.md out/demo/figures/table_classification.* docs/demo/
	$(BIN)/shiftscope figures data/reference/digits --out docs/demo --only swap

lint: $(VENV)/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/installed
	$(BIN)/mypy

zoo: $(VENV)/installed  ## train the bundled zoo again (runs that are there are kept)
	$(BIN)/shiftscope train data/zoo/recipe.yaml --out data/zoo --jobs 2

sweep: $(VENV)/installed  ## find, measure and replace the downsampling of 150 networks: docs/networks.md (20 minutes)
	$(BIN)/python tests/sweep_networks.py --out docs/networks

bench: $(VENV)/installed  ## speed, memory and coverage, as ratios: benchmarks/RESULTS.md (hours, on a quiet machine)
	$(BIN)/python -m benchmarks.correlation
	$(BIN)/python -m benchmarks.intervals
	$(BIN)/python -m benchmarks.speed
	$(BIN)/python -m benchmarks.memory
	$(BIN)/python -m benchmarks.engine
	$(BIN)/python -m benchmarks.tips

$(VENV)/installed: pyproject.toml requirements.lock
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "shiftscope needs Python 3.11 or newer: make PYTHON=/path/to/python3.11")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --requirement requirements.lock
	$(BIN)/pip install --quiet --no-deps --no-build-isolation --editable .
	touch $@

clean:
	rm -rf $(VENV) out
