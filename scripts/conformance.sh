#!/usr/bin/env bash
# Run other people's suites against the gateway, llama-server and llama-cpp-python's server, and write
# docs/compatibility.md. Words after it are those of tests/conformance/run.py (--help tells them).
#
#   VENV          the environment that `make setup` made (.venv)
#   ASSAY_CACHE   where the suites' own environments are kept (~/.cache/assay)
set -euo pipefail
cd "$(dirname "$0")/.."
venv=${VENV:-.venv}
for needed in node npm; do
    command -v "$needed" >/dev/null || { echo "conformance: $needed is missing" >&2; exit 2; }
done
VENV="$venv" scripts/build_engine.sh server >/dev/null
PYTHONPATH=tests:bench exec "$venv/bin/python" -m conformance.run "$@"
