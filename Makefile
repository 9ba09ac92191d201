# Programs are called by their path: the environment holds a `node` of ours, so it stays off PATH.
VENV ?= .venv
BIN := $(VENV)/bin
SOURCES := protocol/assay_protocol network/assay_network node/assay_node coordinator/assay_coordinator contracts/assay_contracts sdk/assay simnet/assay_simnet
.PHONY: setup test coverage check demo simulate bench docs pictures conformance vectors adversaries contracts setup-contracts test-contracts

setup:  ## the environment, system packages, llama.cpp, the test models
	VENV="$(VENV)" scripts/setup.sh

test:  ## every test; the longest files first. A third worker, as tests of networks wait half of their time
	$(BIN)/pytest tests -n 3 --dist loadfile --no-loadscope-reorder -p no:randomly -rs --durations=20

coverage:  ## which lines the tests run, of all but the simulator; they take a third longer
	$(BIN)/pytest tests --ignore=tests/simnet -n 2 --dist loadfile --no-loadscope-reorder -p no:randomly -rs --cov --cov-report=term

check:  ## format, lint, types, tidy
	$(BIN)/ruff format --check . && $(BIN)/ruff check . && $(BIN)/mypy $(SOURCES) bench && $(BIN)/pytest tests/test_tidy.py

demo: setup  ## a whole network on this machine
	$(BIN)/simnet demo

simulate:  ## every shipped scenario under three seeds, and small under twenty-five
	$(BIN)/simnet check --seeds 0..2 --workers 2
	$(BIN)/simnet check --small --seeds 0..24 --workers 2

bench:  ## every published figure; one JSON line each
	for program in $$(grep -l __main__ bench/*.py) bench/verify/run.py bench/verify/lifetime.py; do $(BIN)/python $$program || exit 1; done

docs:  ## what docs promise about the code, checked; then the site, in build/docs
	$(BIN)/pytest tests/test_tidy.py tests/test_pictures.py tests/test_docs_blocks.py tests/test_docs_links.py -k "spec or docs or invariant or picture or block"
	$(BIN)/python -c "import furo, myst_parser" 2>/dev/null || $(BIN)/pip install -q --group docs
	$(BIN)/sphinx-build -q -W --keep-going -c docs -b html . build/docs

pictures:  ## docs/pictures from the state tables that the cores obey
	$(BIN)/python scripts/draw_states.py

conformance:  ## others' suites against gateway, llama-server and llama-cpp-python; docs/compatibility.md; most of an hour
	VENV="$(VENV)" scripts/conformance.sh $(CONFORMANCE)

vectors:  ## protocol/spec/vectors/messages.json from the code
	$(BIN)/python protocol/spec/make_vectors.py

adversaries:  ## docs/adversaries.md: every adversary tried again; a minute or two
	$(BIN)/python -m assay_simnet.adversaries > docs/adversaries.md.new && mv docs/adversaries.md.new docs/adversaries.md

contracts:  ## Solidity -> contracts/assay_contracts/artifacts
	$(BIN)/python -m assay_contracts.deploy.build

setup-contracts:  ## what test-contracts needs beyond setup: forge, slither, halmos; needs Node.js
	VENV="$(VENV)" scripts/setup_contracts.sh

test-contracts:  ## tests, coverage, invariants, symbolic proofs and slither over the contracts
	VENV="$(VENV)" scripts/test_contracts.sh
