"""A follower executes every block again and stops at the first that is not what it should be."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import rlp

from assay.cli import main as assay
from assay_contracts.credit.ledger_abi import Header
from assay_contracts.deploy.ledger import CreditLedgerClient
from assay_contracts.follow.block_sources import About, BlockSource, blocks_of, open_source
from assay_contracts.follow.following import Difference, Follower, open_followed
from assay_contracts.local.chain import LocalChain
from assay_contracts.local.evm import PragueVM
from assay_contracts.local.genesis import CONTRACTS_MAX, Genesis, address_of, poster_key
from assay_protocol.errors import AssayError
from assay_protocol.messages import Seal, SealedBlock
from assay_protocol.seals import block_subject, seal_block, sealed_number
from assay_protocol.signing import ED25519, Identity, open_signed, seal

SEED = bytes(range(32))
KEY = poster_key(SEED)
POSTER = address_of(KEY)
PRODUCER = Identity(SEED)
OTHER = Identity(b"\x09" * 32)
POSTS = 5
BLOCKS = CONTRACTS_MAX + POSTS  # one creates a contract, or posts an epoch
VICTIM = CONTRACTS_MAX + 2  # the second epoch's
KEPT = VICTIM - 1


class Listed:
    """Blocks in a list, to be tampered with; number 1 first."""

    def __init__(self, about: About, blocks: list[SealedBlock]) -> None:
        self.facts, self.items = about, blocks

    def about(self) -> About:
        return replace(self.facts, head=len(self.items))

    def blocks(self, first: int, count: int) -> list[SealedBlock]:
        return self.items[first - 1 : first - 1 + count]

    def finality(self) -> bytes | None:
        return None

    def close(self) -> None: ...


def main(arguments: list[str]) -> int:
    return assay(["chain", *arguments])


def grow(path: Path, posts: int, *, salt: int = 0) -> None:
    genesis = Genesis(POSTER)
    with LocalChain.open(
        path, genesis=genesis, signer=PRODUCER, clock=lambda: 1_800_000_000
    ) as one:
        ledger = CreditLedgerClient(one, KEY)
        ledger.deploy()
        for epoch in range(ledger.head() + 1, ledger.head() + 1 + posts):
            root = (epoch + 1000 * salt).to_bytes(32)
            ledger.post(epoch, Header(root, 5 * epoch, 9, 3, bytes(32), bytes(32)))


@pytest.fixture(scope="module")
def grown(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("producer") / "chain.db"
    grow(path, POSTS)
    return path


@pytest.fixture
def source(grown: Path) -> Listed:
    with LocalChain.open(grown, read_only=True) as chain:
        about = About(chain.chain_id, POSTER, PRODUCER.public_key, BLOCKS)
        return Listed(about, blocks_of(chain, 1, BLOCKS))


@pytest.fixture
def followed(tmp_path: Path, source: Listed) -> Iterator[LocalChain]:
    with open_followed(tmp_path / "mine.db", source.about()) as chain:
        yield chain


def block_class() -> Any:
    return PragueVM.get_block_class()


def remade(block: SealedBlock, change: Callable[[Any], Any], signer: Identity = PRODUCER) -> Any:
    """The block with something changed, sealed anew: what a producer that cheats would publish."""
    changed = change(rlp.decode(block.raw, sedes=block_class()))
    number = changed.header.block_number
    sealed = seal_block(signer, Genesis(POSTER).chain_id, number, changed.hash)
    return SealedBlock(raw=rlp.encode(changed), seal=sealed)


def header(**fields: Any) -> Callable[[Any], Any]:
    return lambda block: block.copy(header=block.header.copy(**fields))


def test_what_was_executed_here_is_what_the_producer_has(
    grown: Path, source: Listed, followed: LocalChain
) -> None:
    assert Follower(followed, source).to_head() == BLOCKS
    with LocalChain.open(grown, read_only=True) as chain:
        assert followed.head_block() == chain.head_block()
        assert followed.genesis_hash == chain.genesis_hash
        assert followed.sealed_block(BLOCKS) == chain.sealed_block(BLOCKS)
    for number in range(1, BLOCKS + 1):
        kept = followed.sealed_block(number)
        assert kept is not None
        sealed = open_signed(Seal, kept.seal, PRODUCER.public_key)
        assert sealed == Seal(subject=block_subject(0xA55A, number), digest=kept.hash)


def test_a_follower_goes_on_where_it_was(tmp_path: Path, source: Listed) -> None:
    path, whole = tmp_path / "mine.db", source.items
    for upto in (2, 2, BLOCKS):
        source.items = whole[:upto]
        with open_followed(path, source.about()) as chain:
            before = chain.head_block().number
            assert Follower(chain, source).to_head() == upto - before
            assert chain.head_block().number == upto


FIELDS: dict[str, Any] = {
    "parent_hash": b"\x01" * 32,
    "uncles_hash": b"\x01" * 32,
    "coinbase": b"\x01" * 20,
    "state_root": b"\x01" * 32,
    "transaction_root": b"\x01" * 32,
    "receipt_root": b"\x01" * 32,
    "bloom": 1,
    "difficulty": 1,
    "block_number": 9,
    "gas_limit": 30_000_001,
    "gas_used": 30_000,
    "timestamp": 1_800_000_999,  # not earlier: only the state of what it wrote tells
    "extra_data": b"x",
    "mix_hash": b"\x01" * 32,
    "nonce": b"\x01" * 8,
    "base_fee_per_gas": 1,
    "withdrawals_root": b"\x01" * 32,
    "blob_gas_used": 131_072,
    "excess_blob_gas": 1,
    "parent_beacon_block_root": b"\x01" * 32,
    "requests_hash": b"\x01" * 32,
}
TAMPERED: dict[str, Callable[[Any], Any]] = {
    **{name: header(**{name: value}) for name, value in FIELDS.items()},
    "earlier timestamp": header(timestamp=1_767_225_600),
    "no transaction": lambda block: block.copy(transactions=()),
    "transaction twice": lambda block: block.copy(transactions=block.transactions * 2),
}


@pytest.mark.parametrize("field", TAMPERED)
def test_a_tampered_block_stops_it_by_number(
    source: Listed, followed: LocalChain, field: str
) -> None:
    """Sealed by the producer itself: only execution and the rules of blocks can tell."""
    source.items[KEPT] = remade(source.items[KEPT], TAMPERED[field])
    with pytest.raises(Difference, match=f"block {VICTIM}") as caught:
        Follower(followed, source).to_head()
    assert caught.value.number == VICTIM
    assert followed.head_block().number == KEPT


def test_every_header_field_has_its_tampering(source: Listed) -> None:
    block = rlp.decode(source.items[0].raw, sedes=block_class())
    assert set(block.header.as_dict()) == set(FIELDS)


@pytest.mark.parametrize("wrong", ["other key", "other block", "unsigned", "other chain"])
def test_a_block_needs_its_producers_seal(source: Listed, followed: LocalChain, wrong: str) -> None:
    block = source.items[KEPT]
    kept = rlp.decode(block.raw, sedes=block_class())
    seals = {
        "other key": seal_block(OTHER, 0xA55A, VICTIM, kept.hash),
        "other block": source.items[KEPT - 1].seal,
        "unsigned": bytes(64) + block.seal[64:],
        "other chain": seal_block(PRODUCER, 1, VICTIM, kept.hash),
    }
    source.items[KEPT] = SealedBlock(raw=block.raw, seal=seals[wrong])
    with pytest.raises(Difference, match=f"block {VICTIM}") as caught:
        Follower(followed, source).to_head()
    assert caught.value.code in ("bad_signature", "chain_mismatch")
    assert followed.head_block().number == KEPT


def test_a_skipped_block_and_foreign_bytes_stop_it(source: Listed, followed: LocalChain) -> None:
    whole = list(source.items)
    source.items = whole[:KEPT] + whole[VICTIM:]
    with pytest.raises(Difference, match=f"block {VICTIM}"):
        Follower(followed, source).to_head()
    for raw in (b"\x00", b"\xc0", whole[KEPT].raw[:-1], whole[KEPT].raw + b"\x00", b"\xff" * 99):
        source.items = [*whole[:KEPT], SealedBlock(raw=raw, seal=whole[KEPT].seal), *whole[VICTIM:]]
        with pytest.raises(Difference, match=f"block {VICTIM}"):
            Follower(followed, source).to_head()
    source.items = whole
    assert Follower(followed, source).to_head() == BLOCKS - KEPT


def test_another_producer_or_poster_is_another_chain(tmp_path: Path, source: Listed) -> None:
    about = source.about()
    with pytest.raises(AssayError, match="another producer"):
        open_followed(tmp_path / "a", about, producer=OTHER.public_key)
    with pytest.raises(AssayError, match="another poster"):
        open_followed(tmp_path / "a", about, poster=bytes(20))
    with open_followed(tmp_path / "b", replace(about, poster=bytes(20))) as chain:
        with pytest.raises(Difference, match="block 1"):
            Follower(chain, source).to_head()
    open_followed(tmp_path / "c", about).close()
    with pytest.raises(AssayError, match="chain_mismatch"):
        open_followed(tmp_path / "c", replace(about, producer=OTHER.public_key))


def test_two_sealed_blocks_at_one_height_are_evidence(
    tmp_path: Path, source: Listed, followed: LocalChain
) -> None:
    """The producer restored nothing and forgot everything: it seals heights again."""
    Follower(followed, source).to_head()
    other = tmp_path / "other.db"
    grow(other, 1)
    grow(other, 5, salt=1)
    with LocalChain.open(other, read_only=True) as chain:
        source.items = blocks_of(chain, 1, 99)
    with pytest.raises(Difference, match="sealed two blocks") as caught:
        Follower(followed, source).to_head()
    evidence = caught.value.evidence
    assert evidence is not None
    assert (caught.value.number, evidence.number) == (VICTIM, VICTIM)
    document = evidence.document()
    first, second = (bytes.fromhex(text) for text in document["messages"])
    assert first != second
    # SlashCourt reads the subject at offset 19 of a seal's signed bytes.
    assert first[19:51] == second[19:51] == block_subject(0xA55A, VICTIM)
    for message, signature in zip((first, second), document["signatures"], strict=True):
        assert ED25519.verify(PRODUCER.public_key, message, bytes.fromhex(signature))


def test_two_followers_never_share_a_file(tmp_path: Path, source: Listed) -> None:
    path, about = tmp_path / "mine.db", source.about()
    with open_followed(path, about), pytest.raises(AssayError, match="another process"):
        open_followed(path, about)
    open_followed(path, about).close()


def test_a_source_that_is_behind_is_no_difference(source: Listed, followed: LocalChain) -> None:
    Follower(followed, source).to_head()
    source.items = source.items[:2]
    assert Follower(followed, source).to_head() == 0
    source.items = []
    assert Follower(followed, source).to_head() == 0


def test_the_command_follows_a_file_and_an_export(
    grown: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mine, out = str(tmp_path / "mine.db"), str(tmp_path / "blocks")
    key = PRODUCER.public_key.hex()
    asked = ["follow", str(grown), "--chain", mine, "--once", "--json", "--producer", key]
    assert main([*asked, "--blocks"]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line["event"] for line in lines] == ["started", *["block"] * BLOCKS, "caught_up"]
    assert lines[-1]["block"] == BLOCKS
    assert main(["export", str(grown), out]) == 0
    assert main(["export", str(grown), out]) == 1  # never over another file
    again = [
        "follow",
        out,
        "--chain",
        str(tmp_path / "again.db"),
        "--once",
        "--poster",
        POSTER.hex(),
    ]
    assert main(again) == 0
    assert f"every block up to {BLOCKS} holds" in capsys.readouterr().out
    assert main(["head", out, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["block"] == BLOCKS
    assert main(["backup", mine, str(tmp_path / "copy.db")]) == 0
    with LocalChain.open(tmp_path / "copy.db", read_only=True) as copied:
        assert copied.head_block().number == BLOCKS


def test_the_command_names_the_block_and_exits_1(
    grown: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "blocks"
    assert main(["export", str(grown), str(out)]) == 0
    raw = bytearray(out.read_bytes())
    raw[-400] ^= 1  # in the last block
    out.write_bytes(raw)
    capsys.readouterr()
    asked = ["follow", str(out), "--chain", str(tmp_path / "m"), "--once", "--json"]
    assert main(asked) == 1
    line = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (line["event"], line["block"], line["evidence"]) == ("difference", BLOCKS, None)
    out.write_bytes(raw[:-5])
    assert main(asked) == 1
    assert main(["head", str(tmp_path / "nowhere")]) == 1
    assert main(["follow", str(grown), "--chain", str(tmp_path / "x"), "--producer", "ff"]) == 1


def test_a_chain_without_seals_is_not_followed(tmp_path: Path) -> None:
    with LocalChain.open(tmp_path / "plain", genesis=Genesis(POSTER)) as chain:
        chain.send(KEY, POSTER, b"")
    source: BlockSource = open_source(str(tmp_path / "plain"))
    with pytest.raises(AssayError, match="not sealed"):
        source.about()
    source.close()


def test_a_seal_on_a_later_block_does_not_count_for_an_earlier() -> None:
    blob = seal(PRODUCER, Seal(subject=bytes(32), digest=bytes(32)))
    with pytest.raises(AssayError, match="not of a block"):
        sealed_number(blob, 1)
    assert sealed_number(seal_block(PRODUCER, 1, 7, bytes(32)), 1) == 7
