"""The blocking client: the asynchronous one in a thread of its own, call by call.

    with Client(coordinator=..., key_path=...) as client:
        print(client.chat([{"role": "user", "content": "Hello"}]).text)

Safe under Ctrl-C: an interrupted call is cancelled over there, and leaving a stream cancels its job
and still hands its receipt in. May be used from several threads.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from types import TracebackType
from typing import Any, Final, TypeVar

import trio

from assay.answer_stream import AnswerEvent, AnswerStream
from assay.answers import Completion
from assay.direct import AsyncClient
from assay.embedding import Embeddings, Text
from assay_protocol.errors import AssayError
from assay_protocol.messages import (
    Account,
    JobVerdict,
    ModelSummary,
    Network,
    VerdictRecord,
)

CLOSE_SECONDS: Final = 15.0
_T = TypeVar("_T")


class Client:
    """Takes what `AsyncClient.connect` takes; use as a context, or call `close`."""

    def __init__(self, coordinator: str, **options: Any) -> None:
        self._opened: Future[tuple[AsyncClient, trio.Nursery, trio.lowlevel.TrioToken]] = Future()
        self._thread = threading.Thread(
            target=self._run, args=(coordinator, options), name="assay-client", daemon=True
        )
        self._thread.start()
        self._async, self._nursery, self._token = self._opened.result()

    def models(self) -> tuple[ModelSummary, ...]:
        """What the network serves."""
        return self._call(self._async.models)

    def account(self) -> Account:
        """This account's balances, in micro-credits."""
        return self._call(self._async.account)

    def network(self) -> Network:
        """The public state of the network."""
        return self._call(self._async.network)

    def leaf_file(self, epoch: int) -> bytes:
        """The leaf file of an epoch, unchecked: its sha256 is on the chain."""
        return self._call(lambda: self._async.leaf_file(epoch))

    def rules(self) -> bytes:
        """The rules in force, as the coordinator tells them: an encoded NetworkRules."""
        return self._call(self._async.rules)

    def credit_bundle(self, account: bytes | None = None, *, final: bool = False) -> bytes:
        """The newest proof of an account's credit, or the newest that can be claimed from."""
        return self._call(lambda: self._async.credit_bundle(account, final=final))

    def verdict(self, ticket: bytes) -> JobVerdict:
        """How a ticket of this account's stands. Its statements are not checked yet."""
        return self._call(lambda: self._async.verdict(ticket))

    def verdict_record(self, ticket: bytes) -> VerdictRecord:
        """All that a ticket's verdict rests on; `verdicts.check_record` checks it."""
        return self._call(lambda: self._async.verdict_record(ticket))

    def round_draws(self, number: int) -> bytes:
        """One round of the audit lottery."""
        return self._call(lambda: self._async.round_draws(number))

    def chat(self, messages: Sequence[Mapping[str, Any]], **options: Any) -> Completion:
        """A whole answer to a chat. Raises JobFailed, which holds what came before."""
        return self._call(lambda: self._async.chat(messages, **options))

    def complete(self, prompt: str | Sequence[int], **options: Any) -> Completion:
        """A whole continuation of `prompt`. Raises JobFailed."""
        return self._call(lambda: self._async.complete(prompt, **options))

    def embed(self, texts: Sequence[Text], **options: Any) -> Embeddings:
        """A vector for each of `texts`, and the receipts. Raises EmbeddingsFailed."""
        return self._call(lambda: self._async.embed(texts, **options))

    def stream_chat(self, messages: Sequence[Mapping[str, Any]], **options: Any) -> BlockingStream:
        """The answer to a chat, as it is drawn."""
        return BlockingStream(self._async.stream_chat(messages, **options), self._call)

    def stream_complete(self, prompt: str | Sequence[int], **options: Any) -> BlockingStream:
        """What the model writes after `prompt`, as it is drawn."""
        return BlockingStream(self._async.stream_complete(prompt, **options), self._call)

    def close(self) -> None:
        """Hand in what is left and end. May be called twice."""
        with contextlib.suppress(AssayError):  # closed already
            self._soon(self._nursery.cancel_scope.cancel)
        self._thread.join(CLOSE_SECONDS)

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *raised: object) -> None:
        self.close()

    def _run(self, coordinator: str, options: Mapping[str, Any]) -> None:
        async def main() -> None:
            async with AsyncClient.connect(coordinator, **options) as client:
                async with trio.open_nursery() as nursery:
                    token = trio.lowlevel.current_trio_token()
                    self._opened.set_result((client, nursery, token))
                    await trio.sleep_forever()

        try:
            trio.run(main)
        except BaseException as error:
            if self._opened.done():
                raise
            self._opened.set_exception(error)

    def _call(self, call: Callable[[], Awaitable[_T]]) -> _T:
        """Run `call` over there and wait; an interrupt here cancels it there."""
        future: Future[_T] = Future()
        scope = trio.CancelScope()

        async def run() -> None:
            try:
                with scope:
                    future.set_result(await call())
            except Exception as error:
                future.set_exception(error)
            finally:
                if not future.done():
                    future.set_exception(AssayError("cancelled", "the client was closed"))

        def begin() -> None:
            try:
                self._nursery.start_soon(run)
            except RuntimeError:  # it closed between the call and now
                future.set_exception(AssayError("cancelled", "the client was closed"))

        self._soon(begin)
        try:
            return future.result()
        except BaseException:
            if not future.done():
                self._soon(scope.cancel)
            raise

    def _soon(self, function: Callable[..., object], *args: object) -> None:
        try:
            self._token.run_sync_soon(function, *args)
        except trio.RunFinishedError:
            raise AssayError("cancelled", "the client is closed") from None


class BlockingStream:
    """An AnswerStream for blocking code: a context, and an iterator of what that one gives."""

    def __init__(
        self, stream: AnswerStream, call: Callable[[Callable[[], Awaitable[Any]]], Any]
    ) -> None:
        self._stream, self._call = stream, call

    @property
    def result(self) -> Completion:
        """The answer, once the stream was read to its end or left."""
        return self._stream.result

    def __iter__(self) -> Iterator[AnswerEvent]:
        events = aiter(self._stream)
        while True:
            event = self._call(lambda: anext(events, None))
            if event is None:
                return
            yield event

    def __enter__(self) -> BlockingStream:
        self._call(self._stream.__aenter__)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._call(self._stream.cancel)
