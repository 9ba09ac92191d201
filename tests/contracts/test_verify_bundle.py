"""Every tampering with a bundle is caught, by the step whose business it is."""

import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from assay_contracts.credit import own
from assay_contracts.credit.bundle import CreditBundle, PreviousLeaf, Statement
from assay_contracts.credit.ledger_abi import Header
from assay_contracts.credit.verify import FileChain, HttpChain, Kept, receipt_digest, verify_bundle
from assay_contracts.deploy.ledger import CreditLedgerClient
from assay_contracts.local.chain import LocalChain
from assay_contracts.local.genesis import Genesis, address_of, poster_key
from assay_protocol import messages as m
from assay_protocol.codec import encode
from assay_protocol.credit_tree import (
    AUDITOR,
    COMPUTE,
    CreditLeaf,
    CreditLine,
    ProofItem,
    account_tree,
    receipts_root,
)
from assay_protocol.errors import AssayError, ProtocolError
from assay_protocol.signing import Identity, open_signed, seal
from assay_protocol.splits import Splits
from assay_protocol.tickets import job_price

KEY = poster_key(bytes(range(32)))
NODE, CLIENT, COORDINATOR = (Identity(bytes([n]) * 32) for n in (1, 2, 3))
ACCOUNTS = 5
ME, MY_AUDITS = 3, 1
MODEL = b"\x09" * 32
SHARE = m.Share(account=CLIENT.public_key, role=1, bps=1_000)
RULES = Splits(m.Pricing(fee_bps=500, splits=(m.ModelSplit(model=MODEL, shares=(SHARE,)),)))
JOBS = 6


@dataclass(frozen=True)
class Posted:
    """Two epochs on a chain, the bundle of NODE for the second, and what it kept."""

    bundle: CreditBundle
    kept: tuple[Kept, ...]
    file: Path
    ledger: bytes


def _id(epoch: int, number: int) -> bytes:
    return bytes([epoch, number]) * 8


def job(number: int, *, n_out: int = 300, ticket: bytes = b"") -> Kept:
    """A job of NODE: ticket and receipt; the client acknowledged 100 tokens."""
    issued = m.Ticket(
        ticket=ticket or _id(2, number),
        client=CLIENT.public_key,
        node=NODE.public_key,
        model=MODEL,
        prompt_hash=bytes(32),
        n_in=40 + number,
        sampler=m.Sampler(temperature=0.0, top_k=0, top_p=1.0, min_p=0.0),
        max_tokens=512,
        start=0,
        nonce_commitment=bytes(32),
        seed_ticket=_id(2, number),
        price_in=1_100,
        price_out=4_700,
        issued_at=1,
        expires_at=2,
        epoch=1,
    )
    receipt = m.Receipt(
        ticket=issued.ticket,
        class_id="c",
        output_hash=bytes(32),
        root=bytes(32),
        n_in=issued.n_in,
        n_out=n_out,
        finish="stop",
        started_at=1,
        first_at=2,
        ended_at=3,
    )
    ack = m.Ack(ticket=issued.ticket, count=100, output_hash=bytes(32))
    return Kept(issued.ticket, seal(NODE, receipt), seal(CLIENT, ack), seal(COORDINATOR, issued))


def line_of(kept: Kept, n_out: int) -> CreditLine:
    """As the coordinator books it, by the messages' own classes."""
    assert kept.ticket_blob is not None
    ticket = own_ticket(kept)
    pay = RULES.divide(MODEL, job_price(ticket, n_out)).node
    return CreditLine("job", kept.ticket, receipt_digest(kept.receipt), pay)


def own_ticket(kept: Kept) -> m.Ticket:
    assert kept.ticket_blob is not None
    return open_signed(m.Ticket, kept.ticket_blob, COORDINATOR.public_key)


KEPT = tuple(job(number) for number in range(JOBS))
# the client told the coordinator of all 300 tokens, or the node's own word came with its ack only
MY_LINES = tuple(line_of(one, 300 if number % 2 else 228) for number, one in enumerate(KEPT))


def lines_of(epoch: int, account: int) -> tuple[CreditLine, ...]:
    if (epoch, account) == (2, ME):
        return MY_LINES
    blobs = [f"receipt {epoch} {account} {n}".encode() for n in range(account + 1)]
    kind = "audit" if account == MY_AUDITS else "job"
    return tuple(
        CreditLine(kind, _id(epoch, n), receipt_digest(blob), 100 + n)
        for n, blob in enumerate(blobs)
    )


def leaf_of(epoch: int, account: int, before: int) -> CreditLeaf:
    root, total = receipts_root(lines_of(epoch, account))
    key = NODE.public_key if account in (ME, MY_AUDITS) else bytes([account]) * 32
    role = AUDITOR if account == MY_AUDITS else COMPUTE
    return CreditLeaf(key, role, before + total, total, root)


@pytest.fixture(scope="module")
def posted(tmp_path_factory: pytest.TempPathFactory) -> Any:
    path = tmp_path_factory.mktemp("verify") / "chain.sqlite"
    chain = LocalChain.open(path, genesis=Genesis(address_of(KEY)))
    ledger = CreditLedgerClient(chain, KEY)
    ledger.deploy()
    first = [leaf_of(1, account, 0) for account in range(ACCOUNTS)]
    second = [leaf_of(2, account, leaf.cumulative) for account, leaf in enumerate(first)]
    second.append(leaf_of(2, ACCOUNTS, 0))
    trees = [account_tree(leaves) for leaves in (first, second)]
    for epoch, tree in enumerate(trees, start=1):
        ledger.post(epoch, Header(tree.root, tree.total, 20, tree.size, bytes(32), RULES.digest))
    statements = tuple(
        Statement(
            leaf=second[mine],
            index=mine,
            proof=trees[1].proof(mine),
            lines=lines_of(2, mine),
            previous=PreviousLeaf(first[mine], mine, trees[0].proof(mine)),
        )
        for mine in (ME, MY_AUDITS)
    )
    bundle = CreditBundle(
        chain_id=chain.chain_id,
        ledger=ledger.address,
        epoch=2,
        pricing=encode(RULES.pricing),
        statements=statements,
        receipts=tuple(one.receipt for one in KEPT),
    )
    chain.close()
    return Posted(bundle, KEPT, path, ledger.address)


@pytest.fixture
def reader(posted: Posted) -> Any:
    chain = FileChain(posted.file)
    yield chain
    chain.close()


def verify(posted: Posted, bundle: CreditBundle, reader: Any, **given: Any) -> Any:
    known = {"account": NODE.public_key, "ledger": posted.ledger} | given
    return verify_bundle(bundle, reader, posted.kept, **known)


def test_an_honest_bundle_passes_every_step(posted: Posted, reader: FileChain) -> None:
    decoded = CreditBundle.decode(posted.bundle.encode())
    assert decoded == posted.bundle
    report = verify(posted, decoded, reader, whole=True)
    assert report.ok, [step for step in report.steps if not step.ok]
    assert [step.name for step in report.steps] == [
        "account",
        "receipt digests",
        *["no job twice", "lines to leaf", "cumulative"] * 2,
        "receipt signatures",
        "own receipts",
        "own amounts",
        "ledger address",
        "chain id",
        "contract code",
        *["leaf to root", "previous leaf to root"] * 2,
        "pricing",
    ]
    assert report.state == "open", "nobody's word ends the window before its time"
    assert [one.claimable for one in report.standing] == [0, 0]
    assert [one.role for one in report.standing] == [COMPUTE, AUDITOR]


def test_a_first_epoch_needs_no_previous_leaf(posted: Posted, reader: FileChain) -> None:
    firsts = []
    for number, statement in zip((ME, MY_AUDITS), posted.bundle.statements, strict=True):
        before = statement.previous
        assert before is not None
        lines = lines_of(1, number)
        firsts.append(Statement(before.leaf, before.index, before.proof, lines))
    first = replace(posted.bundle, epoch=1, statements=tuple(firsts), receipts=())
    assert verify_bundle(first, reader).ok


def test_an_account_new_in_the_tree_needs_none_either(posted: Posted, reader: FileChain) -> None:
    leaf = leaf_of(2, ACCOUNTS, 0)
    second = [leaf_of(2, n, leaf_of(1, n, 0).cumulative) for n in range(ACCOUNTS)]
    tree = account_tree([*second, leaf])
    mine = Statement(leaf, ACCOUNTS, tree.proof(ACCOUNTS), lines_of(2, ACCOUNTS))
    bundle = replace(posted.bundle, statements=(mine,), receipts=())
    assert verify_bundle(bundle, reader).ok


Tamper = Callable[[CreditBundle], CreditBundle]


def mine(**changes: Any) -> Tamper:
    """The bundle with another first statement."""

    def tamper(bundle: CreditBundle) -> CreditBundle:
        first, *rest = bundle.statements
        made = {name: new(first) if callable(new) else new for name, new in changes.items()}
        return replace(bundle, statements=(replace(first, **made), *rest))

    return tamper


def leaf(**changes: Any) -> Tamper:
    return mine(leaf=lambda one: replace(one.leaf, **changes))


def _raised(statement: Statement) -> tuple[CreditLine, ...]:
    first, *rest = statement.lines
    return replace(first, amount=first.amount + 1), *rest


def _raise_amount_and_leaf(bundle: CreditBundle) -> CreditBundle:
    lines = _raised(bundle.statements[0])
    root, total = receipts_root(lines)
    before = bundle.statements[0].leaf
    more = replace(before, receipts_root=root, epoch_credit=total, cumulative=before.cumulative + 1)
    return mine(lines=lines, leaf=more)(bundle)


def _proof(amount: Callable[[int], int]) -> Tamper:
    def forged(statement: Statement) -> tuple[ProofItem, ...]:
        (digest, old), *rest = statement.proof
        return ProofItem(digest, amount(old)), *rest

    return mine(proof=forged)


def _previous(**changes: Any) -> Tamper:
    def other(statement: Statement) -> PreviousLeaf:
        assert statement.previous is not None
        old = statement.previous.leaf
        made = {name: new(old) if callable(new) else new for name, new in changes.items()}
        return replace(statement.previous, leaf=replace(old, **made))

    return mine(previous=other)


def _without_a_job(bundle: CreditBundle) -> CreditBundle:
    dropped = mine(lines=lambda one: one.lines[1:])(bundle)
    return replace(dropped, receipts=bundle.receipts[1:])


def _other_rules(bundle: CreditBundle) -> CreditBundle:
    return replace(bundle, pricing=encode(m.Pricing(fee_bps=1_500, splits=())))


TAMPERINGS: dict[str, tuple[Tamper, set[str]]] = {
    "dropped receipt": (_without_a_job, {"lines to leaf"}),
    "dropped line": (mine(lines=lambda s: s.lines[1:]), {"receipt digests", "lines to leaf"}),
    "swapped lines": (mine(lines=lambda s: s.lines[::-1]), {"lines to leaf"}),
    "changed amount": (mine(lines=_raised), {"lines to leaf", "own amounts"}),
    "changed amount and leaf": (_raise_amount_and_leaf, {"leaf to root", "own amounts"}),
    "raised cumulative": (leaf(cumulative=10**9), {"cumulative", "leaf to root"}),
    "wrong index": (mine(index=2), {"cumulative", "leaf to root"}),
    "index of padding": (mine(index=7), {"cumulative", "leaf to root"}),
    "other account": (
        leaf(account=b"\x09" * 32),
        {"account", "receipt signatures", "cumulative", "leaf to root"},
    ),
    "other role": (
        leaf(role=2),
        {"cumulative", "leaf to root"},
    ),
    "one role twice": (leaf(role=AUDITOR), {"account", "cumulative", "leaf to root"}),
    "forged proof": (_proof(lambda amount: amount + 1), {"leaf to root"}),
    "proof that overflows": (_proof(lambda _: (1 << 128) - 1), {"leaf to root"}),
    "short proof": (mine(proof=lambda s: s.proof[:-1]), {"leaf to root"}),
    "double line": (
        mine(lines=lambda s: (*s.lines, s.lines[0])),
        {"no job twice", "lines to leaf"},
    ),
    "foreign receipt": (lambda b: replace(b, receipts=(b"junk",)), {"receipt digests"}),
    "other chain": (lambda b: replace(b, chain_id=1), {"chain id"}),
    "other ledger address": (
        lambda b: replace(b, ledger=b"\x05" * 20),
        {"ledger address", "contract code", "leaf to root"},
    ),
    "unknown epoch": (
        lambda b: replace(b, epoch=7),
        {"leaf to root", "previous leaf to root", "pricing"},
    ),
    "no previous leaf": (mine(previous=None), {"cumulative", "previous leaf to root"}),
    "changed previous leaf": (
        _previous(cumulative=lambda old: old.cumulative - 1),
        {"cumulative", "previous leaf to root"},
    ),
    "strange previous leaf": (
        _previous(account=b"\x63" * 32),
        {"cumulative", "previous leaf to root"},
    ),
    "other rules": (_other_rules, {"own amounts", "pricing"}),
    "no rules": (lambda b: replace(b, pricing=b"junk"), {"own amounts", "pricing"}),
}


@pytest.mark.parametrize("name", TAMPERINGS)
def test_tampering_is_caught_by_name(posted: Posted, reader: FileChain, name: str) -> None:
    tamper, expected = TAMPERINGS[name]
    report = verify(posted, tamper(posted.bundle), reader)
    assert not report.ok
    assert set(report.failed) == expected


KEEPINGS: dict[str, tuple[Kept, set[str]]] = {
    "receipt of another signer": (
        replace(KEPT[0], receipt=bytes(64) + KEPT[0].receipt[64:]),
        {"receipt signatures", "own receipts"},
    ),
    "receipt of another ticket": (
        replace(KEPT[0], receipt=job(0, ticket=b"t" * 16).receipt),
        {"receipt signatures", "own receipts"},
    ),
    "another receipt of the ticket": (
        replace(KEPT[0], receipt=job(0, n_out=301).receipt),
        {"own receipts"},
    ),
    "another ticket's price": (
        replace(KEPT[0], ticket_blob=job(9).ticket_blob),
        {"own amounts"},
    ),
    "a ticket that is none": (replace(KEPT[0], ticket_blob=bytes(80)), {"own amounts"}),
}


@pytest.mark.parametrize("name", KEEPINGS)
def test_what_was_kept_is_held_against_the_bundle(
    posted: Posted, reader: FileChain, name: str
) -> None:
    changed, expected = KEEPINGS[name]
    report = verify_bundle(posted.bundle, reader, (changed, *KEPT[1:]))
    assert set(report.failed) == expected


def test_a_receipt_that_was_left_out_shows(posted: Posted, reader: FileChain) -> None:
    more = (*KEPT, job(77))
    assert verify_bundle(posted.bundle, reader, more).ok, "it may be of another epoch"
    report = verify_bundle(posted.bundle, reader, more, whole=True)
    assert report.failed == ("own receipts",)


def test_messages_are_read_by_the_numbers_their_classes_have() -> None:
    kept, ticket = KEPT[1], own_ticket(KEPT[1])
    rules = own._Rules.read(encode(RULES.pricing))
    assert rules.fee_bps == RULES.pricing.fee_bps
    wanted = {RULES.divide(MODEL, job_price(ticket, n)).node for n in (228, 300)}
    assert set(rules.pays(kept)) == wanted
    assert set(rules.pays(replace(kept, ack=None))) == {
        RULES.divide(MODEL, job_price(ticket, n)).node for n in (128, 300)
    }


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
    assert raw[1] == 2
    raw[1] = 3
    with pytest.raises(ProtocolError, match="version 3"):
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


@contextmanager
def answering(body: bytes, *, close: bool = False) -> Iterator[HttpChain]:
    """A server that says this to everything, or hangs up."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            self.close_connection = close
            if not close:
                self.send_response(200)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        try:
            with HttpChain(f"http://127.0.0.1:{server.server_port}/rpc") as chain:
                yield chain
        finally:
            server.shutdown()


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
    with answering(body) as chain:
        for _ in range(2):
            with pytest.raises(AssayError) as caught:
                chain.code(bytes(20))
            assert caught.value.code == code


def test_a_node_that_does_not_answer_is_an_error_by_code(monkeypatch: pytest.MonkeyPatch) -> None:
    with answering(b"", close=True) as chain, pytest.raises(AssayError) as caught:
        chain.chain_id()
    assert caught.value.code == "peer_gone"
    with pytest.raises(AssayError) as caught:  # its server has stopped listening
        chain.chain_id()
    assert caught.value.code == "peer_gone"


@pytest.mark.parametrize("url", ["ftp://node", "http://", "node:80", "http://node:port"])
def test_what_is_no_url_is_refused(url: str) -> None:
    with pytest.raises(AssayError, match="not an HTTP URL"):
        HttpChain(url)


@pytest.mark.slow
def test_verification_imports_nothing_of_ethereum() -> None:
    program = (
        "import sys; import assay_contracts.credit.verify;"
        "print([m for m in sys.modules"
        " if m.split('.')[0] in ('eth', 'web3', 'rlp', 'eth_utils', 'trio', 'sqlalchemy', 'httpx')"
        " or m in ('assay_protocol.messages', 'asyncio')])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout.strip() == "[]", done.stderr
