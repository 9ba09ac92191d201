"""`assay chat`, `job submit`, `network` and `account`: the commands that talk to the network."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, TextIO

import platformdirs

from assay.answer_stream import AnswerEvent
from assay.answers import Completion, Delta, JobFailed
from assay.cli import FAILED, OK, print_json, printable
from assay.client import BlockingStream, Client
from assay.events import Resumed
from assay.pictures import image_part
from assay.records import ReceiptRecord, write_records
from assay.standing import standing_of
from assay.verdicts import Verdict
from assay.verify import verify_answer
from assay_protocol.errors import AssayError

_DIM, _PLAIN = "\x1b[2m", "\x1b[0m"


def connect(options: argparse.Namespace) -> Client:
    """A client as the options say; the key, cards and receipts are kept in the user's folders."""
    if not options.coordinator:
        raise AssayError("config_invalid", "give --coordinator or set ASSAY_COORDINATOR")
    data = Path(platformdirs.user_data_dir("assay"))
    return Client(
        options.coordinator,
        key_path=options.key or data / "client.key",
        cache=Path(platformdirs.user_cache_dir("assay")) / "cards",
        receipts=data / "receipts",
    )


def chat(options: argparse.Namespace) -> int:
    """Ask once (a prompt, or a pipe), or talk until the end of input."""
    once = " ".join(options.prompt) or (None if sys.stdin.isatty() else sys.stdin.read())
    with connect(options) as client:
        if once is not None:
            return _ask(client, [_asked(once, options.image)], options)[0]
        return _talk(client, options)


def submit(options: argparse.Namespace) -> int:
    """Run one job; write its receipt records to --receipt, whatever became of it."""
    prompt = " ".join(options.prompt) or sys.stdin.read()
    if options.raw and options.image:
        raise AssayError("image_refused", "plain text shows no pictures: leave --raw out")
    with connect(options) as client:
        try:
            if options.raw:
                stream = client.stream_complete(prompt, **_job_options(options))
                code, result = _show(stream, options)
            else:
                code, result = _ask(client, [_asked(prompt, options.image)], options)
        except JobFailed as failure:
            keep_records(options.receipt, failure.partial.receipts + failure.partial.twins)
            raise
    keep_records(options.receipt, result.receipts + result.twins)
    return code


def keep_records(path: Path | None, records: tuple[ReceiptRecord, ...]) -> None:
    """Write them to the file that --receipt names, if it does: they hold the prompt."""
    if path is not None:
        path.touch(mode=0o600)
        path.write_bytes(write_records(records))


def network(options: argparse.Namespace) -> int:
    """Nodes and totals."""
    with connect(options) as client:
        state = client.network()
    if options.json:
        print_json(asdict(state))
        return OK
    print(
        f"{len(state.nodes)} nodes, {state.jobs} jobs, {state.audits} audits, epoch {state.epoch}"
    )
    for node in state.nodes:
        audits = f"{node.audits_passed} audits passed, {node.audits_failed} failed"
        print(f"  {node.node.hex()[:16]}  {printable(node.state):<10}  {node.jobs} jobs  {audits}")
    return OK


def account(options: argparse.Namespace) -> int:
    """This key's balances."""
    with connect(options) as client:
        balances = asdict(client.account())
    if options.json:
        print_json(balances)
        return OK
    print(f"key        {balances.pop('key').hex()}")
    for name, amount in balances.items():
        print(f"{name:<10} {amount / 1e6:.6f} credits")
    return OK


def _asked(prompt: str, images: Sequence[Path]) -> dict[str, Any]:
    """What the user says, behind the pictures it shows."""
    if not images:
        return {"role": "user", "content": prompt}
    content = [*map(image_part, images), {"type": "text", "text": prompt}]
    return {"role": "user", "content": content}


def _talk(client: Client, options: argparse.Namespace) -> int:
    messages: list[dict[str, Any]] = []
    while True:
        try:
            line = input("> ")
        except EOFError:
            print()
            return OK
        if not line.strip():
            continue
        messages.append(_asked(line, () if messages else options.image))
        try:
            _, result = _ask(client, messages, options)
        except AssayError as error:
            print(f"assay: {printable(str(error))}", file=sys.stderr)
            messages.pop()
            continue
        messages.append({"role": "assistant", "content": result.text})


def _ask(
    client: Client, messages: list[dict[str, Any]], options: argparse.Namespace
) -> tuple[int, Completion]:
    return _show(client.stream_chat(messages, **_job_options(options)), options)


def _show(stream: BlockingStream, options: argparse.Namespace) -> tuple[int, Completion]:
    """Print an answer as it comes, and below it, on standard error, who drew it and how fast.

    Raises JobFailed after that: what came stays readable.
    """
    started = time.monotonic()
    shown = _Shown(options)
    failure: JobFailed | None = None
    try:
        with stream:
            for event in stream:
                shown.take(event)
    except JobFailed as error:
        failure = error
    seconds = max(time.monotonic() - started, 1e-6)
    result = stream.result if failure is None else failure.partial
    check = verify_answer(result.receipts)
    verified = bool(result.receipts) and check.ok
    if options.json:
        print_json(_summary(result, seconds, shown.resumed, verified))
    else:
        print()
        print(f"[{_told(result, seconds, shown.resumed, verified)}]", file=sys.stderr)
        for line in _standings(result) if options.receipt is True else ():
            print(f"  {printable(line)}", file=sys.stderr)
    if failure is not None:
        raise failure
    return (OK if check.ok else FAILED), result


class _Shown:
    """Prints an answer's events; the answer alone is the output, what was thought before it goes
    to standard error, and dim where somebody looks."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.resumed: list[Resumed] = []
        self._json, self._reasoning = options.json, options.reasoning
        self._thinking = False

    def take(self, event: AnswerEvent) -> None:
        if isinstance(event, Resumed):
            self.resumed.append(event)
        elif isinstance(event, Delta) and not self._json:
            if event.reasoning and self._reasoning:
                self._thinking = True
                _print(event.reasoning, sys.stderr, dim=True)
            if event.text and self._thinking:
                self._thinking = False
                _print("\n", sys.stderr)
            _print(event.text, sys.stdout)


def _print(text: str, file: TextIO, *, dim: bool = False) -> None:
    if file.isatty():
        text = f"{_DIM}{printable(text)}{_PLAIN}" if dim else printable(text)
    print(text, end="", file=file, flush=True)


def _told(result: Completion, seconds: float, resumed: list[Resumed], verified: bool) -> str:
    """Who drew it, how fast, and what was checked, in one line."""
    nodes = " -> ".join(node.hex()[:16] for node in result.nodes)
    rate = f"{len(result.tokens) / seconds:.1f} tok/s"
    parts = [f"node {nodes}", f"{len(result.tokens)} tokens", rate]
    if result.usage.reasoning_tokens:
        parts.insert(2, f"{result.usage.reasoning_tokens} of them reasoning")
    if resumed:
        parts.append(f"resumed at token {', '.join(str(r.at_token) for r in resumed)}")
    word = "verified" if verified else "NOT VERIFIED" if result.receipts else "none"
    parts.append(f"receipt {word}")
    if result.verdict is not None:
        parts.append(f"audit {printable(result.verdict.outcome)}{_signed(result.verdict)}")
    if result.twins and result.final:
        parts.append("two operators' nodes drew the same")
    return ", ".join(parts)


def _signed(verdict: Verdict) -> str:
    if not verdict.auditors:
        return " by the coordinator's word alone"
    return f", signed by {', '.join(key.hex()[:16] for key in verdict.auditors)}"


def _standings(result: Completion) -> list[str]:
    return [line for record in result.receipts for line in standing_of(record).lines]


def _summary(
    result: Completion, seconds: float, resumed: list[Resumed], verified: bool
) -> dict[str, Any]:
    return {
        "text": result.text,
        "reasoning": result.reasoning,
        "finish_reason": result.finish_reason,
        "usage": asdict(result.usage),
        "nodes": list(result.nodes),
        "resumed_at": [event.at_token for event in resumed],
        "receipt_verified": verified,
        "final": result.final,
        "verdict": asdict(result.verdict) if result.verdict else None,
        "standing": _standings(result),
        "seconds": round(seconds, 3),
    }


def _job_options(options: argparse.Namespace) -> dict[str, Any]:
    return {
        "model": options.model,
        "max_tokens": options.max_tokens,
        "temperature": options.temperature,
        "verify": options.verify,
        "regions": tuple(options.region),
    }
