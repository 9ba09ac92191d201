"""The vectors in protocol/spec/vectors/messages.json are what this implementation does."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from assay_protocol import codec, hashing, messages, sketches
from assay_protocol.errors import ProtocolError
from assay_protocol.leaves import leaves_of
from assay_protocol.signing import Identity, digest, open_signed

_FILE = Path(__file__).resolve().parents[2] / "protocol" / "spec" / "vectors" / "messages.json"
VECTORS = json.loads(_FILE.read_text())


def _named(kind: str) -> Any:
    return pytest.mark.parametrize("vector", VECTORS[kind], ids=lambda vector: vector["name"])


def test_the_file_is_what_make_vectors_writes(make_vectors: ModuleType) -> None:
    assert _FILE.read_text() == make_vectors.render(), "run `make vectors`"


@_named("messages")
def test_messages_decode_to_their_fields_and_encode_to_their_bytes(
    vector: dict[str, Any], make_vectors: ModuleType
) -> None:
    data = bytes.fromhex(vector["hex"])
    value = codec.decode(data)
    assert type(value) is codec.TYPES[vector["type"]]
    assert make_vectors.to_json(value) == vector["fields"]
    assert codec.encode(value) == data


@_named("refused")
def test_refusals(vector: dict[str, Any]) -> None:
    with pytest.raises(ProtocolError) as caught:
        codec.decode(bytes.fromhex(vector["hex"]))
    assert caught.value.code == vector["error"]


@_named("ignored")
def test_what_is_ignored(vector: dict[str, Any]) -> None:
    value = codec.decode(bytes.fromhex(vector["hex"]))
    known = bytes.fromhex(vector["as"]) if "as" in vector else None
    assert (None if value is None else codec.encode(value)) == known


@_named("signed")
def test_signed_blobs(vector: dict[str, Any]) -> None:
    signer = Identity(bytes.fromhex(vector["seed"]))
    body, blob = bytes.fromhex(vector["body"]), bytes.fromhex(vector["blob"])
    assert signer.public_key.hex() == vector["key"]
    assert signer.sign(bytes.fromhex(vector["domain"]) + body) + body == blob
    cls = getattr(messages, vector["name"])
    assert codec.encode(open_signed(cls, blob, signer.public_key)) == body
    assert digest(blob).hex() == vector["digest"]


def test_hashes() -> None:
    known = VECTORS["hashes"]
    ticket, nonce = bytes.fromhex(known["ticket"]), bytes.fromhex(known["nonce"])
    prompt = bytes.fromhex(known["prompt_hash"]["prompt"])
    assert hashing.prompt_hash(nonce, prompt).hex() == known["prompt_hash"]["is"]
    grammar = bytes.fromhex(known["grammar_hash"]["grammar"])
    assert hashing.grammar_hash(nonce, grammar).hex() == known["grammar_hash"]["is"]
    assert hashing.nonce_commitment(nonce).hex() == known["nonce_commitment"]
    seed = hashing.job_seed(ticket, nonce)
    assert (seed.hex(), hashing.seed_hash(seed).hex()) == (known["job_seed"], known["seed_hash"])
    for answer in known["answers"]:
        output = bytes.fromhex(answer["output"])
        ends = hashing.leaf_hashes(ticket, nonce, output)
        assert [end.hex() for end in ends] == answer["leaf_ends"]
        assert not ends or ends[-1].hex() == answer["output_hash"]
        root = hashing.leaves_root(ends, bytes.fromhex(answer["logits"]))
        assert root.hex() == answer["root"]


def test_leaves_of_sketches() -> None:
    known = VECTORS["hashes"]
    for answer in known["answers"]:
        logits, told = bytes.fromhex(answer["logits"]), bytes.fromhex(answer["sketches"])
        leaves = leaves_of(logits, told)
        assert leaves.raws == b"".join(map(bytes.fromhex, answer["raws"]))
        ends = [bytes.fromhex(end) for end in answer["leaf_ends"]]
        assert leaves.root("", ends).hex() == answer["sketched_root"]


def test_sketches() -> None:
    known = VECTORS["sketches"]
    seed = bytes.fromhex(known["seed"])
    for case in known["tokens"]:
        asked = sketches.sketch_tokens(seed, case["position"], case["n_vocab"])
        assert asked.tolist() == case["is"]
    for case in known["bytes"]:
        row = np.array([case["logits"]], np.float32)
        assert sketches.sketch(row).hex() == case["is"] == _sketch(case["logits"])
    for case in known["gap_codes"]:
        assert sketches.gap_code(case["gap"]) == case["is"]


def _sketch(logits: list[float]) -> str:
    """The MUST list of spec/sketches.md, with nothing clever."""
    values = struct.unpack("<16f", struct.pack("<16f", *logits))
    apart = [values[2 * i] - values[2 * i + 1] for i in range(8)]
    packed = struct.pack("<e", max(map(abs, apart)) / 127)
    (step,) = struct.unpack("<e", packed)
    steps = [round(one / step) if step else 0 for one in apart]
    return (struct.pack("<8b", *(max(-127, min(127, one)) for one in steps)) + packed).hex()
