"""The servers under test, each of real processes on loopback, all with the same model files.

- assay: a coordinator, two nodes and a gateway, over libp2p
- assay-obedient: the same with a simulated model, which shows what of a failure is the API's
- llama-server: llama.cpp's own, from the sources of our engine (scripts/build_engine.sh server);
  one process a model, so that embeddings have an address of their own
- llama-cpp-python: its server, in an environment of its own, with both models

All ask for the same API key, have the same threads and the same context.
"""

from __future__ import annotations

import json
import secrets
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from assay.gateway.api_keys import add_key
from assay_node.models.card import build_card
from assay_node.models.fetch import TEST_MODEL_PATH
from assay_node.models.minilm import PATH as MINILM_PATH
from assay_protocol.cards import encode_card
from assay_simnet.drivers.real import real_network
from conformance import obedient_node
from conformance.environments import LLAMA_CPP_PYTHON
from end_to_end.gateway_process import start_gateway
from rivals import free_port, program, ready, started

MODEL: Final = "smollm2-135m-instruct"
EMBEDDING_MODEL: Final = "all-minilm-l6-v2"
CONTEXT: Final = 4_096
EMBEDDING_CONTEXT: Final = 256
RIVALS_CONTEXT: Final = (
    2_048  # some fill it, where a request does not say how long an answer may be
)
ANSWER_TOKENS: Final = 512  # where a request does not say; the gateway's own default
SLOTS: Final = 4
THREADS: Final = 2
# llm-comply asks for reasoning only under names of OpenAI's and Anthropic's models and DeepSeek's,
# so the simulated one has a second name with a part of each; it is no such model.
REASONING_NAME: Final = "simulated-deepseek-r-claude-4"
TRIAL_SECONDS_MAX: Final = 600.0  # a node tries a new model out before it serves
# No audits: who is drawn is random, and a replay would take the processor from the next test.
POLICY: Final = "probation_audits = 0\naudit_bps_min = 0\ngain_bps = 0\nqueue_per_slot = 8\n"


@dataclass(frozen=True)
class Subject:
    """A running server. `base` ends in /v1."""

    name: str
    version: str
    base: str
    key: str
    model: str
    embeddings_base: str | None = None
    embedding_model: str | None = None
    reasoning_model: str | None = None  # a name under which suites ask for reasoning
    weights: Path | None = None  # the file of `model`


Starter = Callable[[Path], Any]  # a folder for its files -> an async context of a Subject


@asynccontextmanager
async def assay(folder: Path) -> AsyncIterator[Subject]:
    """The gateway, before a network of two nodes that answer and one that embeds."""
    cards = folder / "catalogue"
    cards.mkdir()
    chat = _write_card(cards, TEST_MODEL_PATH, MODEL)
    texts = _write_card(cards, MINILM_PATH, EMBEDDING_MODEL, price_out=0)
    key = add_key(folder / "keys", "conformance")
    limits = {"slots": SLOTS, "threads": THREADS // 2}
    async with real_network(folder) as network:
        await network.start_coordinator(POLICY, cards, faucet=1 << 40)
        for name in ("node-1", "node-2"):
            await network.start_node(name, chat, TEST_MODEL_PATH, context=CONTEXT, **limits)
        await network.start_node("node-3", texts, MINILM_PATH, context=EMBEDDING_CONTEXT, **limits)
        await network.wait_present(["node-1", "node-2", "node-3"], TRIAL_SECONDS_MAX)
        url = await start_gateway(network, "--keys", str(folder / "keys"), "--responses", "256")
        base = f"{url}/v1"
        yield Subject(
            "assay", "this tree", base, key, MODEL, base, EMBEDDING_MODEL, weights=TEST_MODEL_PATH
        )


def _write_card(folder: Path, model: Path, name: str, price_out: int = 1) -> Path:
    path = folder / f"{name}.card"
    path.write_bytes(encode_card(build_card(model, name=name, price_in=1, price_out=price_out)))
    return path


@asynccontextmanager
async def assay_obedient(folder: Path) -> AsyncIterator[Subject]:
    """The same, before a node whose model is simulated (obedient_node.py)."""
    card = obedient_node.write_card(folder)
    key = add_key(folder / "keys", "conformance")
    async with real_network(folder) as network:
        await network.start_coordinator(POLICY, card, faucet=1 << 40)
        flags = {
            "coordinator": network.address,
            "data_dir": folder / "node",
            "listen": "/ip4/127.0.0.1/tcp/0",
            "engine": "scripted",
            "card": card,
            "model": card,
            "context": obedient_node.CONTEXT,
            "slots": SLOTS,
        }
        words = [f"{key}={value}" for key, value in flags.items()]
        await network.spawn("node", [sys.executable, obedient_node.__file__, *words])
        await network.wait_present(["node"])
        routes = folder / "routes.toml"
        routes.write_text(f'[route."{REASONING_NAME}"]\nnetwork = ["{obedient_node.NAME}"]\n')
        words = ["--keys", str(folder / "keys"), "--responses", "256", "--routes", str(routes)]
        url = await start_gateway(network, *words)
        about = {"reasoning_model": REASONING_NAME}
        name = obedient_node.NAME
        yield Subject("assay-obedient", "this tree", f"{url}/v1", key, name, **about)


@asynccontextmanager
async def llama_server(folder: Path) -> AsyncIterator[Subject]:
    """llama.cpp's own server; its tool calls need the template's engine, which is --jinja."""
    key, ports = secrets.token_urlsafe(16), (free_port(), free_port())
    common = ["--api-key", key, "--threads", THREADS, "--no-webui"]
    chat = ["--model", TEST_MODEL_PATH, "--alias", MODEL, "--port", ports[0], "--jinja"]
    chat += ["--parallel", SLOTS, "--ctx-size", SLOTS * RIVALS_CONTEXT]
    chat += ["--predict", ANSWER_TOKENS]  # it would else write until its context is full
    texts = ["--model", MINILM_PATH, "--alias", EMBEDDING_MODEL, "--port", ports[1]]
    texts += ["--embeddings", "--pooling", "mean"]
    async with AsyncExitStack() as stack:
        for words, port in ((chat, ports[0]), (texts, ports[1])):
            process = stack.enter_context(started([program("llama-server"), *words, *common]))
            await ready(process, f"http://127.0.0.1:{port}/health")
        base, embeddings = (f"http://127.0.0.1:{port}/v1" for port in ports)
        told = _llama_version()
        yield Subject(
            "llama-server",
            told,
            base,
            key,
            MODEL,
            embeddings,
            EMBEDDING_MODEL,
            weights=TEST_MODEL_PATH,
        )


@asynccontextmanager
async def llama_cpp_python(folder: Path) -> AsyncIterator[Subject]:
    """llama-cpp-python's server, which serves one request at a time."""
    key, port = secrets.token_urlsafe(16), free_port()
    common = {"n_ctx": RIVALS_CONTEXT, "n_threads": THREADS}
    models = [
        {"model": str(TEST_MODEL_PATH), "model_alias": MODEL, **common},
        {"model": str(MINILM_PATH), "model_alias": EMBEDDING_MODEL, "embedding": True, **common},
    ]
    settings = {"host": "127.0.0.1", "port": port, "api_key": key, "interrupt_requests": False}
    file = folder / "llama_cpp_server.json"
    file.write_text(json.dumps({**settings, "models": models}))
    python = LLAMA_CPP_PYTHON.python
    with started([python, "-m", "llama_cpp.server", "--config_file", file]) as process:
        await ready(process, f"http://127.0.0.1:{port}/docs")
        version = LLAMA_CPP_PYTHON.version("llama_cpp_python")
        base = f"http://127.0.0.1:{port}/v1"
        yield Subject(
            "llama-cpp-python",
            version,
            base,
            key,
            MODEL,
            base,
            EMBEDDING_MODEL,
            weights=TEST_MODEL_PATH,
        )


def _llama_version() -> str:
    """What llama-server says of itself, on the error stream."""
    command = [str(program("llama-server")), "--version"]
    told = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    return (told.stdout + told.stderr).split("version:")[1].split()[0]


STARTERS: Final[dict[str, Starter]] = {
    "assay": assay,
    "assay-obedient": assay_obedient,
    "llama-server": llama_server,
    "llama-cpp-python": llama_cpp_python,
}
