"""A comparison of two runs, for people (Markdown) and for programs (JSON)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from assay_simnet.compare import Comparison, Figure, RunSeen

SHOWN_MAX: Final = 20  # lines of the ledger that differ; the count says how many there are


def as_markdown(seen: Comparison) -> str:
    """The report, a table for each question."""
    return "\n".join(_lines(seen)) + "\n"


def as_json(seen: Comparison) -> dict[str, Any]:
    """The same figures by name; latencies in seconds, amounts in micro-credits."""
    return {
        "runs": [_run(seen.a), _run(seen.b)],
        "tolerance": seen.tolerance,
        "within": seen.within,
        "ledger_exact": seen.exact,
        "differs": list(seen.differs[:SHOWN_MAX]),
        "differs_count": len(seen.differs),
        "latency": {
            f"{one.measure}_p{one.share}": {
                "a_s": round(one.a / 1e6, 6),
                "b_s": round(one.b / 1e6, 6),
                "off": round(one.off, 4) if one.b else None,
                "judged": one.judged,
            }
            for one in seen.figures
        },
        "paired_median_ratio": {name: round(by, 4) for name, by in seen.paired.items()},
        "jobs": {"matched": seen.matched, "same_node": seen.same_node},
        "credit_by_node": [
            {"node": node, "what": what, "a": a, "b": b} for node, what, a, b in seen.by_node
        ],
    }


def _run(run: RunSeen) -> dict[str, Any]:
    return {
        "folder": str(run.folder),
        "level": run.level,
        "jobs": sum(map(len, run.jobs.values())),
        "tokens": sum(job.tokens for job in run.delivered()),
        "sums": run.sums(),
        "root": run.root,
    }


def _lines(seen: Comparison) -> Iterator[str]:
    a, b = seen.a, seen.b
    name, seed = b.parameters.get("name"), b.seed
    yield f"# {name}, seed {seed}: {a.level} against {b.level}"
    yield ""
    yield f"`{a.folder}` against `{b.folder}`; tolerance {seen.tolerance:.0%} where marked."
    yield ""
    yield f"| latency | {a.level}, ms | {b.level}, ms | difference | |"
    yield "|---|---|---|---|---|"
    for one in seen.figures:
        verdict = ""
        if one.judged:
            verdict = "within" if abs(one.off) <= seen.tolerance else "**outside**"
        yield f"| {_label(one)} | {_ms(one.a)} | {_ms(one.b)} | {one.off:+.1%} | {verdict} |"
    yield ""
    yield "Median over matched jobs of one level by the other: " + ", ".join(
        f"{name.upper()} {by:.3f}" for name, by in seen.paired.items()
    )
    yield ""
    yield f"| in all | {a.level} | {b.level} |"
    yield "|---|---|---|"
    first, second = _run(a), _run(b)
    for what in ("jobs", "tokens"):
        yield f"| {what} | {first[what]} | {second[what]} |"
    for what in sorted(first["sums"].keys() | second["sums"].keys()):
        yield f"| {what} | {first['sums'].get(what, 0)} | {second['sums'].get(what, 0)} |"
    yield f"| last root | `{a.root[:16]}` | `{b.root[:16]}` |"
    yield ""
    yield f"{seen.matched} jobs matched, {seen.same_node} of them answered by the same nodes."
    yield ""
    yield from _ledger(seen)


def _ledger(seen: Comparison) -> Iterator[str]:
    if seen.exact:
        yield "Ledger exact: every job, every client's charge, and every sum."
    else:
        yield f"Ledger differs in {len(seen.differs)} lines; the first:"
        yield from (f"- {line}" for line in seen.differs[:SHOWN_MAX])
    if seen.by_node:
        yield ""
        yield f"| node | credit | {seen.a.level} | {seen.b.level} |"
        yield "|---|---|---|---|"
        yield from (f"| {node} | {what} | {a} | {b} |" for node, what, a, b in seen.by_node)


def _label(one: Figure) -> str:
    return f"{one.measure.upper()} p{one.share}"


def _ms(us: float) -> str:
    return f"{us / 1000:.2f}"
