"""What is shown, as text: one line for each node and one for the network, and the parts of those.

What is not known is a dash. Text of others comes from core/words, which let nothing through that
steers a terminal.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from assay.top.core.board import Picture
from assay.top.core.network_view import Audit, NetworkView
from assay.top.core.node_view import GONE, NodeView

UNKNOWN: Final = "-"
KEY_SHOWN: Final = 8
BARS: Final = "▁▂▃▄▅▆▇█"
_MICRO: Final = 1_000_000
_GPU: Final = (("busy_percent", "%"), ("celsius", "C"), ("watts", "W"))
_GIB: Final = 1 << 30


def plain_lines(picture: Picture) -> list[str]:
    """A line for each node, and before them one for the network."""
    head = [] if picture.network is None else [network_line(picture.network)]
    return [*head, *map(node_line, picture.nodes)]


def node_line(row: NodeView) -> str:
    """Everything that matters of one node."""
    name = label(row)
    if row.state == GONE:
        return f"{name} gone ({row.fault})"
    parts = [
        f"{name} {state(row)}",
        *([row.model] if row.model else []),
        f"slots {ratio(row.running, row.slots)} queued {number(row.queued)}",
        f"tok/s {rate(row.tokens_in_per_second)} in {rate(row.tokens_out_per_second)} out",
        f"ttft {seconds(row.ttft_p50)}/{seconds(row.ttft_p95)}",
        f"tpot {seconds(row.tpot_p50)}/{seconds(row.tpot_p95)}",
        f"jobs {number(row.jobs_done)} done {number(row.jobs_failed)} failed",
        f"audits {number(row.audits_passed)} passed {number(row.audits_failed)} failed",
        f"credit {credit(row.earned)} earned {credit(row.escrow)} escrow",
    ]
    parts += [text for text in (machine(row), error(row)) if text]
    return " | ".join(parts)


def network_line(view: NetworkView) -> str:
    """The network in one line."""
    if view.state == GONE:
        return f"network gone ({view.fault})"
    parts = [
        f"network {view.state}" + (f" ({', '.join(view.reasons)})" if view.reasons else ""),
        f"nodes {states(view)}",
        f"slots {ratio(view.running, view.slots)} queued {number(view.waiting)}",
        f"jobs {number(view.jobs)}, {rate(view.jobs_per_minute)} a minute",
        f"tok/s {rate(view.tokens_per_second)} ttft {seconds(view.ttft_p50)}",
        f"audits {number(view.audits)}, {number(view.audits_open)} open, "
        f"{number(view.against)} against",
        f"epoch {number(view.epoch)}",
    ]
    return " | ".join(parts)


def label(row: NodeView) -> str:
    """A node's name in a list: the beginning of its key, or how it was given."""
    return row.node[:KEY_SHOWN] or row.source


def state(row: NodeView) -> str:
    """What it does, its standing, and why."""
    shown = row.state + (f"/{row.standing}" if row.standing else "")
    why = row.fault or ", ".join(row.reasons)
    return f"{shown} ({why})" if why else shown


def states(view: NetworkView) -> str:
    """How many nodes of each standing; what there is none of is left out."""
    return ", ".join(f"{n} {name}" for name, n in view.nodes_by_state if n) or "none"


def machine(row: NodeView) -> str:
    """Processor, memory and GPUs, as far as they are told."""
    parts = []
    if row.cpu_percent is not None:
        parts.append(f"cpu {row.cpu_percent:.0f}%")
    if row.memory is not None:
        parts.append(f"ram {gib(row.memory_used)}/{gib(row.memory)} GiB")
    for gpu in row.gpus:
        words = [f"{gpu[name]}{unit}" for name, unit in _GPU if gpu.get(name) is not None]
        memory = f"{gib(gpu.get('memory_used'))}/{gib(gpu.get('memory'))} GiB"
        parts.append(" ".join(["gpu", *words, "vram", memory]))
    return ", ".join(parts)


def limits(row: NodeView) -> str:
    """The owner's limits that are set."""
    return ", ".join(f"{name} {_value(value)}" for name, value in row.limits.items()) or "none"


def error(row: NodeView) -> str:
    """The last error, if there was one."""
    return f"last error {row.last_error}" if row.last_error else ""


def audit_line(audit: Audit) -> str:
    """How one job's audit ended."""
    return f"{audit.outcome:<9} node {audit.node[:KEY_SHOWN]}  job {audit.ticket[:KEY_SHOWN]}"


def spark(values: Sequence[float], width: int) -> str:
    """The last `width` values as bars; the tallest is the largest of them, a space is nothing."""
    shown = values[-width:] if width > 0 else ()
    top = max(shown, default=0.0)
    bars = (BARS[min(len(BARS) - 1, int(v / top * len(BARS)))] if v > 0 else " " for v in shown)
    return "".join(bars).rjust(width)


def number(value: int | None) -> str:
    """A count."""
    return UNKNOWN if value is None else str(value)


def ratio(part: int | None, whole: int | None) -> str:
    """Some of how many."""
    return f"{number(part)}/{number(whole)}"


def rate(value: float | None) -> str:
    """Something a second."""
    return UNKNOWN if value is None else f"{value:.1f}"


def seconds(value: float | None) -> str:
    """A time: milliseconds below a second, in three digits."""
    if value is None:
        return UNKNOWN
    return f"{value * 1000:.0f}ms" if value < 0.9995 else f"{value:.1f}s"


def credit(micro: int | None) -> str:
    """Micro-credits as credits."""
    return UNKNOWN if micro is None else f"{micro / _MICRO:.4f}"


def gib(size: int | None) -> str:
    """Bytes."""
    return UNKNOWN if size is None else f"{size / _GIB:.1f}"


def _value(value: Any) -> str:
    return " ".join(map(str, value)) if isinstance(value, tuple) else str(value)
