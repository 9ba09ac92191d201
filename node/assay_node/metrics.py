"""What Prometheus is told of a node: the names and buckets of vLLM behind our prefix, and ours.

Times are counted from the events and effects of the core as the runtime carries them out; all else
is read off the status when somebody asks. Nothing names a client, a job, a peer or a text.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from prometheus_client import Counter, Histogram

from assay_network.readings import PREFIX, Reading, Readings, exposition, new_registry
from assay_node.core import effects as do
from assay_node.core import events as on
from assay_node.status import MICRO, Status

# Upper bounds in seconds: those of vLLM (vllm/v1/metrics/buckets.py), so that both can be compared.
REQUEST_BUCKETS: Final = (
    *(0.3, 0.5, 0.8, 1.0, 1.5, 2.0, 2.5, 5.0, 10.0, 15.0, 20.0, 30.0, 40.0, 50.0, 60.0),
    *(120.0, 240.0, 480.0, 960.0, 1920.0, 7680.0),
)
FIRST_TOKEN_BUCKETS: Final = (
    *(0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5),
    *(10.0, 20.0, 40.0, 80.0, 160.0, 640.0, 2560.0),
)
TOKEN_BUCKETS: Final = (
    *(0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5),
    *(10.0, 20.0, 40.0, 80.0),
)

# The coordinator's words for a node's standing; what else one may say is not passed on.
STANDINGS: Final = ("unregistered", "probation", "active", "inquiry", "suspended", "convicted")

READINGS: Final[tuple[Reading[Status], ...]] = (
    Reading("num_requests_running", "Jobs the engines work on.", lambda s: s.running),
    Reading("num_requests_waiting", "Jobs that wait for a slot.", lambda s: s.queued),
    Reading("slots", "Answers that can be computed at once.", lambda s: s.slots),
    Reading("generation_tokens", "Tokens sent to clients.", lambda s: s.tokens, rises=True),
    Reading(
        "jobs",
        "Jobs that ended, by outcome: done (with a receipt), failed, refused.",
        lambda s: {"done": s.jobs_done, "failed": s.jobs_failed, "refused": s.jobs_refused},
        label="outcome",
        rises=True,
    ),
    Reading(
        "receipts",
        "Receipts handed in, by outcome: booked, refused.",
        lambda s: {"booked": s.receipts_booked, "refused": s.receipts_refused},
        label="outcome",
        rises=True,
    ),
    Reading("receipts_owed", "Receipts in the outbox, not booked yet.", lambda s: s.receipts_owed),
    Reading(
        "own_audits",
        "Audits of this node's answers over its life, by verdict, in the coordinator's words.",
        lambda s: {"passed": s.audits_passed, "failed": s.audits_failed},
        label="verdict",
    ),
    Reading(
        "credit",
        "Micro-credits of this node, by purse: earned, escrow; in the coordinator's words.",
        lambda s: {"earned": s.earned, "escrow": s.escrow},
        label="purse",
    ),
    Reading(
        "node_state",
        "1 for the standing the node has.",
        lambda s: {state: s.state == state for state in STANDINGS},
        label="state",
    ),
    Reading("node_phase", "1 for what the node does.", lambda s: {s.phase: 1}, "phase"),
    Reading("coordinator_connected", "1 while there is a session.", lambda s: s.connected),
    Reading("engine_restarts", "Engines that died.", lambda s: s.engine_restarts, rises=True),
    Reading(
        "clock_skew_seconds",
        "The coordinator's clock less this one's.",
        lambda s: s.clock_skew_ms / 1_000,
    ),
    Reading("rules_version", "Of governance's rules in force; -1: none.", lambda s: s.rules),
    Reading("models_denied", "Models here that the rules do not allow.", lambda s: s.denied),
)


@dataclass(slots=True)
class _Answer:
    """One job's times, in microseconds since the epoch."""

    opened_at: int
    first_at: int = 0  # 0: no token yet
    first_tokens: int = 0
    drew_at: int = 0
    tokens: int = 0
    whole: bool = False  # the engine ended it


class NodeMetrics:
    """Feed it what the runtime does; `text` is what is told."""

    def __init__(self) -> None:
        self.registry = registry = new_registry()
        self._answers: dict[int, _Answer] = {}  # as many as there are streams

        def seconds(name: str, text: str, buckets: Sequence[float]) -> Histogram:
            return Histogram(f"{PREFIX}_{name}", text, buckets=buckets, registry=registry)

        def count(name: str, text: str, *labels: str) -> Counter:
            return Counter(f"{PREFIX}_{name}", text, labels, registry=registry)

        self._queued = seconds(
            "request_queue_time_seconds",
            "From a job's stream to its start on an engine, loading included.",
            REQUEST_BUCKETS,
        )
        self._first = seconds(
            "time_to_first_token_seconds",
            "From a job's stream to the first tokens drawn.",
            FIRST_TOKEN_BUCKETS,
        )
        self._between = seconds(
            "inter_token_latency_seconds",
            "Between two chunks of one answer, for each token of the later one; a client that "
            "reads slowly is in it.",
            TOKEN_BUCKETS,
        )
        self._each = seconds(
            "request_time_per_output_token_seconds",
            "For each token after the first chunk, once an answer is whole.",
            TOKEN_BUCKETS,
        )
        self._whole = seconds(
            "e2e_request_latency_seconds",
            "From a job's stream to its receipt, of whole answers.",
            REQUEST_BUCKETS,
        )
        self._prompts = count("prompt_tokens", "Tokens of prompts given to engines.")
        self._finished = count(
            "request_success", "Jobs that ended with a receipt, by why.", "finished_reason"
        )
        self._replays = count(
            "replays",
            "Audits computed for others, by outcome: done, or an error's code.",
            "outcome",
        )

    def follow(self, look: Callable[[], Status]) -> None:
        """Read all else off what `look` gives."""
        self.registry.register(Readings(READINGS, look))

    def text(self) -> bytes:
        """All of it, for Prometheus."""
        return exposition(self.registry)

    def observe(self, now: int, event: on.Event, effects: Sequence[do.Effect]) -> None:
        """`event` happened at `now` and `effects` are what the node wants done."""
        match event:
            case on.Drawn(stream, chunk) if (answer := self._answers.get(stream)) is not None:
                self._drawn(now, answer, len(chunk.tokens))
                if chunk.finish is not None:
                    self._ended(answer)
            case on.StreamOpened(stream):
                self._answers[stream] = _Answer(now)
            case on.ReplayDone():
                self._replays.labels("done").inc()
            case on.ReplayFailed(_, code):
                self._replays.labels(code).inc()
        for effect in effects:
            self._wanted(now, effect)
        if isinstance(event, on.StreamLost):  # told of every stream, however it ended
            self._answers.pop(event.stream, None)

    def _wanted(self, now: int, effect: do.Effect) -> None:
        match effect:
            case do.StartGenerate(stream, generate):
                self._prompts.inc(len(generate.prompt))
                if (answer := self._answers.get(stream)) is not None:
                    self._queued.observe(_seconds(answer.opened_at, now))
            case do.SendFrame(stream, last=True):
                answer = self._answers.get(stream)
                if answer is not None and answer.whole:
                    answer.whole = False
                    self._whole.observe(_seconds(answer.opened_at, now))
            case do.Log("job_finished", fields):
                self._finished.labels(str(dict(fields)["finish"])).inc()

    def _drawn(self, now: int, answer: _Answer, tokens: int) -> None:
        if not tokens:
            return
        if not answer.tokens:
            self._first.observe(_seconds(answer.opened_at, now))
            answer.first_at, answer.first_tokens = now, tokens
        else:
            self._between.observe(_seconds(answer.drew_at, now) / tokens)
        answer.tokens += tokens
        answer.drew_at = now

    def _ended(self, answer: _Answer) -> None:
        answer.whole = True
        later = answer.tokens - answer.first_tokens
        if later:
            self._each.observe(_seconds(answer.first_at, answer.drew_at) / later)


def _seconds(began: int, ended: int) -> float:
    """Between two readings of a clock that may be set back."""
    return max(0, ended - began) / MICRO
