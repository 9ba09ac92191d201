"""Credit in the browser: the verdicts of `assay credit verify`, without a chain of its own."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from assay_contracts.artefact import load
from assay_contracts.credit.bundle import CreditBundle, decode_proof
from assay_contracts.credit.posted import posted_epoch, posting
from assay_contracts.credit.verify import FileChain, Kept, verify_bundle
from assay_protocol.credit_tree import CreditLeaf, CreditLine, fold
from assay_protocol.errors import AssayError, ProtocolError
from browser.javascript import Call
from contracts.bundle_cases import KEPT, NODE, TAMPERINGS, Posted, job, post_two_epochs

VECTORS = Path(__file__).parents[2] / "protocol" / "spec" / "vectors" / "credit_tree.json"
TREES: dict[str, Any] = json.loads(VECTORS.read_text())


@pytest.fixture(scope="module")
def posted(tmp_path_factory: pytest.TempPathFactory) -> Posted:
    return post_two_epochs(tmp_path_factory.mktemp("verify") / "chain.sqlite")


@pytest.fixture(scope="module")
def chain(posted: Posted) -> Any:
    found = FileChain(posted.file)
    yield found
    found.close()


def roots_for(bundle: CreditBundle, ledger: bytes, chain: FileChain) -> dict[str, Any]:
    """What somebody who can read the chain would tell the page."""

    def epoch(number: int) -> dict[str, Any] | None:
        try:
            found = posted_epoch(chain, ledger, number)
        except AssayError:
            return None
        return {"root": found.root, "total": found.total_cum, "leaves": found.leaves}

    now = epoch(bundle.epoch)
    policy = posting(chain, ledger, bundle.epoch).header.policy if now else None
    before = epoch(bundle.epoch - 1)
    is_ledger = load("CreditLedger").is_code(chain.code(bundle.ledger))
    asked = {"chainId": chain.chain_id(), "isLedger": is_ledger}
    return {"source": "a test", "epoch": now, "before": before, "policy": policy, **asked}


def kept_file(kept: tuple[Kept, ...]) -> str:
    rows = [{name: value and value.hex() for name, value in asdict(one).items()} for one in kept]
    return "\n".join(json.dumps(row) for row in rows)


def compare(
    call: Call, posted: Posted, chain: FileChain, bundle: CreditBundle, kept: tuple[Kept, ...]
) -> bool:
    """Both verdicts, held against each other; whether the bundle holds."""
    ours = verify_bundle(bundle, chain, kept, account=NODE.public_key, ledger=posted.ledger)
    options = {
        "account": NODE.public_key,
        "ledger": posted.ledger,
        "kept": kept_file(kept),
        "posted": roots_for(bundle, posted.ledger, chain),
    }
    theirs = call("verifyBundle", bundle.encode(), options)["value"]
    expected = [asdict(step) for step in ours.steps]
    found = [step for step in theirs["steps"] if step["name"] != "root"]
    if expected[-1]["name"] == "pricing" and options["posted"]["policy"] is None:
        expected.pop()  # then nothing is said of it
    assert in_words(found) == in_words(expected)
    assert theirs["ok"] is all(step["ok"] for step in expected)
    return bool(theirs["ok"])


def in_words(steps: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """What is compared: of bytes that are no message each language says in its own words why."""
    for step in steps:
        if step["detail"].startswith("malformed"):
            step["detail"] = "malformed"
    return steps


def test_an_honest_bundle_holds(javascript: Call, posted: Posted, chain: FileChain) -> None:
    assert compare(javascript, posted, chain, posted.bundle, posted.kept)


@pytest.mark.parametrize("name", TAMPERINGS)
def test_tampering_gets_python_s_verdict(
    javascript: Call, posted: Posted, chain: FileChain, name: str
) -> None:
    tamper, _ = TAMPERINGS[name]
    assert not compare(javascript, posted, chain, tamper(posted.bundle), posted.kept)


@pytest.mark.parametrize(
    "changed",
    [
        replace(KEPT[0], receipt=bytes(64) + KEPT[0].receipt[64:]),
        replace(KEPT[0], receipt=job(0, ticket=b"t" * 16).receipt),
        replace(KEPT[0], receipt=job(0, n_out=301).receipt),
        replace(KEPT[0], ticket_blob=job(9).ticket_blob),
        replace(KEPT[0], ticket_blob=bytes(80)),
        replace(KEPT[0], ack=None),
        replace(KEPT[0], ack=None, ticket_blob=None),
        job(77),
    ],
)
def test_what_was_kept_is_held_against_the_bundle(
    node: Call, posted: Posted, chain: FileChain, changed: Kept
) -> None:
    compare(node, posted, chain, posted.bundle, (changed, *KEPT[1:]))


def test_a_first_epoch_and_a_new_account_need_no_previous_leaf(
    node: Call, posted: Posted, chain: FileChain
) -> None:
    first = replace(posted.bundle.statements[0], previous=None)
    bundle = replace(posted.bundle, statements=(first, *posted.bundle.statements[1:]))
    compare(node, posted, chain, bundle, posted.kept)
    compare(node, posted, chain, replace(bundle, epoch=1), posted.kept)


def test_without_roots_nothing_is_said_to_hold(javascript: Call, posted: Posted) -> None:
    told = javascript("verifyBundle", posted.bundle.encode(), {})["value"]
    last = [step for step in told["steps"] if step["name"] == "leaf to root"]
    assert [step["ok"] for step in last] == [None, None]
    assert "compare both" in last[0]["detail"]


def test_the_ledger_of_another_operator_is_seen(javascript: Call, posted: Posted) -> None:
    options = {"ledger": b"\5" * 20, "account": b"\6" * 32}
    told = javascript("verifyBundle", posted.bundle.encode(), options)["value"]
    failed = {step["name"] for step in told["steps"] if step["ok"] is False}
    assert failed == {"ledger address", "account"}


@given(data=st.data())
def test_any_changed_byte_is_refused_or_decodes_as_in_python(
    node: Call, posted: Posted, data: st.DataObject
) -> None:
    raw = bytearray(posted.bundle.encode())
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(raw) - 1))
        raw[at : at + 1] = data.draw(st.binary(max_size=2))
    theirs = node("decodeBundle", bytes(raw))
    try:
        CreditBundle.decode(bytes(raw))
    except ProtocolError as error:
        code: str | None = error.code
    else:
        code = None
    assert theirs.get("error") == code


def test_tree_vectors(javascript: Call) -> None:
    for tree in TREES["trees"]:
        leaves = [leaf_of(one) for one in tree["leaves"]]
        pairs = [(leaf.hash, leaf.cumulative) for leaf in leaves]
        root = {"hash": bytes.fromhex(tree["root"]), "amount": int(tree["total"])}
        assert javascript("tree", pairs)["value"] == root
        for index, (leaf, proof) in enumerate(zip(leaves, tree["proofs"], strict=True)):
            siblings = [{"hash": bytes.fromhex(h), "amount": int(a)} for h, a in proof]
            assert javascript("leafHash", leaf_told(leaf))["value"] == leaf.hash
            found = javascript("fold", leaf.hash, leaf.cumulative, index, siblings)
            assert found["value"] == root


def test_vectors_of_lines_and_of_what_is_refused(javascript: Call) -> None:
    for vector in TREES["lines"]:
        lines = [line_of(one) for one in vector["lines"]]
        for line, one in zip(lines, vector["lines"], strict=True):
            assert javascript("lineHash", asdict(line))["value"].hex() == one["hash"]
        root = javascript("tree", [(line.hash, line.amount) for line in lines])["value"]
        assert (root["hash"].hex(), str(root["amount"])) == (vector["root"], vector["sum"])
    for vector in TREES["refused"]:
        leaf, tree = leaf_of(vector["leaf"]), tree_named(vector["tree"])
        proof = [{"hash": bytes.fromhex(h), "amount": int(a)} for h, a in vector["proof"]]
        found = javascript("fold", leaf.hash, leaf.cumulative, vector["index"], proof)
        if vector["why"] == "proof_invalid":
            assert found["error"] == "proof_invalid", vector["name"]
        else:
            root = {"hash": bytes.fromhex(tree["root"]), "amount": int(tree["total"])}
            assert found["value"] != root, vector["name"]


def tree_named(name: str) -> dict[str, Any]:
    return next(tree for tree in TREES["trees"] if tree["name"] == name)


def line_of(one: dict[str, Any]) -> CreditLine:
    digest = bytes.fromhex(one["digest"])
    return CreditLine(one["kind"], bytes.fromhex(one["id"]), digest, int(one["amount"]))


AMOUNTS = st.integers(0, (1 << 128) - 1)


@given(
    hashed=st.binary(min_size=32, max_size=32),
    amount=AMOUNTS,
    index=st.integers(0, 40),
    items=st.lists(st.binary(min_size=48, max_size=48), max_size=34),
)
def test_any_proof_folds_as_in_python(
    node: Call, hashed: bytes, amount: int, index: int, items: list[bytes]
) -> None:
    """Small sums now and then, so that not every second proof overflows."""
    items = [one[:32] + bytes(8) + one[40:] if one[0] & 1 else one for one in items]
    raw = b"".join(items)
    told = [
        {"hash": raw[i : i + 32], "amount": int.from_bytes(raw[i + 32 : i + 48])}
        for i in range(0, len(raw), 48)
    ]
    theirs = node("fold", hashed, amount, index, told)
    try:
        root, total = fold(hashed, amount, index, decode_proof(raw))
    except ProtocolError:
        expected: dict[str, Any] = {"error": "proof_invalid", "reason": theirs.get("reason")}
    else:
        expected = {"value": {"hash": root, "amount": total}}
    assert theirs == expected


def test_no_flipped_byte_of_a_proof_leads_to_the_root(javascript: Call) -> None:
    tree = next(one for one in TREES["trees"] if len(one["leaves"]) == 5)
    leaf, proof = leaf_of(tree["leaves"][2]), tree["proofs"][2]
    raw = b"".join(bytes.fromhex(h) + int(a).to_bytes(16) for h, a in proof)
    changed = [raw[:at] + bytes([raw[at] ^ 4]) + raw[at + 1 :] for at in range(len(raw))]
    found = javascript("foldEach", leaf.hash, leaf.cumulative, 2, [raw, *changed])["value"]
    root = {"value": {"hash": bytes.fromhex(tree["root"]), "amount": int(tree["total"])}}
    assert found[0] == root
    assert all(one != root for one in found[1:])
    assert len(found) == len(raw) + 1


def leaf_of(one: dict[str, Any]) -> CreditLeaf:
    account, root = bytes.fromhex(one["account"]), bytes.fromhex(one["receipts_root"])
    return CreditLeaf(account, one["role"], int(one["cumulative"]), int(one["epoch_credit"]), root)


def leaf_told(leaf: CreditLeaf) -> dict[str, Any]:
    return {
        "account": leaf.account,
        "role": leaf.role,
        "cumulative": leaf.cumulative,
        "epochCredit": leaf.epoch_credit,
        "receiptsRoot": leaf.receipts_root,
    }


@given(
    kind=st.sampled_from(["job", "audit", "sweep"]),
    line_id=st.binary(min_size=16, max_size=16),
    digest=st.binary(min_size=32, max_size=32),
    amount=AMOUNTS,
)
def test_lines_hash_as_in_python(
    node: Call, kind: str, line_id: bytes, digest: bytes, amount: int
) -> None:
    line = CreditLine(kind, line_id, digest, amount)
    assert node("lineHash", asdict(line))["value"] == line.hash
