"""Replay a receipt with the model's own file: the check an auditor makes, made by whoever asks.

Prompt and answer are teacher-forced through llama.cpp and every token is drawn again under the
job's seed. In the receipt's own exact class that decides: the same tokens and the same root, or
not. In any other class arithmetic noise turns near-ties, so the share of tokens that differ is
compared with what honest machines show; that convicts a cheaper model and acquits nobody. Logprobs
of the prompt, where the node told them, are told again and compared.

The engine needs the `verify` extra; what it found is judged by `judge`, which needs the base only.
"""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

from assay.records import ReceiptRecord
from assay.steps import Step, Verification
from assay.vector_replay import replay_vectors
from assay.verify import verify
from assay_protocol.cards import seeing_model
from assay_protocol.classes import holds_logprobs, is_exact
from assay_protocol.errors import AssayError, ProtocolError
from assay_protocol.extras import missing_text
from assay_protocol.hashing import job_seed, leaf_hashes
from assay_protocol.images import holds_images, unpack_images
from assay_protocol.leaves import Leaves, leaves_of, opened_root
from assay_protocol.messages import LeavesOpened, Receipt, Ticket
from assay_protocol.prompt_logprobs import read_told, tells_prompt, told_apart
from assay_protocol.signing import peek

if TYPE_CHECKING:
    from assay_node.engine.interface import Engine

HONEST_SHARE: Final = 0.06  # of tokens, twice what was measured between honest classes
CHANCE_LEAST: Final = 1e-6  # below it, honest noise is no explanation
MARGIN_MOST: Final = 2.0  # logits; between honest machines 0.53 was the largest of 21,504 tokens
_BLOCK: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class Recomputed:
    """What the engine here found, one entry of each per token of the answer.

    `logits` are packed f32 of the answer's tokens (logprobs for a receipt in a class ending in
    /L), `sketches` SKETCH_BYTES a token or empty, `margins` in logits. `told` are the prompt's
    logprobs as the receipt's node should have told them, packed; empty if it was not asked to.
    """

    class_id: str
    drawn: tuple[int, ...]
    margins: tuple[float, ...]
    logits: bytes
    sketches: bytes
    told: bytes = b""


def replay(
    record: ReceiptRecord,
    model: Path,
    *,
    opened: LeavesOpened | None = None,
    threads: int | None = None,
    projector: Path | None = None,
) -> Verification:
    """Replay `record` with the model file at `model`; blocks as long as the prefill takes.

    A model that reads images needs the file of its `projector` as well, and a prompt with images
    their pixels in the record. `opened` (of a VerdictRecord) lets sketches be compared across
    classes. The first use of a file tries out how this machine computes it, which takes up to
    minutes. Raises AssayError: "receipt_mismatch" if the record itself does not hold,
    "model_corrupt" for other files, "image_mismatch" without the pixels, "engine_missing" without
    the extra, and what the engine raises.
    """
    if failed := verify(record).failed:
        raise AssayError("receipt_mismatch", f"the record does not hold: {', '.join(failed)}")
    ticket, receipt = peek(Ticket, record.ticket), peek(Receipt, record.receipt)
    files = _files(model, projector)
    if files.model != ticket.model:
        raise AssayError("model_corrupt", f"{files.told} what the ticket names")
    if not record.images and holds_images(record.prompt_tokens):
        said = "the record has no pixels of the prompt's images, so it cannot be replayed"
        raise AssayError("image_mismatch", said)
    if not record.output:
        return Verification(True, (Step("replay", None, "the answer has no tokens"),))
    if ticket.sampler.texts is not None:
        return replay_vectors(record, model, threads)
    found = _recompute(record, files, threads)
    return judge(record, receipt, found, opened)


def judge(
    record: ReceiptRecord, receipt: Receipt, found: Recomputed, opened: LeavesOpened | None = None
) -> Verification:
    """What a recomputation says of a record that was checked."""
    answer = record.output_tokens
    wrong = [i for i, token in enumerate(answer) if found.drawn[i] != token]
    if is_exact(receipt.class_id) and found.class_id == receipt.class_id:
        steps = [_exact_tokens(wrong, len(answer)), _exact_root(record, receipt, found)]
    else:
        steps = [_float_tokens(wrong, found, receipt)]
        if opened is not None:
            steps.append(_sketch_step(found, receipt, opened))
    if tells_prompt(peek(Ticket, record.ticket)):
        steps.append(_told_step(record, receipt, found))
    return Verification(all(step.ok is not False for step in steps), tuple(steps))


def noise_chance(mismatches: int, tokens: int) -> float:
    """The chance that an honest machine shows as many mismatches: a binomial tail at HONEST_SHARE.

    As far as tokens are independent.
    """
    honest, other = math.log(HONEST_SHARE), math.log1p(-HONEST_SHARE)
    terms = (
        math.lgamma(tokens + 1)
        - math.lgamma(k + 1)
        - math.lgamma(tokens - k + 1)
        + k * honest
        + (tokens - k) * other
        for k in range(mismatches, tokens + 1)
    )
    return min(1.0, math.fsum(math.exp(term) for term in terms))


def _exact_tokens(wrong: Sequence[int], tokens: int) -> Step:
    if wrong:
        where = f"{len(wrong)} of {tokens} are not, the first is token {wrong[0]}"
        return Step("replayed tokens", False, f"in its own exact class {where}")
    return Step("replayed tokens", True, f"all {tokens} are what the model draws under this seed")


def _exact_root(record: ReceiptRecord, receipt: Receipt, found: Recomputed) -> Step:
    name = "leaves root"
    hashes = leaf_hashes(receipt.ticket, record.nonce, record.output)
    leaves = leaves_of(found.logits, found.sketches)
    if holds_logprobs(receipt.class_id):
        leaves = Leaves(logits=found.logits)
    if leaves.root(receipt.class_id, hashes) != receipt.root:
        return Step(name, False, "computed here from the model's raw logits, it is another")
    return Step(name, True, "computed here from the model's raw logits, bit for bit")


def _float_tokens(wrong: Sequence[int], found: Recomputed, receipt: Receipt) -> Step:
    """Mismatches between classes: evidence against, or none; never proof for."""
    name, tokens = "replayed tokens", len(found.drawn)
    share = f"{len(wrong)} of {tokens} differ ({100 * len(wrong) / tokens:.1f} %)"
    classes = f"drawn as {receipt.class_id}, replayed as {found.class_id}"
    usual = "honest machines of other classes differ on about 3 %, cheaper models on 15 to 35 %"
    if noise_chance(len(wrong), tokens) < CHANCE_LEAST:
        return Step(name, False, f"{share}: too many for honest noise; {usual}; {classes}")
    far = [at for at in wrong if not found.margins[at] <= MARGIN_MOST]
    if far:
        lost = f"token {far[0]} lost by more than {MARGIN_MOST:g} logits, which noise hardly does"
        return Step(name, None, f"{share}, and {lost}: ask for an audit; {classes}")
    return Step(name, None, f"{share}: nothing speaks against it; {usual}; {classes}")


def _told_step(record: ReceiptRecord, receipt: Receipt, found: Recomputed) -> Step:
    """The node's logprobs of the prompt beside ours. It signed for them, so a lie stays its own."""
    name, sampler = "prompt logprobs", peek(Ticket, record.ticket).sampler
    alike = is_exact(receipt.class_id) and found.class_id == receipt.class_id
    try:
        theirs = read_told(record.prompt_logprobs, sampler, record.prompt_tokens)
        ours = read_told(found.told, sampler, record.prompt_tokens)
    except ProtocolError as error:
        return Step(name, False, error.message)
    if apart := told_apart(theirs, ours, exact=alike):
        where = "in its own exact class" if alike else "more than honest classes do"
        return Step(name, False, f"they differ {where}: {apart}")
    if alike:
        return Step(name, True, f"of all {len(ours)} tokens, as the model gives them")
    return Step(name, None, f"of {len(ours)} tokens: nothing speaks against them")


def _sketch_step(found: Recomputed, receipt: Receipt, opened: LeavesOpened) -> Step:
    """How far the node's committed sketches are from ours; its leaves must be the receipt's."""
    from assay_protocol.sketches import leaf_distances

    name = "sketches"
    if not found.sketches or not opened.sketches:
        return Step(name, None, "one side has none")
    try:
        if opened_root(opened, receipt) != receipt.root:
            return Step(name, False, "the opened leaves do not hash to the receipt's root")
        apart = leaf_distances(opened.sketches, found.sketches)
    except ProtocolError as error:
        return Step(name, False, error.message)
    mean = 100 * sum(apart) / len(apart)
    return Step(name, None, f"{mean:.1f} % apart; calibration says what is usual for two classes")


@dataclass(frozen=True, slots=True)
class _Files:
    """What is loaded: files and their digests."""

    path: Path
    digest: bytes
    projector: tuple[Path, bytes] | None

    @property
    def model(self) -> bytes:
        """The name of the model they make."""
        return (
            self.digest if self.projector is None else seeing_model(self.digest, self.projector[1])
        )

    @property
    def told(self) -> str:
        if self.projector is None:
            return f"{self.path.name}, without a projector, is not"
        return f"{self.path.name} with {self.projector[0].name} is not"


def _files(model: Path, projector: Path | None) -> _Files:
    eyes = None if projector is None else (projector, _sha256(projector))
    return _Files(model, _sha256(model), eyes)


def _recompute(record: ReceiptRecord, files: _Files, threads: int | None) -> Recomputed:
    """Teacher-force the record in a process of the engine's own."""
    try:
        import trio

        from assay_node.engine.interface import Replay, Replayed
        from assay_node.engine.library import engines
        from assay_node.engine.supervisor import open_llama_engine
        from assay_node.engine.trials import choose
    except ModuleNotFoundError as error:
        text = missing_text("verify", error.name or "assay_node")
        raise AssayError("engine_missing", text) from error
    ticket, receipt = peek(Ticket, record.ticket), peek(Receipt, record.receipt)
    prompt, output = record.prompt_tokens, record.output_tokens
    request = Replay(
        prompt,
        output,
        ticket.start,
        ticket.sampler,
        job_seed(ticket.seed_ticket, record.nonce),
        normalized=holds_logprobs(receipt.class_id),
        grammar=record.grammar,
        images=unpack_images(record.images),
    )
    cores = threads or max(1, (os.cpu_count() or 1) - 1)
    profile = choose(
        files.path,
        files.digest,
        "exact",
        threads=cores,
        directory=engines(),
        projector=files.projector,
    )
    room = len(prompt) + len(output) + 1
    opening = partial(open_llama_engine, slots=1, context=room, threads=cores, profile=profile)

    async def run() -> tuple[str, Replayed, bytes]:
        eyes = None if files.projector is None else files.projector[0]
        async with opening(files.path, files.digest, drafts=False, projector=eyes) as engine:
            done = await engine.replay(request)
            told = await _tell(engine, ticket, prompt) if tells_prompt(ticket) else b""
            return engine.info.class_id, done, told

    class_id, done, told = trio.run(run)
    return Recomputed(class_id, done.drawn, done.margins, done.logits, done.sketches, told)


async def _tell(engine: Engine, ticket: Ticket, prompt: tuple[int, ...]) -> bytes:
    """All logprobs of the prompt, as that engine tells them to anybody; one token is drawn."""
    from assay_node.engine.interface import Generate

    told = b""
    async with engine.generate(Generate(prompt, 0, 1, ticket.sampler, bytes(32))) as chunks:
        async for chunk in chunks:
            told += chunk.prompt_logprobs
    return told


def _sha256(path: Path) -> bytes:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            digest.update(block)
    return digest.digest()
