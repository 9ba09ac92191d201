#!/usr/bin/env bash
# All that speaks for the contracts, offline once `make setup-contracts` ran. Stops at the first that
# fails; give names to run some of them: build tests coverage invariants properties slither.
#
#   VENV          the environment's folder (.venv)
#   ASSAY_CACHE   where setup-contracts put slither and halmos (~/.cache/assay)
set -euo pipefail
cd "$(dirname "$0")/.."

venv=$(realpath "${VENV:-.venv}")
tools=${ASSAY_CACHE:-$HOME/.cache/assay}/contract-tools/bin
export PATH="$PWD/node_modules/.bin:$tools:$PATH" FOUNDRY_DISABLE_NIGHTLY_WARNING=1
for program in forge slither halmos; do
    command -v "$program" >/dev/null || { echo "test-contracts: run make setup-contracts first" >&2; exit 1; }
done

build() {  # the committed artefacts are what the sources compile to
    "$venv/bin/python" -m assay_contracts.deploy.build --check
}
tests() {  # unit tests, and a state machine of 10,000 calls and more
    "$venv/bin/python" -m pytest tests/contracts
}
coverage() {  # lines and branches of every source, by the tests that have an EVM of their own
    local files
    files=$(grep -lE "contracts\.(evm|network_evm|courtroom|electorate|frauds|books)|import pyrevm" \
        tests/contracts/test_*.py | xargs grep -LE "LocalChain|EmbeddedChain|CreditLedgerClient")
    "$venv/bin/python" -m pytest -n 0 -p no:randomly -p solidity_coverage.plugin $files
}
invariants() {  # 500 runs of 200 random calls
    forge build --quiet
    forge test --match-contract Invariants
}
properties() {  # for all arguments, not for some
    forge build --quiet
    halmos --root . --contract Properties --forge-build-out build/forge
}
slither_() {  # every finding is triaged, with its reason, in tests/contracts/forge/triage.json
    "$venv/bin/python" scripts/slither_findings.py
}

(($#)) || set -- build tests coverage invariants properties slither
for part in "$@"; do
    echo "== $part"
    [[ $part == slither ]] && part=slither_
    "$part"
done
