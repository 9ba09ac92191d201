"""Receipts of every kind, true and false: made by Hypothesis, signed by whoever a case says."""

from __future__ import annotations

import math
import struct
from dataclasses import replace
from typing import Any

import msgpack
from hypothesis import strategies as st

from assay.records import ReceiptRecord
from assay_protocol.codec import encode
from assay_protocol.embeddings import VectorWriter, embedding_sampler
from assay_protocol.grammars import grammar_hash
from assay_protocol.hashing import OutputHash, nonce_commitment, pack_tokens, prompt_hash
from assay_protocol.images import IMAGE_TOKEN, pack_images, spelled
from assay_protocol.messages import (
    FINISH_REASONS,
    Image,
    Receipt,
    Route,
    Sampler,
    Standing,
    Ticket,
    TicketGrant,
    TokenBias,
)
from assay_protocol.prompt_logprobs import tells_prompt, told_digest
from assay_protocol.signing import Identity

COORDINATOR, NODE, STRANGER = (Identity(bytes([n]) * 32) for n in (1, 2, 3))
DIGESTS = st.binary(min_size=32, max_size=32)
IDS = st.binary(min_size=16, max_size=16)
TOKENS = st.lists(st.integers(0, (1 << 32) - 1), max_size=40)
WORDS = st.lists(st.integers(0, IMAGE_TOKEN - 1), max_size=40)
GRAMMARS = st.none() | st.binary(min_size=1, max_size=60)
MONEY = st.integers(0, 10**12)
TIMES = st.integers(0, (1 << 63) - 1)
COUNTS = st.integers(0, 1 << 31)
FLOATS = st.floats(allow_nan=False, allow_infinity=False)


@st.composite
def samplers(draw: st.DrawFn) -> Sampler:
    """Any that can be signed; its options there or not."""
    maybe = st.none() | FLOATS
    bias = st.none() | st.lists(st.builds(TokenBias, token=COUNTS, bias=FLOATS), max_size=5)
    stops = st.none() | st.lists(COUNTS, max_size=5)
    found, ends = draw(bias), draw(stops)
    return Sampler(
        temperature=draw(FLOATS),
        top_k=draw(COUNTS),
        top_p=draw(FLOATS),
        min_p=draw(FLOATS),
        repetition_penalty=draw(maybe),
        presence_penalty=draw(maybe),
        logit_bias=None if found is None else tuple(found),
        stop_tokens=None if ends is None else tuple(ends),
        logprobs=draw(st.none() | st.integers(0, 20)),
        prompt_logprobs=draw(st.none() | st.integers(0, 20)),
    )


def pictures() -> st.SearchStrategy[list[Image]]:
    """Up to two, of a few pixels."""
    sides = st.integers(1, 3)
    colors = st.integers(0, 255)
    one = st.builds(
        lambda w, h, color: Image(width=w, height=h, pixels=bytes([color]) * (3 * w * h)),
        sides,
        sides,
        colors,
    )
    return st.just([]) | st.lists(one, max_size=2)


PICTURES = pictures()


@st.composite
def true_parts(
    draw: st.DrawFn, grammars: st.SearchStrategy[bytes | None] = GRAMMARS
) -> tuple[Ticket, Receipt, dict[str, Any]]:
    """A ticket, the receipt for it, and the texts that both commit to."""
    nonce, ticket = draw(DIGESTS), draw(IDS)
    seen = draw(PICTURES)
    said = WORDS if seen else TOKENS
    shown = [token for one in seen for token in (*draw(said)[:2], *spelled(one, 9))]
    prompt = pack_tokens([*shown, *draw(said.filter(len))])
    output = pack_tokens(tokens := draw(TOKENS))
    grammar = draw(grammars)
    sampler = draw(samplers())
    if grammar is not None:
        sampler = replace(sampler, grammar=grammar_hash(nonce, grammar))
    running = OutputHash(ticket, nonce)
    running.update(output)
    finish = draw(st.sampled_from(FINISH_REASONS))
    calibration = draw(st.none() | COUNTS)
    started, first, ended = sorted(draw(TIMES) for _ in range(3))
    issued = Ticket(
        ticket=ticket,
        client=draw(DIGESTS),
        node=NODE.public_key,
        model=draw(DIGESTS),
        prompt_hash=prompt_hash(nonce, prompt),
        n_in=len(prompt) // 4,
        sampler=sampler,
        max_tokens=max(1, len(tokens) if finish == "length" else draw(st.integers(40, 2_048))),
        start=draw(st.just(0) | COUNTS),
        nonce_commitment=nonce_commitment(nonce),
        seed_ticket=draw(IDS),
        price_in=draw(MONEY),
        price_out=draw(MONEY),
        issued_at=draw(TIMES),
        expires_at=draw(TIMES),
        epoch=draw(COUNTS),
        calibration=calibration,
    )
    receipt = Receipt(
        ticket=ticket,
        class_id=draw(st.text(min_size=1, max_size=30).filter(lambda t: len(t.encode()) <= 128)),
        output_hash=running.digest(),
        root=draw(DIGESTS),
        n_in=issued.n_in,
        n_out=len(tokens),
        finish=finish,
        started_at=started,
        first_at=first,
        ended_at=ended,
        calibration=calibration,
    )
    texts = {"nonce": nonce, "prompt": prompt, "output": output, "grammar": grammar}
    texts["images"] = pack_images(seen)
    if not tells_prompt(issued):
        return issued, receipt, texts | {"prompt_logprobs": b""}
    told = draw(st.binary(max_size=40))
    receipt = replace(receipt, prompt_logprobs=told_digest(issued, nonce, told))
    return issued, receipt, texts | {"prompt_logprobs": told}


LIES: dict[str, st.SearchStrategy[Any]] = {
    "n_in": COUNTS,
    "n_out": COUNTS,
    "finish": st.sampled_from([*FINISH_REASONS, "why not"]),
    "output_hash": DIGESTS,
    "ticket": IDS,
    "first_at": TIMES,
    "calibration": st.none() | COUNTS,
    "prompt_hash": DIGESTS,
    "nonce_commitment": DIGESTS,
    "max_tokens": st.integers(1, 60),
    "node": st.sampled_from([STRANGER.public_key, NODE.public_key]),
    "nonce": DIGESTS,
    "prompt": st.binary(min_size=4, max_size=12).filter(lambda data: len(data) % 4 == 0),
    "output": st.binary(max_size=12).filter(lambda data: len(data) % 4 == 0),
    "grammar": st.none() | st.binary(min_size=1, max_size=8),
    "root": DIGESTS,
    "prompt_logprobs": st.binary(max_size=40),
    "images": st.binary(max_size=40) | PICTURES.map(pack_images),
    "signed_logprobs": st.none() | DIGESTS,
    "start": st.integers(0, 1),
}


@st.composite
def vectors(draw: st.DrawFn) -> tuple[int, bytes]:
    """How many numbers each has, and the packed vectors, some more than a leaf holds."""
    dims, count = draw(st.sampled_from([1, 2, 3, 64])), draw(st.sampled_from([1, 3, 16, 17, 40]))
    numbers = draw(st.randoms(use_true_random=False))
    packed = b""
    for _ in range(count):
        row = [numbers.choice([0.0, numbers.gauss(0, 1)]) for _ in range(dims - 1)]
        row.append(numbers.gauss(0, 1) or 1.0)
        packed += struct.pack(f"<{dims}f", *(one / math.hypot(*row) for one in row))
    return dims, packed


@st.composite
def embedding_parts(draw: st.DrawFn) -> tuple[Ticket, Receipt, dict[str, Any]]:
    """The same of a job that embeds; its answer may have ended early."""
    ticket, receipt, texts = draw(true_parts(st.none()))
    dims, packed = draw(vectors())
    writer = VectorWriter(ticket.ticket, ticket.seed_ticket, texts["nonce"])
    writer.add(packed, dims)
    whole = receipt.finish == "length"
    texts_asked = writer.count if whole else draw(st.integers(writer.count, 60))
    lengths = draw(st.lists(st.integers(1, 3), min_size=texts_asked, max_size=texts_asked))
    prompt = pack_tokens([number % 10 for number in range(sum(lengths))])
    ticket = replace(
        ticket,
        sampler=embedding_sampler(lengths),
        n_in=sum(lengths),
        max_tokens=len(lengths),
        prompt_hash=prompt_hash(texts["nonce"], prompt),
    )
    logprobs = receipt.class_id.endswith("/L")  # a class that no vectors have
    receipt = replace(
        receipt,
        n_in=ticket.n_in,
        n_out=writer.count,
        prompt_logprobs=None,
        output_hash=writer.digest(),
        root=bytes(32) if logprobs else writer.leaves().root(receipt.class_id, writer.ends()),
    )
    return ticket, receipt, texts | {"prompt": prompt, "output": packed, "prompt_logprobs": b""}


@st.composite
def records(draw: st.DrawFn) -> ReceiptRecord:
    """A record with at most two lies in it, each signed as if it were true."""
    ticket, receipt, texts = draw(true_parts() | embedding_parts())
    for name in draw(st.lists(st.sampled_from(sorted(LIES)), max_size=2)):
        lie = draw(LIES[name])
        if name in texts:
            texts[name] = lie
            continue
        if name == "signed_logprobs":
            receipt = replace(receipt, prompt_logprobs=lie)
        if name in Receipt.__dataclass_fields__:
            receipt = replace(receipt, **{name: lie})
        if name in Ticket.__dataclass_fields__ and (name != "n_in" or draw(st.booleans())):
            ticket = replace(ticket, **{name: lie})
    by = draw(st.sampled_from([COORDINATOR] * 9 + [STRANGER]))
    to = draw(st.sampled_from([NODE] * 9 + [STRANGER]))
    blob = _sealed(draw, by, ticket)
    standing = draw(st.none() | standings())
    route = Route(node=ticket.node, addresses=())
    grant = TicketGrant(ticket=blob, route=route, standing=standing)
    return ReceiptRecord(
        coordinator=COORDINATOR.public_key,
        ticket=blob,
        receipt=_sealed(draw, to, receipt),
        grant=None if standing is None else encode(grant),
        **texts,
    )


def standings() -> st.SearchStrategy[Standing]:
    """What a coordinator may say of a node."""
    return st.builds(
        Standing,
        state=st.sampled_from(["active", "probation", "draining"]),
        audits_passed=st.sampled_from([0, 1, 3, 4, 299, 300, 10_007, 30_000_000]),
        audits_failed=st.sampled_from([0, 0, 0, 2]),
        audit_bps=st.integers(0, 10_000),
        at_risk=st.integers(0, 10**12),
        class_id=st.just("c"),
        exact=st.booleans(),
    )


def _sealed(draw: st.DrawFn, signer: Identity, value: Any) -> bytes:
    """Signed; now and then with a field of a later version, or in a form that is not canonical."""
    body = encode(value)
    form = draw(st.sampled_from(["plain"] * 7 + ["odd", "even", "long"]))
    if form in ("odd", "even"):
        raw = msgpack.unpackb(body, strict_map_key=False)
        body = msgpack.packb({**raw, 1_001 if form == "odd" else 1_002: [1, {"a": 2.5}]})
    if form == "long":
        body = body[:-1] + b"\xcd\x00" + body[-1:] if body[-1] < 128 else body + b"\x00"
    name = type(value).__name__
    return signer.sign(f"assay/1/{name}\0".encode() + body) + body
