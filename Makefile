# Everything a newcomer needs: `make demo` and `make test`. Both set up `.venv` first; nothing else is installed.
PYTHON ?= python3
CORES ?= 2
VENV ?= .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready-$(shell $(PYTHON) -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null)
SNAKEMAKE := $(BIN)/snakemake --cores $(CORES) --rerun-incomplete
SWIFTCNV_WHEEL ?=
# tests of one file share fixtures that take minutes: a file stays on one worker
PARALLEL := --numprocesses $(CORES) --dist loadfile
export PYTHONNOUSERSITE := 1
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.DEFAULT_GOAL := help
.PHONY: help env demo demo-null demo-real single-tumours test lint types unit workflow-tests integration validation \
	bench-caller bench-evidence bench-scores table-demo table-real lock wheel clean

help: ## what can be made
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F':.*## ' '{printf "  make %-16s %s\n", $$1, $$2}'

env: $(READY) ## .venv with the package and everything pinned in requirements.lock

# The stamp is written last: a failed or interrupted set-up starts again on the next call.
$(READY): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(0 if (3, 11) <= v < (3, 14) else "dtcflow needs Python 3.11 to 3.13, $(PYTHON) is %d.%d: use make PYTHON=python3.12" % v)'
	@rm -f $(VENV)/.ready-*
	@$(BIN)/python -c 'import sys; sys.exit(sys.version_info[:2] != tuple(map(int, "$(READY)".rsplit("-", 1)[1].split("."))))' 2>/dev/null \
		&& $(BIN)/python -m pip --version >/dev/null 2>&1 || { rm -rf $(VENV) && $(PYTHON) -m venv $(VENV); }
	$(BIN)/python -m pip install --quiet --require-hashes -r requirements.lock
	$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation --editable .
	@touch $@

demo: $(READY) ## run the workflow on the simulated demo cohort and print the verdict
	@$(BIN)/dtcflow unlock --directory .
	$(SNAKEMAKE)
	@$(BIN)/dtcflow verdict --results results

demo-null: $(READY) ## the same with the `null` scenario (no progenitor programme), in results/demo-null
	@test -f results/demo-null/config/config.yaml || $(BIN)/dtcflow simulate --scenario null --seed 1 --out results/demo-null
	@$(BIN)/dtcflow unlock --directory results/demo-null
	$(SNAKEMAKE) --directory results/demo-null
	@$(BIN)/dtcflow verdict --results results/demo-null/results

demo-real: $(READY) ## real ovarian carcinoma cells standing in for DTCs, in results/demo-real
	$(BIN)/python benchmarks/semireal.py --out results/demo-real $(if $(SWIFTCNV_WHEEL),--wheel $(SWIFTCNV_WHEEL))
	@$(BIN)/dtcflow unlock --directory results/demo-real
	$(SNAKEMAKE) --directory results/demo-real
	@$(BIN)/dtcflow verdict --results results/demo-real/results

test: $(READY) lint types unit workflow-tests integration validation ## the whole test suite

lint: $(READY) ## format and lint: ruff, snakefmt, snakemake --lint
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/snakefmt --check Snakefile workflow tests/workflow
	$(BIN)/snakemake --lint

types: $(READY) ## mypy --strict on src
	$(BIN)/mypy

unit: $(READY)
	$(BIN)/pytest tests/unit -q -m "not validation" $(PARALLEL)

workflow-tests: $(READY)
	$(BIN)/pytest tests/workflow -q

integration: $(READY)
	$(BIN)/pytest tests/malformed tests/integration -q -m "not slow"

validation: $(READY) ## tests on real data sets; they skip, with the reason, where the data are absent
	$(BIN)/pytest tests -q -m validation $(PARALLEL)

table-demo: $(READY) ## the demo over ten seeds and both scenarios against the truth (hours), in benchmarks/tables
	$(BIN)/python benchmarks/demo_seeds.py --cores $(CORES)

table-real: demo-real ## calls of demo-real against the truth, in benchmarks/tables
	$(BIN)/python benchmarks/truth_table.py --results results/demo-real/results \
		--truth results/demo-real/truth/cells.tsv.gz --out benchmarks/tables/semireal \
		--title "Ovarian carcinoma cells among the patients' own immune cells" --command "make table-real"

single-tumours: $(READY) ## single real tumours and normal tissues, from data sets beside the project, in benchmarks/tables
	$(BIN)/python benchmarks/single_tumours.py --work results/single-tumours --out benchmarks/tables --cores $(CORES)

bench-caller: $(READY) ## the malignant-cell caller beside infercnvpy, every figure of docs/caller.md, in benchmarks/tables
	$(BIN)/python benchmarks/caller

bench-scores: $(READY) ## cost of calibrated scores beside a loop over scanpy's, in benchmarks/tables
	$(BIN)/python benchmarks/bench_scores.py --out benchmarks/tables/bench_scores

bench-evidence: $(READY) ## error rates and power of the verdicts on simulated cohorts (hours, resumable; ARGS=--small: minutes)
	$(BIN)/python benchmarks/evidence $(ARGS)

lock: $(READY) ## recompile requirements.lock (needs uv)
	uv pip compile --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header --quiet \
		--extra workflow --extra dev pyproject.toml -o requirements.lock

wheel: $(READY)
	$(BIN)/python -m pip wheel --quiet --no-deps --no-build-isolation --wheel-dir dist .

clean: ## remove results (keeps .venv)
	find results -mindepth 1 ! -name .gitkeep -delete
