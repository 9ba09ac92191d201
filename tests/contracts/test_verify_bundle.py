"""Every tampering with a bundle is caught, by the step whose business it is."""

import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from assay_contracts.credit import own
from assay_contracts.credit.bundle import CreditBundle, Statement
from assay_contracts.credit.verify import FileChain, HttpChain, Kept, verify_bundle
from assay_protocol.codec import encode
from assay_protocol.credit_tree import (
    AUDITOR,
    COMPUTE,
    account_tree,
)
from assay_protocol.errors import AssayError, ProtocolError
from assay_protocol.tickets import job_price
from contracts.bundle_cases import (
    ACCOUNTS,
    KEPT,
    ME,
    MODEL,
    MY_AUDITS,
    NODE,
    RULES,
    TAMPERINGS,
    Posted,
    job,
    leaf_of,
    lines_of,
    own_ticket,
    post_two_epochs,
)


@pytest.fixture(scope="module")
def posted(tmp_path_factory: pytest.TempPathFactory) -> Posted:
    return post_two_epochs(tmp_path_factory.mktemp("verify") / "chain.sqlite")


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
