"""The other servers of the engine's benchmark, each on loopback in a process of its own.

- llama-server, from llama.cpp's own tree, compiled with our wheel's flags; where our engine uses
  the portable library, so does llama-server: the same files, the same variant
- llama-cpp-python's server, and mycellm: from an environment of their own (ASSAY_PEERS, made here
  at the first use), both on the library we use

They are given as many sequences, as much context and as many threads as we are. What has no such
option (mycellm's threads) is bound to as many processors instead.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import httpx
import psutil
import trio

from assay_node.engine import library
from assay_node.engine.profiles import Profile
from streams import SILENCE_SECONDS_MAX, Clock, Prompt, Run

START_SECONDS_MAX: Final = 120.0
PEERS: Final = Path(os.environ.get("ASSAY_PEERS") or library.engines().parent / "peers")

Count = Callable[[dict[str, Any]], int]
Surroundings = tuple[dict[str, str], Path | None]  # environment and working folder


@dataclass(frozen=True)
class Question:
    """One prompt: its tokens, and the user's words for those who take no tokens."""

    tokens: Prompt
    text: str


@dataclass(frozen=True)
class Shape:
    """What every server is given."""

    model: Path
    streams: int  # sequences at once
    context: int  # tokens of one sequence
    threads: int
    profile: Profile  # our engine's


@dataclass(frozen=True)
class Rival:
    """A running server that streams server-sent events."""

    name: str
    base: str
    path: str
    body: Callable[[Question, int], dict[str, Any]]
    count: Count  # tokens in one event
    process: subprocess.Popen[bytes]

    async def run(self, questions: list[Question], tokens: int) -> Run:
        limits = httpx.Limits(max_connections=None)
        async with httpx.AsyncClient(timeout=SILENCE_SECONDS_MAX, limits=limits) as http:
            clock = Clock()

            async def one(number: int, question: Question) -> None:
                clock.opened(number)
                body = self.body(question, tokens)
                async with http.stream("POST", self.base + self.path, json=body) as response:
                    response.raise_for_status()
                    async for line in response.aiter_lines():
                        if line.startswith("data: {") and (n := self.count(json.loads(line[6:]))):
                            clock.arrived(number, n)

            async with trio.open_nursery() as nursery:
                for number, question in enumerate(questions):
                    nursery.start_soon(one, number, question)
            return clock.run()

    @property
    def memory(self) -> int:
        return memory_of(self.process.pid)


def memory_of(pid: int) -> int:
    """Resident bytes of a process and all below it."""
    process = psutil.Process(pid)
    return sum(one.memory_info().rss for one in [process, *process.children(recursive=True)])


@asynccontextmanager
async def llama_server(shape: Shape) -> AsyncIterator[Rival]:
    port = free_port()
    command = [program("llama-server"), "--model", shape.model, "--port", port, "--no-webui"]
    command += ["--parallel", shape.streams, "--ctx-size", shape.streams * shape.context]
    command += ["--threads", shape.threads, "--threads-batch", shape.threads, "--flash-attn", "on"]

    def body(question: Question, tokens: int) -> dict[str, Any]:
        return {
            "prompt": list(question.tokens),
            "n_predict": tokens,
            "temperature": 0,
            "stream": True,
            "return_tokens": True,
        }

    with started(command, *same_library(shape.profile)) as process:
        base = f"http://127.0.0.1:{port}"
        await ready(process, f"{base}/health")
        yield Rival("llama-server", base, "/completion", body, _tokens_of_llama, process)


@asynccontextmanager
async def llama_cpp_python(shape: Shape) -> AsyncIterator[Rival]:
    port = free_port()
    command = [peers_python(), "-m", "llama_cpp.server", "--model", shape.model, "--port", port]
    command += ["--n_threads", shape.threads, "--n_threads_batch", shape.threads]
    command += ["--n_ctx", shape.context, "--interrupt_requests", "false", "--flash_attn", "true"]
    with started(command) as process:
        base = f"http://127.0.0.1:{port}"
        await ready(process, f"{base}/v1/models")
        path = "/v1/chat/completions"
        yield Rival("llama-cpp-python", base, path, _chat("m"), _tokens_of_chat, process)


@asynccontextmanager
async def mycellm(shape: Shape) -> AsyncIterator[Rival]:
    ports = [free_port() for _ in range(3)]
    home = Path(tempfile.mkdtemp(prefix="bench-mycellm-"))
    folders = {f"MYCELLM_{name}_DIR": str(home / name) for name in ("DATA", "CONFIG", "MODEL")}
    environment = {**os.environ, **folders, "HOME": str(home), "MYCELLM_BOOTSTRAP_PEERS": ""}
    program_path = str(peers_python().with_name("mycellm"))
    command: list[Any] = [program_path, "serve", "--no-dht", "--port", ports[0]]
    command += ["--quic-port", ports[1], "--dht-port", ports[2]]
    made = [program_path, "init", "--no-serve", "--create-network", "bench"]
    await trio.run_process(made, env=environment, capture_stdout=True, capture_stderr=True)
    try:
        with started(command, environment, processors=shape.threads) as process:
            base = f"http://127.0.0.1:{ports[0]}"
            await ready(process, f"{base}/health")
            await _load_in_mycellm(base, shape)
            path = "/v1/chat/completions"
            yield Rival("mycellm", base, path, _chat("bench"), _tokens_of_chat, process)
    finally:
        shutil.rmtree(home, ignore_errors=True)


def batched_bench(shape: Shape, counts: list[int], prompt: int, tokens: int) -> dict[int, float]:
    """Tokens per second by number of streams, prompts' time included, as `Run.rate` counts."""
    command = [program("llama-batched-bench"), "--model", shape.model, "--flash-attn", "on"]
    command += [
        "--ctx-size",
        max(counts) * (prompt + tokens + 1),
        "-npl",
        ",".join(map(str, counts)),
    ]
    command += ["-npp", prompt, "-ntg", tokens, "--threads", shape.threads]
    command += ["--threads-batch", shape.threads, "--output-format", "jsonl"]
    words = [str(word) for word in command]
    environment, folder = same_library(shape.profile)
    done = subprocess.run(
        words, check=True, capture_output=True, text=True, timeout=600, env=environment, cwd=folder
    )
    rows = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    return {row["pl"]: row["pl"] * row["tg"] / (row["t_pp"] + row["t_tg"]) for row in rows}


def same_library(profile: Profile) -> Surroundings:
    """Environment and folder in which llama.cpp's programs compute with the library of `profile`.

    They come with one of the wheel's flags. Of the portable library they find the core by the
    linker's path, and the variant named by what ggml reads, or the best one in their folder.
    """
    if not profile.library:
        return dict(os.environ), None
    place = library.folder(profile.library)
    environment = {**os.environ, "LD_LIBRARY_PATH": str(place)}
    if profile.variant:
        environment["GGML_BACKEND_PATH"] = str(place / f"libggml-cpu-{profile.variant}.so")
        return environment, None
    return environment, place


def program(name: str) -> Path:
    """A program of llama.cpp; raises FileNotFoundError, saying how to make it."""
    path = library.folder("server") / name
    if not path.is_file():
        raise FileNotFoundError(f"{path}: run scripts/build_engine.sh server")
    return path


def peers_python() -> Path:
    """The interpreter of the peers' environment, which is made if it is missing."""
    python = PEERS / "bin" / "python"
    if not python.is_file():
        wheels = [str(path) for path in (library.engines().parent / "wheels").glob("*.whl")]
        subprocess.run([sys.executable, "-m", "venv", PEERS], check=True)
        install = [str(python), "-m", "pip", "install", "-q", "mycellm==0.8.0"]
        subprocess.run([*install, *wheels, "llama-cpp-python[server]"], check=True)
    return python


class started:  # noqa: N801 - read as a verb
    """A process that ends with the scope; its output goes nowhere."""

    def __init__(
        self,
        command: list[Any],
        environment: dict[str, str] | None = None,
        folder: Path | None = None,
        *,
        processors: int | None = None,
    ) -> None:
        words = [str(word) for word in command]
        quiet = subprocess.DEVNULL
        self._process = subprocess.Popen(
            words, env=environment, cwd=folder, stdout=quiet, stderr=quiet
        )
        if processors is not None:
            os.sched_setaffinity(self._process.pid, sorted(os.sched_getaffinity(0))[:processors])

    def __enter__(self) -> subprocess.Popen[bytes]:
        return self._process

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


async def ready(process: subprocess.Popen[bytes], url: str) -> None:
    """Wait until `url` answers 200; raises RuntimeError if the process ends instead."""
    async with httpx.AsyncClient() as http:
        with trio.fail_after(START_SECONDS_MAX):
            while True:
                if process.poll() is not None:
                    raise RuntimeError(f"{process.args!r} ended with {process.returncode}")
                try:
                    if (await http.get(url)).status_code == httpx.codes.OK:
                        return
                except httpx.HTTPError:
                    pass  # not listening yet
                await trio.sleep(0.2)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


async def _load_in_mycellm(base: str, shape: Shape) -> None:
    wanted = {"model_path": str(shape.model), "name": "bench", "ctx_len": shape.context}
    async with httpx.AsyncClient() as http:
        (await http.post(f"{base}/v1/node/models/load", json=wanted)).raise_for_status()
        with trio.fail_after(START_SECONDS_MAX):
            while "bench" not in (await http.get(f"{base}/v1/models")).text:
                await trio.sleep(0.2)


def _chat(model: str) -> Callable[[Question, int], dict[str, Any]]:
    def body(question: Question, tokens: int) -> dict[str, Any]:
        said = [{"role": "user", "content": question.text}]
        settings = {"max_tokens": tokens, "temperature": 0, "stream": True}
        return {"model": model, "messages": said, **settings}

    return body


def _tokens_of_llama(event: dict[str, Any]) -> int:
    return 0 if event.get("stop") else len(event.get("tokens", ()))


def _tokens_of_chat(event: dict[str, Any]) -> int:
    """One token an event, as these servers send them."""
    choices = event.get("choices") or [{}]
    return int(bool(choices[0].get("delta", {}).get("content")))
