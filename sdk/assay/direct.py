"""The asynchronous client: straight to the nodes over libp2p, in trio.

    async with AsyncClient.connect(coordinator=..., key_path=...) as client:
        async with client.stream_chat([{"role": "user", "content": "Hello"}]) as stream:
            async for event in stream:
                ...

Text is made here from the tokens the receipt's hash covers, with the card the model's digest names:
what is shown is what was signed.
"""

from __future__ import annotations

import math
import secrets
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import trio

from assay.answer_grammar import answer_grammar
from assay.answer_stream import AnswerStream, Started
from assay.answer_text import AnswerText
from assay.answers import Completion
from assay.catalogue import Catalogue, Model
from assay.coordinator_link import CoordinatorLink
from assay.core import JobMachine
from assay.embedding import (
    TEXTS_MAX,
    Embeddings,
    Keep,
    Text,
    make_jobs,
    run_jobs,
    tokens_of,
)
from assay.events import Job, JobLimits, Segment
from assay.job_options import make_job
from assay.job_run import JobRun
from assay.quorum import QuorumMachine
from assay.records import ReceiptRecord, ReceiptStore
from assay.stop_text import StopText
from assay.verdict_watch import VerdictWatch
from assay.verdicts import VERDICT_BYTES_MAX, Verdict
from assay_network.host import Host, open_host
from assay_network.identity import public_key
from assay_network.keystore import load_or_create_key
from assay_network.scopes import single_errors
from assay_protocol.codec import decode_as
from assay_protocol.errors import AssayError
from assay_protocol.grammars import read_grammar
from assay_protocol.limits import MESSAGE_BYTES_MAX
from assay_protocol.messages import (
    Account,
    GetAccount,
    GetNetwork,
    GetVerdict,
    JobVerdict,
    ModelSummary,
    Network,
    VerdictRecord,
)
from assay_protocol.signing import Identity

BUNDLE_BYTES_MAX: Final = 64 << 20
LEAF_FILE_BYTES_MAX: Final = 256 << 20  # of 2.7 million leaves

if TYPE_CHECKING:
    from assay.tracing import Follow

Message = Mapping[str, Any]


class AsyncClient:
    """One account on one coordinator; made by `connect`, usable from any task of that scope."""

    def __init__(
        self,
        identity: Identity,
        host: Host,
        link: CoordinatorLink,
        nursery: trio.Nursery,
        *,
        cache: Path | None,
        receipts: Path | None,
        limits: JobLimits,
        follow: Follow | None = None,
    ) -> None:
        self.public_key = identity.public_key
        self._identity, self._host, self._link, self._nursery = identity, host, link, nursery
        self._catalogue = Catalogue(link, cache)
        self._receipts = ReceiptStore(receipts) if receipts else None
        self._limits, self._follow = limits, follow

    @classmethod
    @asynccontextmanager
    async def connect(
        cls,
        coordinator: str,
        *,
        key_path: Path | str | None = None,
        seed: bytes | None = None,
        cache: Path | None = None,
        receipts: Path | None = None,
        limits: JobLimits = JobLimits(),
        transports: list[Any] | None = None,
        follow: Follow | None = None,
    ) -> AsyncIterator[AsyncClient]:
        """A client of the coordinator at a multiaddress that ends in /p2p/<peer id>.

        The account is the key in `key_path` (made if missing) or of the 32-byte `seed`; with
        neither it is new and lasts as long as the client. `cache` is a folder for model cards,
        `receipts` a file records are appended to; `follow` is called for each job and told its
        effects (tracing.py). Raises AssayError "config_invalid",
        "key_permissions", "key_invalid".
        """
        coordinator_key = coordinator_key_of(coordinator)
        if seed is None:
            seed = load_or_create_key(Path(key_path)) if key_path else secrets.token_bytes(32)
        with single_errors():
            async with open_host(seed, transports=transports) as host, trio.open_nursery() as tasks:
                link = CoordinatorLink(host, coordinator_key, [coordinator])
                kept: dict[str, Any] = {"cache": cache, "receipts": receipts, "limits": limits}
                client = cls(Identity(seed), host, link, tasks, follow=follow, **kept)
                tasks.start_soon(link.run)
                try:
                    yield client
                finally:
                    await link.flush()
                    tasks.cancel_scope.cancel()

    async def models(self) -> tuple[ModelSummary, ...]:
        """What the network serves."""
        return await self._catalogue.summaries()

    async def model(self, name: str | None = None) -> Model:
        """A model by name or hex digest, or the most served; AssayError("model_unknown")."""
        return await self._catalogue.model(name)

    async def account(self) -> Account:
        """This account's balances, in micro-credits."""
        return await self._link.read(Account, GetAccount())

    async def network(self) -> Network:
        """The public state of the network."""
        return await self._link.read(Network, GetNetwork())

    async def leaf_file(self, epoch: int) -> bytes:
        """The leaf file of an epoch, unchecked: its sha256 is on the chain."""
        key = epoch.to_bytes(32)
        return await self._link.document("leaves", key, LEAF_FILE_BYTES_MAX)

    async def rules(self) -> bytes:
        """The rules in force, as the coordinator tells them: an encoded NetworkRules."""
        return await self._link.document("rules", bytes(32), MESSAGE_BYTES_MAX)

    async def credit_bundle(
        self,
        account: bytes | None = None,
        *,
        final: bool = False,
        bytes_max: int = BUNDLE_BYTES_MAX,
    ) -> bytes:
        """The newest proof of an account's credit, as `assay credit verify` reads it; with `final`
        of the newest epoch that can be claimed from."""
        key = self.public_key if account is None else account
        return await self._link.document("claimable" if final else "credit", key, bytes_max)

    async def count_tokens(self, messages: Sequence[Message], *, model: str | None = None) -> int:
        """How many prompt tokens a chat would have."""
        found = await self._catalogue.model(model)
        return len((await found.prompt_of_chat(messages)).tokens)

    async def verdict(self, ticket: bytes) -> JobVerdict:
        """How a ticket of this account's stands. Its statements are not checked yet."""
        return await self._link.read(JobVerdict, GetVerdict(ticket=ticket))

    async def verdict_record(self, ticket: bytes) -> VerdictRecord:
        """All that a ticket's verdict rests on; `verdicts.check_record` checks it."""
        key = ticket + bytes(16)
        document = await self._link.document("verdict", key, VERDICT_BYTES_MAX)
        return decode_as(VerdictRecord, document)

    async def round_draws(self, number: int) -> bytes:
        """One round of the audit lottery, as `assay audit recheck` reads it."""
        return await self._link.document("draws", number.to_bytes(32, "big"), MESSAGE_BYTES_MAX)

    def stream_chat(
        self, messages: Sequence[Message], *, model: str | None = None, **options: Any
    ) -> AnswerStream:
        """The answer to a chat, as it is drawn.

        A message's content is a text, or a list of OpenAI's parts: texts, and pictures as
        `image_part` makes them.
        `options`: see `make_job`; and `stop`, a string or up to 4, before which the text ends.
        Reasoning is told apart from the answer; a JSON schema is of the answer alone.
        """

        async def start() -> Started:
            found = await self._catalogue.model(model)
            asked = await found.prompt_of_chat(messages)
            given = options | {"images": asked.images}
            return self._start(found, asked.tokens, reasoning=True, **given)

        return AnswerStream(start)

    def stream_complete(
        self, prompt: str | Sequence[int], *, model: str | None = None, **options: Any
    ) -> AnswerStream:
        """What the model writes after `prompt`, plain text or token ids. `options`: `make_job`."""

        async def start() -> Started:
            found = await self._catalogue.model(model)
            tokens = await found.tokens_of_text(prompt) if isinstance(prompt, str) else prompt
            return self._start(found, tuple(tokens), **options)

        return AnswerStream(start)

    def draw(self, model: Model, prompt: tuple[int, ...], **options: Any) -> AnswerStream:
        """What `model` writes after the tokens of `prompt`. `options`: see `stream_chat`; and
        `reasoning`: whether the prompt is a chat's, so that reasoning is told apart."""

        async def start() -> Started:
            return self._start(model, prompt, **options)

        return AnswerStream(start)

    async def chat(self, messages: Sequence[Message], **options: Any) -> Completion:
        """A whole answer to a chat. Raises JobFailed, which holds what came before."""
        return await self.stream_chat(messages, **options).whole()

    async def complete(self, prompt: str | Sequence[int], **options: Any) -> Completion:
        """A whole continuation of `prompt`. Raises JobFailed."""
        return await self.stream_complete(prompt, **options).whole()

    async def embed(
        self, texts: Sequence[Text], *, model: str | None = None, **options: Any
    ) -> Embeddings:
        """A vector for each of `texts`, up to TEXTS_MAX texts or lists of the model's own tokens.

        `options`: `nodes` and `verify`, as in `make_job`. Raises EmbeddingsFailed, AssayError as
        `embedding.tokens_of` and `make_jobs` do, "oversized".
        """
        found = await self._catalogue.model(model)
        return await self.embed_tokens(found, await tokens_of(found, texts), **options)

    async def embed_tokens(
        self,
        model: Model,
        texts: Sequence[tuple[int, ...]],
        *,
        keep: Keep = lambda records: None,
        **options: Any,
    ) -> Embeddings:
        """A vector of `model` for each of `texts`, which `embedding.tokens_of` let pass.

        `keep` gets each job's receipts as it ends, also where the call fails or is cancelled.
        """
        if not 0 < len(texts) <= TEXTS_MAX:
            raise AssayError("oversized", f"1 to {TEXTS_MAX} texts can be embedded at a time")

        def start(job: Job) -> JobRun:
            machine = JobMachine(job, self._identity, self._link.public_key, self._limits)
            run = JobRun(machine, self._host, self._link, self._nursery)
            run.start()
            return run

        def keep_all(records: tuple[ReceiptRecord, ...]) -> None:
            self._keep(records)
            keep(records)

        jobs = make_jobs(model, texts, **options)
        key = self._link.public_key
        return await run_jobs(model, jobs, key, start, self._verdict_of, keep_all)

    def _start(
        self,
        model: Model,
        prompt: tuple[int, ...],
        *,
        stop: str | Sequence[str] = (),
        reasoning: bool = False,
        **options: Any,
    ) -> Started:
        stops = StopText((stop,) if isinstance(stop, str) else tuple(stop))
        apart, shape = reasoning, ("response_format", "grammar")
        packed = answer_grammar(*(options.pop(name, None) for name in shape))
        if packed is not None:
            later = model.grammar_after(prompt, packed) if reasoning else None
            apart = later is not None
            options["grammar"] = dict([read_grammar(later or packed)])
        job = make_job(model, prompt, **options)

        def text() -> AnswerText:
            split = model.split_after(prompt) if apart else None
            return AnswerText(model.pieces if apart else model.card.pieces, stops.again(), split)

        kind = QuorumMachine if job.verify == "quorum" else JobMachine
        machine = kind(job, self._identity, self._link.public_key, self._limits)
        run = JobRun(machine, self._host, self._link, self._nursery, self._follow)
        run.start()
        return Started(
            job,
            run,
            self._link.public_key,
            self._keep,
            self._verdict_of,
            text,
        )

    async def _verdict_of(self, segments: tuple[Segment, ...]) -> Verdict:
        """Ask until the audits of all segments are decided, or JobLimits says to stop."""
        watch = VerdictWatch(_now(), segments, self._limits)
        while watch.asking is not None:
            try:
                answer = await self._link.ask(JobVerdict, GetVerdict(ticket=watch.asking))
                wait = watch.told(_now(), answer)
            except AssayError as error:
                wait = watch.refused(_now(), error)
            await trio.sleep(wait / 1e6)
        return watch.verdict

    def _keep(self, receipts: tuple[ReceiptRecord, ...]) -> None:
        if self._receipts is not None and receipts:
            self._receipts.append(receipts)


def _now() -> int:
    return math.ceil(trio.current_time() * 1e6)


def coordinator_key_of(address: str) -> bytes:
    """The 32-byte key in a multiaddress ending in /p2p/<peer id>; AssayError("config_invalid")."""
    from libp2p.peer.id import ID

    try:
        return public_key(ID.from_base58(address.rpartition("/p2p/")[2]))
    except (ValueError, AssayError) as error:
        raise AssayError(
            "config_invalid", f"not a coordinator's address, which ends in /p2p/<id>: {address!r}"
        ) from error
