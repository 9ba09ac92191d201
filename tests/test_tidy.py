"""The house is in order: layers, sizes, names, and every promise of the docs kept by the code."""

from __future__ import annotations

import json
import re
import subprocess
from importlib import metadata

import pytest
from packaging.requirements import Requirement

from assay_protocol import codec, messages
from assay_protocol.errors import CODES
from tidy_rules import ROOT, cycles, defines, layering, names, programs, sizes, sources

SPEC = ROOT / "protocol" / "spec"
DOCS = ROOT / "docs"
assert messages.Ticket in codec.TYPES.values(), "importing messages registers them"
MESSAGES = [(cls.__name__, number) for number, cls in sorted(codec.TYPES.items())]
BASE_PACKAGES_MAX = 12
COMPILED_FROM_SOURCE = {"libp2p", "fastecdsa", "llama-cpp-python", "coincurve", "py-evm"}


def test_every_package_has_modules() -> None:
    assert len(list(sources())) > 30, "the rules below would hold of nothing"


def test_layers() -> None:
    assert [fault for path, text in sources() for fault in layering(path, text)] == []


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("protocol/assay_protocol/x.py", "import trio"),
        ("protocol/assay_protocol/x.py", "def f():\n    from os import path"),
        ("protocol/assay_protocol/x.py", "import numpy"),
        ("protocol/assay_protocol/x.py", "import httpx"),
        ("protocol/assay_protocol/sampling.py", "import llguidance"),
        ("protocol/assay_protocol/x.py", "import assay_network.frames"),
        ("node/assay_node/core/x.py", "import time as t"),
        ("coordinator/assay_coordinator/core/x.py", "if 1:\n    import sqlalchemy.orm"),
        ("network/assay_network/x.py", "from assay_node import app"),
        ("contracts/assay_contracts/x.py", "import assay_network"),
        ("node/assay_node/x.py", "import assay_coordinator"),
        ("node/assay_node/x.py", "import assay"),
        ("coordinator/assay_coordinator/x.py", "def f():\n    import assay_node"),
        ("sdk/assay/x.py", "def f():\n    import assay_coordinator"),
        ("sdk/assay/x.py", "import assay_contracts"),
        ("sdk/assay/x.py", "import assay_node"),
        ("sdk/assay/cli.py", "import assay_node"),
    ],
)
def test_the_layering_rule_finds_an_offender(path: str, text: str) -> None:
    assert layering(path, text) != []


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("protocol/assay_protocol/sampling.py", "import numpy"),
        ("sdk/assay/x.py", "def f():\n    import assay_contracts.credit.verify"),
        ("sdk/assay/x.py", "def f():\n    import assay_node.engine"),  # replays a receipt
        ("sdk/assay/cli.py", "def f():\n    import assay_node"),
        ("sdk/assay/x.py", "if TYPE_CHECKING:\n    import assay_contracts"),
        ("node/assay_node/x.py", "import trio, assay_network, assay_node.core"),
        ("node/assay_node/x.py", "def f():\n    import assay_contracts.adapters.rpc_chain"),
        ("simnet/assay_simnet/x.py", "import assay_node, assay_coordinator, assay"),
    ],
)
def test_the_layering_rule_lets_the_rest_pass(path: str, text: str) -> None:
    assert layering(path, text) == []


def test_no_modules_of_the_simulator_import_one_another_in_a_circle() -> None:
    assert cycles((path, text) for path, text in sources() if path.startswith("simnet/")) == []


def test_the_rule_on_circles_finds_an_offender() -> None:
    for_types = "if TYPE_CHECKING:\n    from p.b import B\n"
    circle = [("s/p/a.py", for_types), ("s/p/b.py", "def f():\n    from p import a\n")]
    beside = [("s/p/c.py", "from p.a import A\n"), ("s/p/d.py", "import p.c\n")]
    assert cycles(circle + beside) == ["p.a -> p.b", "p.b -> p.a"]
    assert cycles(circle[:1] + beside) == []


def test_files_and_functions_are_short() -> None:
    assert [fault for path, text in programs() for fault in sizes(path, text)] == []


def test_nothing_is_named_for_nothing() -> None:
    assert [fault for path, text in programs() for fault in names(path, text)] == []


def test_the_other_rules_find_offenders() -> None:
    long = "def f():\n" + "    x = 1\n" * 70
    assert len(sizes("a/b.py", long)) == 1
    assert len(sizes("a/b.py", "x = 1\n" * 601)) == 1
    offender = "class JobManager: ...\ndef parse_utils(): ...\nclass Commoner: ...\n"
    assert len(names("a/helpers.py", offender)) == 3


@pytest.mark.parametrize(("name", "number"), MESSAGES)
def test_every_message_has_a_spec_section_and_a_vector(name: str, number: int) -> None:
    pages = "\n".join(page.read_text() for page in SPEC.glob("[0-9]*.md"))
    heading = f"### {name} ({number})\n"
    assert pages.count(heading) == 1, f"one section {heading!r} in protocol/spec wanted"
    vectors = json.loads((SPEC / "vectors" / "messages.json").read_text())["messages"]
    assert any(vector["type"] == number for vector in vectors), "run `make vectors`"


def test_the_spec_describes_no_message_that_is_not_there() -> None:
    pages = "\n".join(page.read_text() for page in SPEC.glob("[0-9]*.md"))
    known = [(name, str(number)) for name, number in MESSAGES]
    assert sorted(re.findall(r"^### (\w+) \((\d+)\)$", pages, re.MULTILINE)) == sorted(known)


def test_error_codes_docs_list_every_code_once() -> None:
    listed = re.findall(r"^\| `(\w+)` \|", (DOCS / "errors.md").read_text(), re.MULTILINE)
    assert sorted(listed) == sorted(CODES)


def test_every_error_code_is_used() -> None:
    modules = [text for path, text in sources() if not path.endswith("assay_protocol/errors.py")]
    text = "\n".join(modules)
    assert [code for code in CODES if f'"{code}"' not in text] == []


def test_every_invariant_names_code_and_checks_that_exist() -> None:
    page = (DOCS / "INVARIANTS.md").read_text()
    rows = re.findall(r"^\| (\w\d) \|([^|]*)\|([^|]*)\|([^|]*)\|$", page, re.MULTILINE)
    assert [row[0] for row in rows] == [
        "L1",
        "L2",
        "L3",
        "L4",
        "L5",
        "L6",
        "L7",
        "L8",
        "L9",
        "H1",
        "H2",
        "H3",
        "S1",
        "S2",
        "S3",
        "S4",
        "G1",
        "V1",
        "G2",
        "B1",
        "P1",
        "D1",
    ]
    missing = []
    for ident, _, asserted, checked in rows:
        for column in (asserted, checked):
            references = re.findall(r"`([\w/.]+\.\w+):([\w.]+)`", column)
            assert references, f"{ident}: a file:symbol in each column wanted"
            missing += [f"{ident}: {f}:{s}" for f, s in references if not _exists(f, s)]
    assert missing == []


def _exists(file: str, symbol: str) -> bool:
    path = ROOT / file
    if not path.is_file():
        return False
    if path.suffix == ".py":
        return defines(path, symbol)
    return re.search(rf"\b{re.escape(symbol)}\b", path.read_text()) is not None


def test_relative_links_of_docs_lead_somewhere() -> None:
    pages = [ROOT / "README.md", *DOCS.rglob("*.md"), *SPEC.glob("*.md")]
    dead = []
    for page in pages:
        for link in re.findall(r"\]\(([^)#\s]+)[^)]*\)", page.read_text()):
            if "://" not in link and not (page.parent / link).exists():
                dead.append(f"{page.relative_to(ROOT)}: {link}")
    assert dead == []


def test_the_base_install_is_small_and_compiles_nothing() -> None:
    needed = _needed("assay-network") - {"assay-network"}
    assert "pynacl" in needed
    assert len(needed) <= BASE_PACKAGES_MAX, sorted(needed)
    assert needed & COMPILED_FROM_SOURCE == set()


def _needed(name: str) -> set[str]:
    """Every package an install of `name` without extras brings here, itself included."""
    found: set[str] = set()
    waiting = [name]
    while waiting:
        one = waiting.pop().lower().replace("_", "-")
        if one in found:
            continue
        found.add(one)
        for text in metadata.requires(one) or []:
            requirement = Requirement(text)
            if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
                waiting.append(requirement.name)
    return found


# Spelt in two parts, so that this file keeps the rule too.
_REGISTRIES = ["pypi" + ".org", "pythonhosted" + ".org", "npmjs" + ".org", "npmjs" + ".com"]


def test_no_registry_is_named_and_no_lock_is_tracked() -> None:
    listed = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True, text=True
    ).stdout.split("\0")
    tracked = [name for name in listed if name and (ROOT / name).is_file()]
    assert "pyproject.toml" in tracked
    assert "uv.lock" not in [name.rsplit("/")[-1] for name in tracked]
    named = []
    for name in tracked:
        content = (ROOT / name).read_bytes()
        named += [f"{name}: {host}" for host in _REGISTRIES if host.encode() in content]
    assert named == []
