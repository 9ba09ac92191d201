#!/usr/bin/env bash
# What `make test-contracts` needs beyond `make setup`, once; from then on it works offline.
# Forge and the compiler come from npm into node_modules; slither and halmos, whose own dependencies
# would clash with ours, from Python's index into an environment of their own in the cache.
#
#   VENV          the environment's folder (.venv)
#   ASSAY_CACHE   where that environment is made (~/.cache/assay)
set -euo pipefail
cd "$(dirname "$0")/.."

venv=${VENV:-.venv}
cache=${ASSAY_CACHE:-$HOME/.cache/assay}
tools=$cache/contract-tools
export ASSAY_CACHE="$cache" PIP_DISABLE_PIP_VERSION_CHECK=1

command -v npm >/dev/null || { echo "setup-contracts: install Node.js and npm first" >&2; exit 1; }
"$venv/bin/python" -m assay_contracts.deploy.npm_packages
npm install --no-save --no-package-lock --no-audit --no-fund --loglevel=error \
    @foundry-rs/forge@1.7.1 solc@0.8.37 @openzeppelin/contracts@5.7.0 \
    @ethereum-attestation-service/eas-contracts@1.9.0
[[ -x $tools/bin/python ]] || "$venv/bin/python" -m venv "$tools"
"$tools/bin/python" -m pip -qq install slither-analyzer==0.11.6 halmos==0.3.3
echo "setup-contracts: done"
