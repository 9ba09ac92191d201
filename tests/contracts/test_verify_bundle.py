"""Every tampering with a bundle is caught, by the step whose business it is."""

import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from assay_contracts.bundle import CreditBundle, PreviousLeaf
from assay_contracts.chain import LocalChain
from assay_contracts.genesis import poster_key
from assay_contracts.ledger import CreditLedgerClient
from assay_contracts.ledger_abi import Header
from assay_contracts.verify import FileChain, HttpChain, receipt_digest, verify_bundle
from assay_protocol.credit_tree import (
    CreditLeaf,
    CreditLine,
    ProofItem,
    account_tree,
    receipts_root,
)
from assay_protocol.errors import AssayError, ProtocolError

KEY = poster_key(bytes(range(32)))
ACCOUNTS = 5
ME = 3


@dataclass(frozen=True)
class Posted:
    """Two epochs on a chain, and the bundle of account ME for the second."""

    bundle: CreditBundle
    file: Path
    ledger: bytes


def lines_of(epoch: int, account: int) -> tuple[CreditLine, ...]:
    blobs = [f"receipt {epoch} {account} {n}".encode() for n in range(account + 1)]
    return tuple(
        CreditLine("audit" if n == 1 else "job", _id(epoch, n), receipt_digest(blob), 100 + n)
        for n, blob in enumerate(blobs)
    )


def leaf_of(epoch: int, account: int, before: int) -> CreditLeaf:
    root, total = receipts_root(lines_of(epoch, account))
    return CreditLeaf(bytes([account]) * 32, 0, before + total, total, root)


@pytest.fixture(scope="module")
def posted(tmp_path_factory: pytest.TempPathFactory) -> Any:
    from assay_contracts.genesis import Genesis, address_of

    path = tmp_path_factory.mktemp("verify") / "chain.sqlite"
    chain = LocalChain.open(path, genesis=Genesis(address_of(KEY)))
    ledger = CreditLedgerClient(chain, KEY)
    ledger.deploy()
    first = [leaf_of(1, account, 0) for account in range(ACCOUNTS)]
    second = [leaf_of(2, account, leaf.cumulative) for account, leaf in enumerate(first)]
    trees = [account_tree(leaves) for leaves in (first, second)]
    for epoch, tree in enumerate(trees, start=1):
        ledger.post(epoch, Header(tree.root, tree.total, 20, ACCOUNTS, bytes(32), bytes(32)))
    bundle = CreditBundle(
        chain_id=chain.chain_id,
        ledger=ledger.address,
        epoch=2,
        leaf=second[ME],
        index=ME,
        proof=trees[1].proof(ME),
        lines=lines_of(2, ME),
        previous=PreviousLeaf(first[ME], ME, trees[0].proof(ME)),
        receipts=(b"receipt 2 3 0", b"receipt 2 3 2"),
    )
    chain.close()
    return Posted(bundle, path, ledger.address)


@pytest.fixture
def reader(posted: Posted) -> Any:
    chain = FileChain(posted.file)
    yield chain
    chain.close()


def test_an_honest_bundle_passes_every_step(posted: Posted, reader: FileChain) -> None:
    decoded = CreditBundle.decode(posted.bundle.encode())
    assert decoded == posted.bundle
    report = verify_bundle(decoded, reader, decoded.lines[:2], ledger=posted.ledger)
    assert report.ok
    assert [step.name for step in report.steps] == [
        "receipt digests",
        "no job twice",
        "lines to leaf",
        "cumulative",
        "own lines",
        "ledger address",
        "chain id",
        "contract code",
        "leaf to root",
        "previous leaf to root",
    ]


def test_a_first_epoch_needs_no_previous_leaf(posted: Posted, reader: FileChain) -> None:
    before = posted.bundle.previous
    assert before is not None
    first = replace(
        posted.bundle,
        epoch=1,
        leaf=before.leaf,
        index=before.index,
        proof=before.proof,
        lines=lines_of(1, ME),
        previous=None,
        receipts=(),
    )
    assert verify_bundle(first, reader).ok


Tamper = Callable[[CreditBundle], CreditBundle]


def _id(epoch: int, number: int) -> bytes:
    return bytes([epoch, number]) * 8


def _leaf(**changes: Any) -> Tamper:
    return lambda bundle: replace(bundle, leaf=replace(bundle.leaf, **changes))


def _raise_amount(bundle: CreditBundle) -> CreditBundle:
    first, *rest = bundle.lines
    return replace(bundle, lines=(replace(first, amount=first.amount + 1), *rest))


def _raise_amount_and_leaf(bundle: CreditBundle) -> CreditBundle:
    raised = _raise_amount(bundle)
    root, total = receipts_root(raised.lines)
    more = bundle.leaf.cumulative + 1
    leaf = replace(bundle.leaf, receipts_root=root, epoch_credit=total, cumulative=more)
    return replace(raised, leaf=leaf)


def _forge_proof(bundle: CreditBundle) -> CreditBundle:
    (digest, amount), *rest = bundle.proof
    return replace(bundle, proof=(ProofItem(digest, amount + 1), *rest))


def _overflow_proof(bundle: CreditBundle) -> CreditBundle:
    (digest, _), *rest = bundle.proof
    return replace(bundle, proof=(ProofItem(digest, (1 << 128) - 1), *rest))


def _other_previous(bundle: CreditBundle) -> CreditBundle:
    before = bundle.previous
    assert before is not None
    lower = replace(before.leaf, cumulative=before.leaf.cumulative - 1)
    return replace(bundle, previous=replace(before, leaf=lower))


def _strange_previous(bundle: CreditBundle) -> CreditBundle:
    before = bundle.previous
    assert before is not None
    return replace(
        bundle, previous=replace(before, leaf=replace(before.leaf, account=b"\x63" * 32))
    )


TAMPERINGS: dict[str, tuple[Tamper, set[str]]] = {
    "dropped line": (lambda b: replace(b, lines=b.lines[1:]), {"receipt digests", "lines to leaf"}),
    "no lines": (
        lambda b: replace(b, lines=(), receipts=()),
        {"lines to leaf"},
    ),
    "swapped lines": (lambda b: replace(b, lines=b.lines[::-1]), {"lines to leaf"}),
    "changed amount": (_raise_amount, {"lines to leaf"}),
    "changed amount and leaf": (_raise_amount_and_leaf, {"leaf to root"}),
    "raised cumulative": (_leaf(cumulative=10**9), {"cumulative", "leaf to root"}),
    "wrong index": (lambda b: replace(b, index=2), {"leaf to root"}),
    "index of padding": (lambda b: replace(b, index=6), {"leaf to root"}),
    "wrong account": (_leaf(account=b"\x09" * 32), {"cumulative", "leaf to root"}),
    "wrong role": (_leaf(role=4), {"cumulative", "leaf to root"}),
    "forged proof": (_forge_proof, {"leaf to root"}),
    "proof that overflows": (_overflow_proof, {"leaf to root"}),
    "short proof": (lambda b: replace(b, proof=b.proof[:-1]), {"leaf to root"}),
    "duplicate job": (
        lambda b: replace(b, lines=(*b.lines, b.lines[0])),
        {"no job twice", "lines to leaf"},
    ),
    "foreign receipt": (lambda b: replace(b, receipts=(b"junk",)), {"receipt digests"}),
    "other chain": (lambda b: replace(b, chain_id=1), {"chain id"}),
    "wrong ledger": (
        lambda b: replace(b, ledger=b"\x05" * 20),
        {"ledger address", "contract code", "leaf to root"},
    ),
    "unknown epoch": (lambda b: replace(b, epoch=7), {"leaf to root", "previous leaf to root"}),
    "no previous leaf": (lambda b: replace(b, previous=None), {"cumulative"}),
    "changed previous leaf": (_other_previous, {"cumulative", "previous leaf to root"}),
    "strange previous leaf": (_strange_previous, {"cumulative", "previous leaf to root"}),
}


@pytest.mark.parametrize("name", TAMPERINGS)
def test_tampering_is_caught_by_name(posted: Posted, reader: FileChain, name: str) -> None:
    tamper, expected = TAMPERINGS[name]
    report = verify_bundle(tamper(posted.bundle), reader, ledger=posted.ledger)
    assert not report.ok
    assert set(report.failed) == expected


def test_what_was_left_out_shows_against_ones_own_lines(posted: Posted, reader: FileChain) -> None:
    unbooked = CreditLine("job", b"\x77" * 16, receipt_digest(b"mine"), 5)
    report = verify_bundle(posted.bundle, reader, (*posted.bundle.lines, unbooked))
    assert report.failed == ("own lines",)


def test_other_code_at_the_ledger_is_caught(posted: Posted, reader: FileChain) -> None:
    class Changed(FileChain):
        def code(self, address: bytes) -> bytes:
            code = bytearray(super().code(address))
            code[0] ^= 1
            return bytes(code)

    chain = Changed(posted.file)
    assert set(verify_bundle(posted.bundle, chain).failed) == {"contract code", "leaf to root"}
    chain.close()


def test_a_truncated_bundle_is_malformed(posted: Posted) -> None:
    raw = posted.bundle.encode()
    for size in range(0, len(raw), 7):
        with pytest.raises(ProtocolError) as caught:
            CreditBundle.decode(raw[:size])
        assert caught.value.code == "malformed"
    with pytest.raises(ProtocolError, match="malformed"):
        CreditBundle.decode(raw + b"\x00")


def test_an_oversized_bundle_is_refused(posted: Posted) -> None:
    with pytest.raises(ProtocolError, match="oversized"):
        CreditBundle.decode(bytes((64 << 20) + 1))
    fat = replace(posted.bundle, receipts=(bytes(4097),))
    with pytest.raises(ProtocolError, match="oversized"):
        CreditBundle.decode(fat.encode())


def test_an_unknown_version_is_refused(posted: Posted) -> None:
    raw = bytearray(posted.bundle.encode())
    assert raw[1] == 1
    raw[1] = 2
    with pytest.raises(ProtocolError, match="version 2"):
        CreditBundle.decode(bytes(raw))


@given(data=st.data())
def test_any_changed_byte_decodes_or_is_a_protocol_error(
    posted: Posted, data: st.DataObject
) -> None:
    raw = bytearray(posted.bundle.encode())
    raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    try:
        decoded = CreditBundle.decode(bytes(raw))
    except ProtocolError:
        return
    assert CreditBundle.decode(decoded.encode()) == decoded


def answering(response: Callable[[httpx.Request], httpx.Response]) -> HttpChain:
    client = httpx.Client(transport=httpx.MockTransport(response))
    return HttpChain("http://chain", client=client)


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"not json", "chain_mismatch"),
        (b"[]", "chain_mismatch"),
        (b'{"result": 5}', "chain_mismatch"),
        (b'{"result": "0xzz"}', "chain_mismatch"),
        (b'{"error": {"code": 3, "message": "execution reverted"}}', "contract_refused"),
        (b" " * ((1 << 20) + 1), "oversized"),
    ],
)
def test_a_strange_node_is_an_error_by_code(body: bytes, code: str) -> None:
    with answering(lambda _: httpx.Response(200, content=body)) as chain:
        with pytest.raises(AssayError) as caught:
            chain.code(bytes(20))
    assert caught.value.code == code


@pytest.mark.parametrize(
    ("failure", "code"),
    [(httpx.ReadTimeout("slow"), "timeout"), (httpx.ConnectError("no"), "peer_gone")],
)
def test_a_node_that_does_not_answer_is_an_error_by_code(failure: Exception, code: str) -> None:
    def fail(_: httpx.Request) -> httpx.Response:
        raise failure

    with answering(fail) as chain:
        with pytest.raises(AssayError) as caught:
            chain.chain_id()
    assert caught.value.code == code


@pytest.mark.slow
def test_verification_imports_nothing_of_ethereum() -> None:
    program = (
        "import sys; import assay_contracts.verify;"
        "print([m for m in sys.modules"
        " if m.split('.')[0] in ('eth', 'web3', 'rlp', 'eth_utils', 'trio', 'sqlalchemy')])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout.strip() == "[]", done.stderr
