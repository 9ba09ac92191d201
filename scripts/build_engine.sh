#!/usr/bin/env bash
# Compile llama.cpp's libraries for the engine's profiles, once; prints their folders. "server" is
# llama.cpp's own server and batched benchmark, for bench/engine.py; "all" is the other two.
#
#   scripts/build_engine.sh [portable|exact|server|all] [--jobs N]
#
#   VENV          the environment's folder (.venv)
#   ASSAY_CACHE   where the libraries are kept (~/.cache/assay)
set -euo pipefail
cd "$(dirname "$0")/.."
exec "${VENV:-.venv}/bin/python" -m assay_node.engine.library build "$@"
