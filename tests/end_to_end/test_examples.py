"""docs/examples, run by the commands of its page against a network of real processes.

Replaced are the gateway's address, and `pip install` by the environments that make setup made. What
so small a model answers is not looked at; what libraries and network make of it is.
"""

from __future__ import annotations

import ast
import hashlib
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from assay import verify_answer
from assay.records import read_records
from end_to_end.example_network import example_network
from example_environments import GROUPS, is_ready, programs

pytestmark = [pytest.mark.end_to_end, pytest.mark.model, pytest.mark.slow]
DOCS = Path(__file__).resolve().parents[2] / "docs"
EXAMPLES = DOCS / "examples"
URL_OF_THE_PAGE = "http://127.0.0.1:8000"
EXAMPLE_LINES_MAX = 60
_SECONDS_MAX = 240


@dataclass(frozen=True)
class Block:
    """Commands of the page, and the group that they need."""

    group: str
    commands: str

    @property
    def files(self) -> list[str]:
        return re.findall(r"docs/examples/(\w+\.py)", self.commands)


def blocks() -> tuple[str, list[Block]]:
    """The block that sets variables, and those that run examples."""
    setting, group, found = "", "", []
    for text in re.findall(
        r"^```sh\n(.*?)^```$", (EXAMPLES / "README.md").read_text(), re.MULTILINE | re.DOTALL
    ):
        if text.startswith("export "):
            setting = text
        elif installed := re.fullmatch(r"pip install --group (\S+)\n", text):
            group = installed[1]
        else:
            found.append(Block(group, text))
    return setting, found


SETTING, BLOCKS = blocks()


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of one for all examples."""
    missing = [group for group in GROUPS if not is_ready(group)]
    assert not missing, "make them: python tests/example_environments.py"
    with example_network(tmp_path_factory.mktemp("network")) as url:
        yield url


def test_the_page_runs_every_example() -> None:
    shown = [name for block in BLOCKS for name in block.files]
    assert sorted(shown) == sorted(path.name for path in EXAMPLES.glob("*.py"))
    assert {block.group for block in BLOCKS} == set(GROUPS)
    assert set(CHECKS) == {block.files[0] for block in BLOCKS}
    assert SETTING.count(URL_OF_THE_PAGE) == 3


def test_examples_are_short_and_import_nothing_of_ours() -> None:
    for path in EXAMPLES.glob("*.py"):
        text = path.read_text()
        assert text.count("\n") <= EXAMPLE_LINES_MAX, path.name
        assert "import assay" not in text, path.name
        assert "from assay" not in text, path.name


def test_nothing_beyond_loopback_is_reached(tmp_path: Path) -> None:
    """The rule that the examples run under has an effect."""
    for attempt in (
        "import socket; socket.create_connection(('192.0.2.1', 80), 0.1)",
        "import socket; socket.getaddrinfo('example.invalid', 80)",
        "import urllib.request as u; u.urlopen('http://example.invalid')",
    ):
        with pytest.raises(AssertionError, match="beyond loopback"):
            run(Block(GROUPS[0], f'python -c "{attempt}"'), "", tmp_path)
    assert (tmp_path / "refused").read_text().count("\n") == 3


@pytest.mark.parametrize("block", BLOCKS, ids=[block.files[0][:-3] for block in BLOCKS])
def test_the_example_does_what_the_page_says(block: Block, gateway: str, tmp_path: Path) -> None:
    said = run(block, SETTING.replace(URL_OF_THE_PAGE, gateway), tmp_path)
    assert not (tmp_path / "refused").exists()
    CHECKS[block.files[0]](said, tmp_path)


def run(block: Block, setting: str, folder: Path) -> str:
    """What its commands print, run in `folder` as if that were the checkout."""
    (folder / "docs").symlink_to(DOCS)
    path = f"{programs(block.group)}:{Path(sys.executable).parent}:{os.environ['PATH']}"
    environment = {
        "PATH": path,
        "HOME": str(folder),
        "PYTHONPATH": str(Path(__file__).with_name("loopback_only")),
        "ASSAY_TEST_REFUSED": str(folder / "refused"),
    }
    done = subprocess.run(
        ["bash", "-euc", setting + block.commands],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=_SECONDS_MAX,
    )
    (folder / "docs").unlink()
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


# ---- what each must have printed and left -------------------------------------------------------


def _openai(said: str, folder: Path) -> None:
    streamed = re.search(r"\A([^\0]+)\n(\d+) tokens, receipts (\[.*\])$", said, re.MULTILINE)
    assert streamed is not None
    assert streamed[1].strip()
    assert 0 < int(streamed[2]) <= 48
    (receipt,) = ast.literal_eval(streamed[3])
    assert [len(bytes.fromhex(part)) for part in receipt.split("-")] == [16, 12]
    sky = _value("JSON: (.*)", said)
    assert set(sky) == {"colour", "reason"}
    assert sky["colour"] in {"blue", "grey", "red"}
    assert _value("tool: weather (.*)", said)["city"] in {"Oslo", "Rome"}
    _verified(said, folder / "answer.receipt", 1)


def _anthropic(said: str, folder: Path) -> None:
    counted = _value(r"the question has (\d+) tokens", said)
    assert 10 < counted < 100
    assert 0 < _value(r"^(\d+) tokens, ended by (?:max_tokens|end_turn)$", said) <= 48
    assert _value("tool: tide (.*)", said)["harbour"] in {"Bergen", "Bristol"}
    assert re.search(r"^then: \[.+\]$", said, re.MULTILINE)


def _inspect(said: str, folder: Path) -> None:
    for name in ("capitals-v1.jsonl", "capitals-v1.txt"):
        sha256 = hashlib.sha256((EXAMPLES / "data" / name).read_bytes()).hexdigest()
        assert f"{name} {sha256[:16]} as evaluated" in said
    asked = (EXAMPLES / "data" / "capitals-v1.jsonl").read_text().count("\n")
    answered = re.findall(r"^\w+ answered [A-Z][a-z]+ by node [0-9a-f]{16}$", said, re.MULTILINE)
    assert len(answered) == asked
    assert re.search(r"^accuracy +[01]\.?\d*", said, re.MULTILINE)
    _verified(said, folder / "eval.receipts", asked)


def _langchain(said: str, folder: Path) -> None:
    assert said.splitlines()[0].strip()
    assert re.search(r"^structured: Plant\(name='.*', leaves=\d\)$", said, re.MULTILINE)
    called = re.search(r"^tool: count_letters (\{.*\}) -> (\d+)$", said, re.MULTILINE)
    assert called is not None
    assert len(ast.literal_eval(called[1])["word"]) == int(called[2])
    assert _value(r"tokens of the last answer: (\d+)", said) > 0
    assert re.search(r"^its receipt: [0-9a-f]{32}-[0-9a-f]{24}$", said, re.MULTILINE)


def _rag(said: str, folder: Path) -> None:
    sources = re.findall(r"^source: (\w+)\.txt ([\d.]+)$", said, re.MULTILINE)
    best, second = sources[::2], sources[1::2]
    assert [name for name, _ in best] == ["boats", "light"], "found by what is meant"
    for one, other in zip(best, second, strict=True):
        assert float(one[1]) > float(other[1])
    assert len(re.findall(r"^answer: \S", said, re.MULTILINE)) == 2


def _value(pattern: str, said: str) -> Any:
    """The Python value that the line of this pattern prints."""
    found = re.search(pattern, said, re.MULTILINE)
    assert found is not None, said
    return ast.literal_eval(found[1])


def _verified(said: str, file: Path, count: int) -> None:
    """The command of the page found them good, and so do we."""
    assert len(re.findall(r"^receipt \d+: holds$", said, re.MULTILINE)) == count
    records = read_records(file.read_bytes())
    assert len(records) == count
    assert all(verify_answer((record,)).ok for record in records)


CHECKS: dict[str, Callable[[str, Path], None]] = {
    "openai_chat.py": _openai,
    "anthropic_messages.py": _anthropic,
    "inspect_eval.py": _inspect,
    "langchain_chat.py": _langchain,
    "rag_llamaindex.py": _rag,
}
