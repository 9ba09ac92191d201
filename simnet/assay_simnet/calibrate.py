"""`simnet calibrate`: what this machine does, as keys of a scenario.

Two things are measured. The engine alone, in a process of its own as a node has it: how long
prompts of two lengths take to their first token, and how fast tokens come where 1, 2, ... answers
are decoded at once. And a node behind a coordinator, by real processes on loopback with one client
and one job at a time: what such a job takes longer than the engine alone is the way there and back.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Final

import trio

from assay_node.engine.interface import Engine, Generate, Replay
from assay_node.engine.library import engines
from assay_node.engine.supervisor import open_llama_engine
from assay_node.engine.trials import choose
from assay_node.models.card import file_sha256
from assay_node.models.fetch import fetch_test_model
from assay_protocol.messages import Sampler, TokenBias
from assay_simnet.drivers.real_model import THREADS
from assay_simnet.drivers.real_run import Real
from assay_simnet.population import PROFILES
from assay_simnet.record import JobLine
from assay_simnet.scenario import read
from assay_simnet.schema import Source

PROFILE: Final = "cpu-thread"
SHORT, LONG = 32, 96  # prompt tokens
DECODED: Final = 96  # tokens of each answer that is timed
REPEATS: Final = 15
LEGS: Final = 4  # messages one after another before a first token: two to and from the coordinator
PARAMETERS: Final = 134.5e6  # of SmolLM2-135M
_SERIAL: Final = f"""# What does a job take, one at a time?
schema = 1
name = "calibration"
level = "real"
warm_up = "1 s"
duration = "40 s"
signatures = "ed25519"
[model]
context = 1024
[population]
nodes = 1
profiles = {{ "{PROFILE}" = 1 }}
[workload]
rate = "1 / s"
clients = 1
lengths = "fixed"
prompt_tokens = {SHORT}
prompt_most = {SHORT}
answer_tokens = {SHORT}
answer_most = {SHORT}
verify = "none"
"""


@dataclass(frozen=True, slots=True)
class EngineSpeed:
    """One engine alone. Microseconds; shares are of one answer's rate."""

    prefill_us: float  # a prompt token
    decode_us: float  # an answer token
    request_us: float  # to a first token, beyond the prompt's
    shares: tuple[float, ...]  # 2, 3, ... answers at once
    together: float  # two prompts at once take so much longer than one
    redraw_us: float  # an answer token in an audit, beyond reading it
    step_tokens: int  # of a prompt, computed at once


@dataclass(frozen=True, slots=True)
class JobPath:
    """One job at a time through a coordinator. Microseconds."""

    ttft_us: float
    tpot_us: float
    jobs: int


def calibrated(slots: int) -> str:
    """All of it. Takes two minutes. Raises AssayError, or Violated where a process failed."""
    return snippet(trio.run(measure_engine, slots), measure_path(), slots)


async def measure_engine(slots: int) -> EngineSpeed:
    """Takes half a minute of one thread. Raises AssayError."""
    file = fetch_test_model()
    digest = file_sha256(file)
    profile = choose(file, digest, "exact", threads=THREADS, directory=engines())
    async with open_llama_engine(
        file, digest, slots=slots, context=1_024, threads=THREADS, profile=profile
    ) as engine:
        draws = _Draws(engine)
        await draws.first_us(SHORT)  # what is made at the first request
        short = median([await draws.first_us(SHORT) for _ in range(REPEATS)])
        long = median([await draws.first_us(LONG) for _ in range(REPEATS)])
        rates = [await draws.token_us(at_once) for at_once in range(1, slots + 1)]
        audit = median([await draws.replay_us(SHORT, SHORT) for _ in range(REPEATS)])
        both = median([await draws.firsts_us(LONG) for _ in range(REPEATS)])
    prefill, decode = (long - short) / (LONG - SHORT), rates[0]
    shares = _falling([decode / each for each in rates[1:]])
    request = short - SHORT * prefill
    return EngineSpeed(
        prefill_us=prefill,
        decode_us=decode,
        request_us=request,
        shares=shares,
        together=both / long,
        redraw_us=max(0.0, audit - request - 2 * SHORT * prefill) / SHORT,
        step_tokens=profile.chunk,
    )


def measure_path(seed: int = 1) -> JobPath:
    """By real processes; takes a minute. Raises Violated."""
    world = Real(read(Source("calibration", _SERIAL)), seed)
    world.run()
    alone = _alone(world.record.honest)[2:]  # the first ones dial
    ttft = median(line.ttft_us for line in alone)
    return JobPath(ttft, median(line.tpot_us for line in alone), len(alone))


def snippet(engine: EngineSpeed, path: JobPath, slots: int) -> str:
    """Lines for a scenario. One latency stands for each leg's code, system calls and wire."""
    way = max(0.0, path.ttft_us - SHORT * engine.prefill_us - engine.request_us)
    size = fetch_test_model().stat().st_size
    shares = ", ".join(f"{one:.3f}" for one in engine.shares)
    memory = PROFILES[PROFILE].memory_gb
    return f"""# Measured by `simnet calibrate`: {machine()}
# Two prompts of {LONG} tokens at once took {engine.together:.2f} times as long as one; the
# simulator takes 2. {path.jobs} jobs through a coordinator, one at a time: TTFT {_ms(path.ttft_us)}
# (of it the engine {_ms(path.ttft_us - way)}), TPOT {_ms(path.tpot_us)} (engine \
{_ms(engine.decode_us)}).
[model]
parameters = {PARAMETERS:.4g}
size = "{size / 1e6:.3f} MB"

[network]
latency = "{way / LEGS / 1e3:.3f} ms"
jitter = "0 s"

[profile.{PROFILE}]
memory_gb = {memory:g}
slots = {slots}
prefill_tps = {1e6 / engine.prefill_us:.1f}
decode_tps = {1e6 / path.tpot_us:.2f}
decode_shares = [{shares}]
redraw_ms = {engine.redraw_us / 1e3:.3f}
step_tokens = {engine.step_tokens}
request_ms = {max(1.0, engine.request_us) / 1e3:.3f}
parameters = {PARAMETERS:.4g}
size_gb = {size / 1e9:.6f}
"""


def machine() -> str:
    """What was measured, in a few words."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        name = next(one.split(":", 1)[1].strip() for one in lines if one.startswith("model name"))
    except (OSError, StopIteration):
        name = platform.processor() or platform.machine()
    return f"{name}, {os.cpu_count()} cores, {THREADS} thread a node, {platform.system()}"


# ---- inside ------------------------------------------------------------------------------------


class _Draws:
    """Answers to prompts that have nothing to do with one another."""

    def __init__(self, engine: Engine) -> None:
        eog = engine.info.eog
        biases = tuple(TokenBias(token=token, bias=-100.0) for token in sorted(eog))
        self._engine = engine
        self._sampler = Sampler(
            temperature=0.8, top_k=40, top_p=0.95, min_p=0.05, logit_bias=biases
        )
        self._count = 0

    async def first_us(self, length: int) -> float:
        """From a prompt to its first token."""
        began = trio.current_time()
        return (await self._times(length, 1))[0] - began * 1e6

    async def firsts_us(self, length: int) -> float:
        """From two prompts to the later of their first tokens."""
        began, ended = trio.current_time(), list[float]()

        async def one() -> None:
            ended.append((await self._times(length, 1))[0])

        async with trio.open_nursery() as nursery:
            nursery.start_soon(one)
            nursery.start_soon(one)
        return max(ended) - began * 1e6

    async def replay_us(self, n_in: int, n_out: int) -> float:
        """An audit of an answer."""
        prompt, output = self._prompt(n_in), self._prompt(n_out)
        request = Replay(prompt, output, 0, self._sampler, self._seed())
        began = trio.current_time()
        await self._engine.replay(request)
        return (trio.current_time() - began) * 1e6

    async def token_us(self, at_once: int) -> float:
        """The median time of a token of one answer, where so many are decoded."""
        each: list[float] = []

        async def one() -> None:
            times = await self._times(1, DECODED)
            each.append((times[-1] - times[0]) / (DECODED - 1))

        async with trio.open_nursery() as nursery:
            for _ in range(at_once):
                nursery.start_soon(one)
        return median(each)

    async def _times(self, length: int, tokens: int) -> list[float]:
        """When each token came, in microseconds of the clock."""
        request = Generate(self._prompt(length), 0, tokens, self._sampler, self._seed())
        times: list[float] = []
        async with self._engine.generate(request) as chunks:
            async for chunk in chunks:
                times += [trio.current_time() * 1e6] * len(chunk.tokens)
        return times

    def _prompt(self, length: int) -> tuple[int, ...]:
        self._count += 1
        return tuple(1_000 + (7_919 * i + 104_729 * self._count) % 39_000 for i in range(length))

    def _seed(self) -> bytes:
        return self._count.to_bytes(32, "big")


def _alone(lines: Sequence[JobLine]) -> list[JobLine]:
    """Jobs that had the node to themselves."""
    begins = sorted(line.begun_us for line in lines)
    found, free_at = [], 0
    for line in sorted(lines, key=lambda one: one.begun_us):
        follows = begins[begins.index(line.begun_us) + 1 :]
        if line.begun_us > free_at and not (follows and follows[0] < line.ended_us):
            found.append(line)
        free_at = max(free_at, line.ended_us)
    return found


def _falling(shares: Sequence[float]) -> tuple[float, ...]:
    """None above the one before, nor above 1: what is, is the measurement's noise."""
    falling, least = [], 1.0
    for one in shares:
        least = min(least, one)
        falling.append(least)
    return tuple(falling)


def _ms(us: float) -> str:
    return f"{us / 1e3:.2f} ms"
