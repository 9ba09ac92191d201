"""docs/compatibility.md, made from results.json; run it to write the page again."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any, Final

from conformance.reasons import FAILED

HERE: Final = Path(__file__).parent
RESULTS: Final = HERE / "results.json"
PAGE: Final = HERE.parents[1] / "docs" / "compatibility.md"
OURS: Final = "assay"
SIMULATED: Final = "assay-obedient"
NAMES: Final = {
    "assay": "the gateway",
    "assay-obedient": "the gateway, **simulated** model",
    "llama-server": "llama-server",
    "llama-cpp-python": "llama-cpp-python's server",
}
ALIKE_CHARACTERS: Final = 40  # of what is said of a failure: then it is told with those like it
_ABOUT: Final = {
    "llm-comply": "each answer and event against OpenAI's and Anthropic's schemas",
    "langchain-tests": "LangChain's own tests of chat models and embeddings, over langchain-openai",
    "schemathesis": "generated requests, valid and not, from OpenAI's OpenAPI document",
    "openai-python": "what programs do with it: streams, tools, schemas, errors",
    "openai-node": "the same from JavaScript, and Vercel's AI SDK over both APIs",
    "llama-index": "its OpenAI-like classes: chat, stream, tools, embeddings",
    "lm-eval": "its own tasks over local files, beside loglikelihoods from the model's file",
    "litellm": "as a client: chat, stream, tools, and which of its errors ours become",
}


def written(text: str, results: dict[str, Any]) -> str:
    """The page with its parts from the results as they should be; the rest of `text` is prose."""
    measured = results["measured"]
    parts = {
        "measured": f"Measured {measured['date']} ({measured['machine']}).\n",
        "scores": _table(results),
        "here": _open_ends(results),
        "elsewhere": _others(results),
    }
    for name, part in parts.items():
        before, mark, rest = text.partition(f"<!-- {name} -->\n")
        _, end, after = rest.partition("<!-- end -->")
        assert "" not in (mark, end), f"{PAGE}: no place for {name}"
        text = before + mark + part + end + after
    return text


def unexplained(results: dict[str, Any]) -> list[tuple[str, str]]:
    """(suite, test) of failures of the gateway that have no reason: they are ours to mend."""
    both = [*_failures(results, OURS), *_failures(results, SIMULATED)]
    return list(dict.fromkeys(key for key, _ in both if key not in FAILED))


def unneeded(results: dict[str, Any]) -> list[tuple[str, str]]:
    """Reasons for tests that pass, or are not there."""
    both = [*_failures(results, OURS), *_failures(results, SIMULATED)]
    failed = {key for key, _ in both}
    return sorted(key for key in FAILED if key not in failed)


def _table(results: dict[str, Any]) -> str:
    subjects = [name for name in NAMES if name in results["subjects"]]
    versions = [f" ({results['subjects'][name]['version']})" for name in subjects]
    versions = [
        "" if name.startswith(OURS) else told for name, told in zip(subjects, versions, strict=True)
    ]
    titles = [NAMES[name] + told for name, told in zip(subjects, versions, strict=True)]
    lines = [f"| suite | asks | {' | '.join(titles)} |", "|---" * (2 + len(subjects)) + "|"]
    every = results["subjects"].get(SIMULATED, {"suites": {}})["suites"]
    for suite, ran in (results["subjects"][OURS]["suites"] | every).items():
        cells = [_score(results["subjects"][name]["suites"].get(suite)) for name in subjects]
        about = _ABOUT[suite.split()[0]]
        lines.append(f"| {suite} {ran['version']} | {about} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _score(ran: dict[str, Any] | None) -> str:
    if ran is None:
        return "not run"
    counts = Counter(one["status"] for one in ran["outcomes"])
    skipped = f" ({counts['skipped']} skipped)" if counts["skipped"] else ""
    return f"{counts['passed']} of {sum(counts.values())}{skipped}"


def _open_ends(results: dict[str, Any]) -> str:
    """What does not pass here, with its reason; what is skipped; what passed with a warning."""
    lines = ["| suite | test | why |", "|---|---|---|"]
    both = dict(_failures(results, SIMULATED)) | dict(_failures(results, OURS))
    for (suite, test), told in both.items():
        why = FAILED.get((suite, test), f"**ours to mend**: {_cell(told)}")
        lines.append(f"| {suite} | `{test}` | {why} |")
    lines += ["\nSkipped by the suites themselves, for what the model is not said to do:\n"]
    for suite, ran in results["subjects"][OURS]["suites"].items():
        reasons = Counter(
            _cell(one.get("why", "")) for one in ran["outcomes"] if one["status"] == "skipped"
        )
        if reasons:
            told = "; ".join(f"{why} ({count})" for why, count in sorted(reasons.items()))
            lines.append(f"- {suite}: {told}")
    for suite, ran in results["subjects"][OURS]["suites"].items():
        for one in ran["outcomes"]:
            if one["status"] == "passed" and one.get("why"):
                lines.append(
                    f"- {suite}, `{one['test']}` passes with a warning: {_cell(one['why'])}"
                )
    return "\n".join(lines) + "\n"


def _others(results: dict[str, Any]) -> str:
    """What the other servers do not pass, in the suites' words."""
    lines = []
    for name in NAMES:
        failures = _failures(results, name) if name in results["subjects"] else []
        if name.startswith(OURS) or not failures:
            continue
        lines += [f"**{NAMES[name]}**\n", "| suite | tests | said of the first |", "|---|---|---|"]
        for suite, tests, why in _alike(failures):
            names = ", ".join(f"`{test.partition('.')[2] or test}`" for test in tests)
            lines.append(f"| {suite} | {names} | {why} |")
        lines.append("")
    return "\n".join(lines) + "\n"


def _alike(failures: list[tuple[tuple[str, str], str]]) -> list[tuple[str, list[str], str]]:
    """Failures of a suite whose words begin alike, together: (suite, tests, the first one's)."""
    found: dict[tuple[str, str], tuple[str, list[str], str]] = {}
    for (suite, test), why in failures:
        said = _cell(why)
        _, tests, _ = found.setdefault((suite, said[:ALIKE_CHARACTERS]), (suite, [], said))
        tests.append(test)
    return list(found.values())


def _failures(results: dict[str, Any], subject: str) -> list[tuple[tuple[str, str], str]]:
    return [
        ((suite, one["test"]), one.get("why", ""))
        for suite, ran in results["subjects"].get(subject, {"suites": {}})["suites"].items()
        for one in ran["outcomes"]
        if one["status"] == "failed"
    ]


def _cell(text: str) -> str:
    """A text of others as a table's cell: no markup of its own, at most 120 characters."""
    for mark in "\\|`*_<>[]":
        text = text.replace(mark, " ")
    return " ".join(text.split())[:120]


if __name__ == "__main__":
    PAGE.write_text(written(PAGE.read_text(), json.loads(RESULTS.read_text())))
