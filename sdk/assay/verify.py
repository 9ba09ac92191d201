"""Check a receipt offline: who signed what, and that it is about these tokens and no others.

Needs the base install only and trusts nobody: every step recomputes what it checks. What a client
cannot check is said, not hidden: the Merkle root covers sketches of the logits, which only the node
and an auditor hold, and whoever has the model's file and replays.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from assay.records import ReceiptRecord
from assay.steps import Step, Verification
from assay_protocol.cards import ModelCard
from assay_protocol.embeddings import VectorWriter, check_vectors, vector_dims
from assay_protocol.errors import ProtocolError
from assay_protocol.grammars import grammar_fits
from assay_protocol.hashing import OutputHash, nonce_commitment, prompt_hash
from assay_protocol.images import holds_images, spells, unpack_images
from assay_protocol.messages import Receipt, Ticket
from assay_protocol.prompt_logprobs import entry_bytes, tells_prompt, told_digest
from assay_protocol.receipts import check_receipt
from assay_protocol.signing import ED25519, open_signed
from assay_protocol.tickets import job_price, open_ticket

Answer = Callable[[], OutputHash | VectorWriter]


def verify(
    record: ReceiptRecord, coordinator: bytes | None = None, card: ModelCard | None = None
) -> Verification:
    """Check one record, under `coordinator`'s key if given, else under the key it names itself.

    With the model's `card` and the `grammar` extra, an answer is also held to its grammar.
    """
    key = record.coordinator if coordinator is None else coordinator
    try:
        ticket = open_ticket(record.ticket, key)
    except ProtocolError as error:
        return _result([Step("ticket signature", False, str(error))])
    steps = [Step("ticket signature", True, f"signed by coordinator {key.hex()[:16]}")]
    try:
        receipt = open_signed(Receipt, record.receipt, ticket.node, ED25519)
    except ProtocolError as error:
        return _result([*steps, Step("receipt signature", False, str(error))])
    steps.append(Step("receipt signature", True, f"signed by node {ticket.node.hex()[:16]}"))
    answer = cache(lambda: _running(record, ticket, receipt))  # vectors are megabytes
    steps += _content_steps(record, ticket, receipt, answer)
    if ticket.sampler.grammar is not None or record.grammar is not None:
        steps += _grammar_steps(record, ticket, card)
    if record.images or holds_images(record.prompt_tokens):
        steps.append(_images_step(record))
    if tells_prompt(ticket) or record.prompt_logprobs:
        steps.append(_told_step(record, ticket, receipt))
    steps.append(_root_step(ticket, receipt, answer))
    price = job_price(ticket, receipt.n_out)
    tokens = f"{receipt.n_in} prompt and {receipt.n_out} answer tokens"
    if ticket.sampler.texts is not None:
        tokens = f"{receipt.n_in} tokens of {receipt.n_out} texts"
    steps.append(Step("price", True, f"at most {price} micro-credits for {tokens}"))
    return _result(steps, price)


def verify_answer(
    records: Sequence[ReceiptRecord],
    coordinator: bytes | None = None,
    card: ModelCard | None = None,
) -> Verification:
    """Check the records of one resumed answer, in order, and that each goes on from the last.

    A node that vanished left no receipt: its part is in the next record's prompt, where the step
    "continues" shows it as tokens of the answer without a receipt of their own.
    """
    steps: list[Step] = []
    price = 0
    for index, record in enumerate(records):
        one = verify(record, coordinator, card)
        steps += [Step(f"{index + 1}: {s.name}", s.ok, s.detail) for s in one.steps]
        price += one.price or 0
        if index and one.ok:
            steps.append(_continues(records[index - 1], record, f"{index + 1}: continues"))
    return _result(steps, price)


def replay(record: ReceiptRecord, model: Path | str, **options: Any) -> Verification:
    """Draw every token of `record` again with the model's file; see `offline_replay.replay`.

    Needs the `verify` extra; blocks as long as llama.cpp takes to read prompt and answer once.
    """
    from assay.offline_replay import replay as recompute

    return recompute(record, Path(model), **options)


def _content_steps(
    record: ReceiptRecord, ticket: Ticket, receipt: Receipt, answer: Answer
) -> list[Step]:
    def seed() -> bool:
        return nonce_commitment(record.nonce) == ticket.nonce_commitment

    def output() -> bool:
        running = answer()
        return (running.digest(), running.count) == (receipt.output_hash, receipt.n_out)

    def prompt() -> bool:
        right = prompt_hash(record.nonce, record.prompt) == ticket.prompt_hash
        return right and len(record.prompt) == 4 * ticket.n_in

    def counts() -> bool:
        check_receipt(receipt, ticket)
        return True

    what = "tokens" if ticket.sampler.texts is None else "vectors"
    return [
        _step("receipt fits ticket", counts, f"model {ticket.model.hex()[:16]}, {receipt.finish}"),
        _step(
            "seed", seed, "fixed by the ticket and this client's nonce before the node was known"
        ),
        _step("prompt", prompt, f"these {ticket.n_in} tokens"),
        _step("output", output, f"these {receipt.n_out} {what}"),
    ]


def _running(record: ReceiptRecord, ticket: Ticket, receipt: Receipt) -> OutputHash | VectorWriter:
    """The hash of the record's answer; ProtocolError if it is no answer to the ticket."""
    if ticket.sampler.texts is None:
        running = OutputHash(ticket.ticket, record.nonce)
        running.update(record.output)
        return running
    writer = VectorWriter(ticket.ticket, ticket.seed_ticket, record.nonce)
    if receipt.n_out or record.output:
        dims = vector_dims(record.output, receipt.n_out)
        check_vectors(record.output, dims)
        writer.add(record.output, dims)
    return writer


def _images_step(record: ReceiptRecord) -> Step:
    """That the pixels kept are those the prompt spells."""
    name = "images"
    if not record.images:
        return Step(name, None, "the record has no pixels of them, so nobody can replay it")
    try:
        images = unpack_images(record.images)
    except ProtocolError as error:
        return Step(name, False, error.message)
    detail = f"the pixels of {len(images)}, as the prompt spells them"
    return _step(name, lambda: spells(record.prompt_tokens, images), detail)


def _told_step(record: ReceiptRecord, ticket: Ticket, receipt: Receipt) -> Step:
    """That the logprobs of the prompt are those the node signed for; a replay says if they are
    the model's."""
    told = record.prompt_logprobs

    def signed() -> bool:
        return told_digest(ticket, record.nonce, told) == receipt.prompt_logprobs

    tokens = len(told) // (entry_bytes(ticket.sampler) or 1)
    return _step("prompt logprobs", signed, f"of {tokens} tokens, as the node signed for them")


def _root_step(ticket: Ticket, receipt: Receipt, answer: Answer) -> Step:
    name = "leaves root"

    def root() -> bool:
        writer = answer()
        assert isinstance(writer, VectorWriter)
        return writer.leaves().root(receipt.class_id, writer.ends()) == receipt.root

    if ticket.sampler.texts is None:
        return Step(name, None, "covers sketches of the logits: a replay checks it")
    return _step(name, root, "of these vectors: an auditor is held to the same ones")


def _grammar_steps(record: ReceiptRecord, ticket: Ticket, card: ModelCard | None) -> list[Step]:
    """That the grammar is the one committed to, and that it allowed every token where it is."""
    name = "follows its grammar"
    if not grammar_fits(ticket.sampler, record.nonce, record.grammar):
        return [Step("grammar", False, "not the one committed to")]
    steps = [Step("grammar", True, "the one committed to")]
    if card is None or record.grammar is None:
        return [*steps, Step(name, None, "needs the model's card")]
    if card.model != ticket.model:
        return [*steps, Step(name, False, "the card is of another model")]
    try:
        from assay_protocol.masks import Matcher, Vocabulary
    except ImportError:
        return [*steps, Step(name, None, "needs the `grammar` extra")]
    prompt = record.prompt_tokens
    try:
        before = prompt[len(prompt) - ticket.start :]
        matcher = Matcher(Vocabulary(card.pieces, card.eog), record.grammar, before)
        wrong = next((i for i, t in enumerate(record.output_tokens) if not matcher.accept(t)), None)
    except ProtocolError as error:
        return [*steps, Step(name, False, error.message)]
    told = "every token" if wrong is None else f"token {wrong} of the answer is not allowed"
    return [*steps, Step(name, wrong is None, told)]


def _continues(before: ReceiptRecord, after: ReceiptRecord, name: str) -> Step:
    try:
        first = open_ticket(before.ticket, before.coordinator)
    except ProtocolError:
        return Step(name, False, "the part before has no valid ticket")
    then = open_ticket(after.ticket, after.coordinator)
    if first.seed_ticket != then.seed_ticket or before.nonce != after.nonce:
        return Step(name, False, "another seed: the parts are not of one answer")
    held = before.prompt + before.output
    if not after.prompt.startswith(held):
        return Step(name, False, "the prompt is not the earlier part")
    between = (len(after.prompt) - len(held)) // 4
    if then.start != first.start + len(before.output) // 4 + between:
        return Step(name, False, "the parts do not meet")
    return Step(name, True, f"from token {then.start}, {between} of them without a receipt")


def _step(name: str, check: Callable[[], bool], detail: str) -> Step:
    try:
        held = check()
    except ProtocolError as error:
        return Step(name, False, error.message)
    return Step(name, held, detail if held else "does not match")


def _result(steps: Sequence[Step], price: int | None = None) -> Verification:
    return Verification(all(step.ok is not False for step in steps), tuple(steps), price)
