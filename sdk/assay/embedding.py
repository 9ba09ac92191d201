"""Texts to vectors: as many jobs as it takes, each with a receipt that binds its vectors.

A vector counts only with the receipt whose root was made of it: the client recomputes that root
from what it got (ClientStream), so a node cannot show an auditor other vectors than the client has.
"""

from __future__ import annotations

import secrets
import struct
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import trio

from assay.events import Job, Outcome, Segment
from assay.job_options import check_regions
from assay.records import ReceiptRecord, record_of
from assay.verdicts import Verdict
from assay_network.scopes import single_errors
from assay_protocol.embeddings import FLOAT_BYTES, embedding_sampler, texts_per_job
from assay_protocol.errors import AssayError
from assay_protocol.limits import PROMPT_TOKENS_MAX
from assay_protocol.messages import VERIFY_LEVELS

if TYPE_CHECKING:
    from assay.catalogue import Model
    from assay.job_run import JobRun

TEXTS_MAX: Final = 2_048  # of one call, as many as OpenAI's API takes
JOBS_AT_ONCE: Final = 4  # of one call
LEAVE_SECONDS: Final = 10.0  # a bound on our own faults; the machine's own limit comes first

Text = str | Sequence[int]  # or the model's own tokens, with the marks it wants around them


@dataclass(frozen=True, slots=True)
class Embeddings:
    """A vector for each text, in order; `packed` has them as little-endian f32.

    `receipts` has a record for each job, and one more for each node that gave up on one half-way.
    With verify="now" their audits have passed.
    """

    model: str
    packed: tuple[bytes, ...] = field(repr=False)
    prompt_tokens: int
    receipts: tuple[ReceiptRecord, ...] = field(repr=False)
    nodes: tuple[bytes, ...]
    verdicts: tuple[Verdict, ...] = ()

    @property
    def vectors(self) -> tuple[tuple[float, ...], ...]:
        """Numbers of vectors of Euclidean length 1."""
        return tuple(struct.unpack(f"<{len(one) // FLOAT_BYTES}f", one) for one in self.packed)


class EmbeddingsFailed(AssayError):
    """Not all texts were embedded; `receipts` are of the jobs that were, and are paid."""

    def __init__(self, cause: AssayError, receipts: tuple[ReceiptRecord, ...]) -> None:
        super().__init__(cause.code, cause.message, retry_after_ms=cause.retry_after_ms)
        self.receipts = receipts


Start = Callable[[Job], "JobRun"]
Keep = Callable[[tuple[ReceiptRecord, ...]], None]
Judge = Callable[[tuple[Segment, ...]], Awaitable[Verdict]]


async def tokens_of(model: Model, texts: Sequence[Text]) -> list[tuple[int, ...]]:
    """Each text as the model reads it. Raises AssayError: "task_refused" for a model that does not
    embed, "prompt_too_long", "malformed" for no text at all or a token that is not the model's."""
    if model.summary.dims is None:
        raise AssayError("task_refused", f"{model.summary.name} does not embed")
    context = min(model.card.context, model.summary.context)
    found = []
    for text in texts:
        tokens = await model.tokens_to_embed(text) if isinstance(text, str) else tuple(text)
        await trio.lowlevel.checkpoint()  # there may be many
        if not tokens or not all(0 <= token < model.card.n_vocab for token in tokens):
            raise AssayError("malformed", "a text is empty or has tokens the model does not")
        if len(tokens) > context:
            raise AssayError("prompt_too_long", f"the model's context is {context} tokens")
        found.append(tokens)
    return found


def make_jobs(
    model: Model,
    texts: Sequence[tuple[int, ...]],
    *,
    nodes: Sequence[bytes] = (),
    regions: Sequence[str] = (),
    verify: str = "sample",
) -> list[Job]:
    """The jobs of texts that `tokens_of` let pass, in order. `nodes` allows only those; `regions`
    and `verify` are as in make_job, but for "quorum", which compares tokens."""
    if verify not in VERIFY_LEVELS:
        raise ValueError(f"verify must be one of {', '.join(VERIFY_LEVELS)}")
    check_regions(regions)
    if verify == "quorum":
        raise AssayError("verify_refused", "vectors are not compared by quorum; ask for an audit")
    dims = model.summary.dims
    assert dims is not None
    return [
        Job(
            model=model.summary.model,
            prompt=tuple(token for text in some for token in text),
            sampler=embedding_sampler([len(text) for text in some]),
            max_tokens=len(some),
            nonce=secrets.token_bytes(32),
            only=tuple(nodes),
            regions=tuple(regions),
            price_in_max=model.summary.price_in,
            price_out_max=0,
            verify=verify,
            dims=dims,
        )
        for some in _batches(texts, texts_per_job(dims))
    ]


async def run_jobs(
    model: Model,
    jobs: Sequence[Job],
    coordinator: bytes,
    start: Start,
    judge: Judge,
    keep: Keep,
) -> Embeddings:
    """Run them, a few at once; `keep` gets the receipts of each as it ends, however it ends.

    Raises EmbeddingsFailed; what runs then is cancelled.
    """
    ended: dict[int, Outcome] = {}
    verdicts: dict[int, Verdict] = {}
    failures: list[AssayError] = []
    receipts: list[ReceiptRecord] = []
    places = trio.CapacityLimiter(JOBS_AT_ONCE)

    async def run_one(number: int) -> Outcome:
        run = start(jobs[number])
        try:
            await run.ended.wait()
        finally:
            run.cancel()
            with trio.CancelScope(shield=True), trio.move_on_after(LEAVE_SECONDS):
                await run.ended.wait()
            if run.outcome is not None:
                made = (record_of(one, jobs[number], coordinator) for one in run.outcome.segments)
                records = tuple(record for record in made if record is not None)
                receipts.extend(records)
                keep(records)
        assert run.outcome is not None
        if run.outcome.error is not None:
            raise run.outcome.error
        return run.outcome

    async def one(number: int) -> None:
        try:
            async with places:
                ended[number] = await run_one(number)
            if jobs[number].verify == "now":
                verdict = verdicts[number] = await judge(ended[number].segments[-1:])
                if verdict.error is not None:
                    raise verdict.error
        except AssayError as error:
            failures.append(error)
            nursery.cancel_scope.cancel()

    with single_errors():
        async with trio.open_nursery() as nursery:
            for number in range(len(jobs)):
                nursery.start_soon(one, number)
    if failures:
        raise EmbeddingsFailed(failures[0], tuple(receipts)) from failures[0]
    last = [ended[number].segments[-1] for number in range(len(jobs))]
    row = FLOAT_BYTES * jobs[0].dims
    return Embeddings(
        model=model.summary.name,
        packed=tuple(
            s.vectors[at : at + row] for s in last for at in range(0, len(s.vectors), row)
        ),
        prompt_tokens=sum(len(job.prompt) for job in jobs),
        receipts=tuple(receipts),
        nodes=tuple(dict.fromkeys(segment.node for segment in last)),
        verdicts=tuple(verdicts[number] for number in sorted(verdicts)),
    )


def _batches(texts: Sequence[tuple[int, ...]], most: int) -> Iterator[list[tuple[int, ...]]]:
    """As many texts together as one job takes."""
    some: list[tuple[int, ...]] = []
    tokens = 0
    for text in texts:
        if some and (len(some) == most or tokens + len(text) > PROMPT_TOKENS_MAX):
            yield some
            some, tokens = [], 0
        some.append(text)
        tokens += len(text)
    if some:
        yield some
