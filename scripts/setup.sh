#!/usr/bin/env bash
# Make an environment that can run, test and simulate the whole network. Safe to run again.
#
#   VENV          the environment's folder (.venv)
#   PYTHON        the interpreter for a new one (python3; 3.11 or newer)
#   ASSAY_CACHE   where built wheels and the test models are kept (~/.cache/assay)
set -euo pipefail
cd "$(dirname "$0")/.."

venv=${VENV:-.venv}
python=${PYTHON:-python3}
cache=${ASSAY_CACHE:-$HOME/.cache/assay}
export ASSAY_CACHE="$cache" PIP_DISABLE_PIP_VERSION_CHECK=1

# fastecdsa (needed by libp2p) and llama.cpp are compiled here.
missing=()
command -v gcc >/dev/null || missing+=(gcc)
command -v g++ >/dev/null || missing+=(g++)
command -v make >/dev/null || missing+=(make)
has_header() { echo "#include <$2>" | gcc -E -x c "-I$1" - >/dev/null 2>&1; }
has_header . gmp.h || missing+=(libgmp-dev)
headers=$("$python" -c 'import sysconfig; print(sysconfig.get_path("include"))')
has_header "$headers" Python.h || missing+=(python3-dev)
"$python" -c 'import ensurepip' 2>/dev/null || missing+=(python3-venv)
if ((${#missing[@]})); then
    if [[ $(id -u) == 0 ]] && command -v apt-get >/dev/null; then
        apt-get update -qq && apt-get install -y -qq --no-install-recommends "${missing[@]}"
    else
        echo "setup: install these system packages first: ${missing[*]}" >&2
        exit 1
    fi
fi

"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || {
    echo "setup: $python is older than 3.11; run PYTHON=python3.11 make setup" >&2
    exit 1
}
[[ -x $venv/bin/python ]] || "$python" -m venv "$venv"
pip=("$venv/bin/python" -m pip -qq)
"${pip[@]}" install --upgrade 'pip>=25.1'  # the first with --group

# llama.cpp is compiled once per version and machine, for any CPU of that kind (GGML_NATIVE=OFF):
# the exact class promises the same bits on another machine. Meanwhile the rest is fetched.
mkdir -p "$cache"
exec 9>"$cache/setup.lock"
flock 9  # two set-ups at once would both compile
version=$(sed -n 's/.*llama-cpp-python==\([0-9.]*\).*/\1/p' pyproject.toml)
shopt -s nullglob
kept=$cache/wheels/mtmd  # with libmtmd, which reads images: older ones, a folder above, lack it
built() { wheels=("$kept"/llama_cpp_python-"$version"-*_"$(uname -m)".whl); ((${#wheels[@]})); }
compile() {  # in a process of its own
    mkdir -p "$kept"
    fresh=$(mktemp -d "$kept/build.XXXXXX")
    trap 'rm -rf "$fresh"' EXIT
    only="'-DCMAKE_PROJECT_llama.cpp_INCLUDE=$PWD/scripts/llama_only.cmake'"
    CMAKE_ARGS="-DGGML_NATIVE=OFF $only" "${pip[@]}" wheel --no-deps --no-cache-dir \
        --no-binary llama-cpp-python -w "$fresh" "llama-cpp-python==$version" || return
    mv "$fresh"/*.whl "$kept/"
}
compiling=
if ! built; then
    echo "setup: building llama-cpp-python $version (a few minutes, once)"
    set -m  # a process group of its own, so that a set-up that fails leaves no compiler behind
    (compile) &
    compiling=$!
    set +m
    trap 'kill -- "-$compiling" 2>/dev/null || true' EXIT
fi
"${pip[@]}" install -e '.[grammar,coordinator,simnet]' --group dev
"$venv/bin/python" -m assay_node.models.fetch --test-model
"$venv/bin/python" -m assay_node.models.minilm
"$venv/bin/python" -m assay_contracts.deploy.npm_packages  # to rebuild the contracts, offline from here on
"$venv/bin/python" tests/other_pythons.py  # for tests/simnet/test_pythons.py
"$venv/bin/python" tests/example_environments.py  # for docs/examples: other people's libraries
if [[ $compiling ]]; then
    wait "$compiling" || { echo "setup: llama-cpp-python was not built" >&2; exit 1; }
    trap - EXIT
    built
fi
"${pip[@]}" install "${wheels[0]}"
# An environment from before has the same version without libmtmd.
"$venv/bin/python" -c 'import llama_cpp.mtmd_cpp' 2>/dev/null ||
    "${pip[@]}" install --force-reinstall --no-deps "${wheels[0]}"
"${pip[@]}" install -e '.[all]'
# Vocabularies and chat templates that llama.cpp tests itself with; tests of ours are skipped without.
"$venv/bin/python" -m assay_node.engine.vocabularies >/dev/null ||
    echo "setup: llama.cpp's vocabularies could not be fetched; their tests will be skipped" >&2
# The second road to the exact class, once (about two minutes); tests of it are skipped without it.
if ! command -v cmake >/dev/null; then
    echo "setup: without cmake the road 'plain' is missing; see scripts/build_engine.sh" >&2
else
    "$venv/bin/python" -m assay_node.engine.library build exact --jobs 2
fi
# The pages' tests drive Debian's browser; without it they are skipped.
if ! command -v chromium >/dev/null; then
    if [[ $(id -u) == 0 ]] && command -v apt-get >/dev/null; then
        { apt-get update -qq && apt-get install -y -qq --no-install-recommends chromium; } >/dev/null ||
            echo "setup: chromium could not be installed; the tests of pages will be skipped" >&2
    else
        echo "setup: without chromium the tests of pages are skipped" >&2
    fi
fi
echo "setup: done; programs are in $venv/bin"
