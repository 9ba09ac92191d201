"""The suites: how each is run against a subject, in its own environment, and read.

A suite is a process that ends by itself; one that does not is killed after its bound, and what it
told by then counts. Suites know a subject by its address alone.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from conformance import openapi_cut, outcomes
from conformance.environments import CLIENTS, JAVASCRIPT, LLAMA_CPP_PYTHON, LM_EVAL, SUITES
from conformance.outcomes import Outcome
from conformance.subjects import Subject
from conformance.tokenizer_files import write_tokenizer

HERE: Final = Path(__file__).parent
SUITE_SECONDS_MAX: Final = 1_800
REQUEST_SECONDS_MAX: Final = 300
SEED: Final = 1
WEIGHING_NATS: Final = 0.002  # of a whole text, from what the model's file gives
_CHECKS: Final = (
    "not_a_server_error", "response_schema_conformance", "content_type_conformance",
    "negative_data_rejection", "unsupported_method", "ignored_auth", "refused_as_openai_does",
)  # fmt: skip
_COMPLY: Final = ("openai-chat", "open-responses", "anthropic")
_LANGCHAIN: Final = {
    "chat": "TestChatCompletions",
    "responses": "TestResponses",
    "embeddings": "TestEmbeddings",
}


@dataclass(frozen=True)
class Suite:
    """`run` takes a subject, a folder for its files, and how many examples a fuzzer may try."""

    name: str
    version: Callable[[], str]
    run: Callable[[Subject, Path, int], list[Outcome]]
    embeddings: bool = False  # it asks for nothing else
    weights: bool = False  # it compares with what the model's file gives


def _llm_comply(style: str) -> Suite:
    def run(subject: Subject, folder: Path, examples: int) -> list[Outcome]:
        command = [SUITES.program("llm-comply"), "-u", subject.base, "-k", subject.key]
        command += ["-m", subject.reasoning_model or subject.model]
        command += ["--format", style, "--json"]
        command += ["--timeout", REQUEST_SECONDS_MAX]
        return outcomes.of_llm_comply(_output(command, subject, folder))

    return Suite(f"llm-comply {style}", lambda: SUITES.version("llm-comply"), run)


def _langchain(part: str, case: str) -> Suite:
    def run(subject: Subject, folder: Path, examples: int) -> list[Outcome]:
        report = folder / f"langchain-{part}.xml"
        command = [SUITES.python, "-m", "pytest", "-c", os.devnull, "--rootdir", HERE]
        command += ["-q", "-p", "no:cacheprovider", "--asyncio-mode=auto"]
        # One loop for all: langchain-openai keeps one asynchronous client.
        command += ["-o", "asyncio_default_test_loop_scope=session"]
        command += [f"{HERE / 'langchain_cases.py'}::{case}", "--junit-xml", report]
        _output(command, subject, folder)
        return outcomes.of_junit(report)

    return Suite(
        f"langchain-tests {part}",
        lambda: SUITES.version("langchain-tests"),
        run,
        embeddings=part == "embeddings",
    )


def _schemathesis(subject: Subject, folder: Path, examples: int) -> list[Outcome]:
    """OpenAI's document, cut: valid requests are answered as it says, others refused."""
    whole = next(SUITES.folder.glob("lib/*/site-packages/llm_comply/specs/openai_chat.json"))
    document, report = folder / "openai-cut.json", folder / "schemathesis.json"
    operations = openapi_cut.write(whole, document, subject.model, subject.embedding_model)
    command = [SUITES.program("st"), "run", document, "--url", subject.base]
    command += ["-H", f"Authorization: Bearer {subject.key}", "-c", ",".join(_CHECKS)]
    command += ["-n", examples, "--seed", SEED, "--continue-on-failure", "--no-shrink"]
    command += ["--request-timeout", REQUEST_SECONDS_MAX, "--warnings", "off"]
    command += ["--report", "json", "--report-json-path", report]
    hooks = {"SCHEMATHESIS_HOOKS": "schemathesis_hooks", "PYTHONPATH": str(HERE)}
    log = _output(command, subject, folder, **hooks)
    return outcomes.of_schemathesis(report, operations, log)


def _lm_eval(subject: Subject, folder: Path, examples: int) -> list[Outcome]:
    """Tasks of local files, and what the same texts are worth by the model's file itself."""
    assert subject.weights is not None
    place = folder / "weighing"
    shutil.copytree(HERE / "weighing", place)
    write_tokenizer(subject.weights, place / "tokenizer")
    more = {
        "OPENAI_API_KEY": subject.key,
        "MODEL_FILE": str(subject.weights),
        "DIRECT_PYTHON": str(LLAMA_CPP_PYTHON.python),
        "DIRECT_PROGRAM": str(HERE / "direct_logprobs.py"),
        "WEIGHING_NATS": str(WEIGHING_NATS),
        "HF_HUB_OFFLINE": "1",
        "HF_DATASETS_OFFLINE": "1",
        "HF_HOME": str(place),
    }
    return outcomes.of_json_lines(
        _output([LM_EVAL.python, HERE / "lm_eval_client.py"], subject, place, **more)
    )


def _script(name: str, version: Callable[[], str], *command: object, **more: str) -> Suite:
    def run(subject: Subject, folder: Path, examples: int) -> list[Outcome]:
        return outcomes.of_json_lines(_output(list(command), subject, folder, **more))

    return Suite(name, version, run)


def _output(command: list[Any], subject: Subject, folder: Path, **more: str) -> str:
    """What `command` prints; its exit code tells nothing that its report does not."""
    environment = {
        **os.environ,
        "SUBJECT_BASE": subject.base,
        "SUBJECT_KEY": subject.key,
        "SUBJECT_MODEL": subject.model,
        "SUBJECT_EMBEDDINGS_BASE": subject.embeddings_base or subject.base,
        "SUBJECT_EMBEDDING_MODEL": subject.embedding_model or "",
        "SUBJECT_REASONING_MODEL": subject.reasoning_model or "",
        "LITELLM_LOCAL_MODEL_COST_MAP": "True",  # it would else ask the internet for prices
        "PYTHONDONTWRITEBYTECODE": "1",
        **more,
    }
    words = [str(word) for word in command]
    done = subprocess.run(
        words,
        env=environment,
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        timeout=SUITE_SECONDS_MAX,
        check=False,
    )
    return done.stdout


ALL: Final = (
    *(_llm_comply(style) for style in _COMPLY),
    *(_langchain(part, case) for part, case in _LANGCHAIN.items()),
    Suite("schemathesis", lambda: SUITES.version("schemathesis"), _schemathesis),
    _script(
        "openai-python",
        lambda: SUITES.version("openai"),
        SUITES.python,
        HERE / "openai_python.py",
    ),
    _script(
        "openai-node and AI SDK",
        lambda: f"{JAVASCRIPT.version('openai')}, {JAVASCRIPT.version('ai')}",
        "/usr/bin/env",
        "node",
        HERE / "openai_node.mjs",
        NODE_FOLDER=str(JAVASCRIPT.folder),
    ),
    _script(
        "llama-index",
        lambda: CLIENTS.version("llama-index-core"),
        CLIENTS.python,
        HERE / "llama_index_client.py",
    ),
    Suite("lm-eval", lambda: LM_EVAL.version("lm-eval"), _lm_eval, weights=True),
    _script(
        "litellm", lambda: CLIENTS.version("litellm"), CLIENTS.python, HERE / "litellm_client.py"
    ),
)
