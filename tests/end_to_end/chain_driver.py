"""A coordinator without a network, for processes that are killed: core, tables, chain and outbox.

`python -m end_to_end.chain_driver` is a fork server: it imports everything once and then forks a
child for each line of JSON it reads (`Life`), tells its process id, and its exit code at the end;
the child tells when it is ready.
What the child acknowledges is appended to a journal that survives it.
"""

from __future__ import annotations

import json
import logging
import os
import resource
import sys
import tempfile
import traceback
from collections.abc import Awaitable, Callable, MutableMapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import trio

from assay_contracts.adapters import outbox as outbox_module
from assay_contracts.adapters.embedded_chain import EmbeddedChain
from assay_contracts.adapters.outbox_core import Patience
from assay_contracts.adapters.rpc_chain import RpcChain
from assay_contracts.adapters.wallet import Wallet
from assay_contracts.deploy.ledger import CreditLedgerClient, Deployment
from assay_contracts.local.chain import LocalChain
from assay_contracts.local.genesis import Genesis, poster_key
from assay_contracts.local.sealed import SealGuard
from assay_coordinator import runtime as runtime_module
from assay_coordinator.adapters.anchor import Anchor
from assay_coordinator.adapters.store import Store
from assay_coordinator.app import make_runtime
from assay_coordinator.core.coordinator import Listed
from assay_coordinator.core.policy import Policy
from assay_coordinator.core.records import EpochRow, JobRow, RoundRow
from assay_coordinator.runtime import Runtime
from assay_network.logs import configure_logs
from assay_protocol import messages as m
from assay_protocol.codec import decode, encode
from assay_protocol.errors import AssayError, RemoteError
from assay_protocol.signing import Identity
from assay_protocol.streams import remote_error
from end_to_end.load_driver import Journal, Load, database

COORDINATOR, OPERATOR = Identity(b"\x01" * 32), Identity(b"\x02" * 32)
MODEL = b"\x03" * 32
LISTED = Listed(
    name="pseudo", model=MODEL, card=b"\x04" * 32, context=8_192, price_in=1_000, price_out=2_000
)
POSTER = Wallet(poster_key(COORDINATOR.seed))
CONFIRMATIONS = 2
ASK_SECONDS = 3.0
FINISH_SECONDS = 60.0
SECOND = 1_000_000
POLICY = Policy(
    probation_audits=0,
    audit_alone_us=200_000,
    holdback_us=0,
    holdback_jobs=2,
    open_tickets_max=100_000,
    queue_per_slot=1_000,
    round_us=100_000,
    round_receipts=16,
    epoch_us=3_600 * SECOND,
    faucet=1 << 40,
    operators=frozenset({OPERATOR.public_key}),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Life:
    """What one child does. `mode`: sealed, plain (a local chain without seals) or rpc (`url`,
    `ledger`). `finish`: no load, everything is posted, then it ends. `room`: bytes that files may
    still grow by, for `room_seconds`; 0: as they like."""

    folder: str
    mode: str
    seed: int
    turn: int
    url: str = ""
    ledger: str = ""
    finish: bool = False
    room: int = 0
    room_seconds: float = 0.0


class Seat:
    """A peer's session with a coordinator in the same process."""

    def __init__(self, runtime: Runtime, identity: Identity) -> None:
        self.identity, self.peer = identity, identity.public_key
        self._next, self._answers = 0, dict[int, Any]()
        self._waiting: dict[int, trio.Event] = {}
        self._on_frame = runtime.opened(self)  # type: ignore[arg-type]  # what is used of it

    async def run(self, on_up: Callable[[], Awaitable[None]] | None = None) -> None:
        while on_up is not None:
            with suppress(AssayError):
                await on_up()
            await trio.sleep(0.02)
        await trio.sleep_forever()

    async def ask(self, question: object) -> Any:
        self._next += 1
        number, answered = self._next, trio.Event()
        self._waiting[number] = answered
        self._on_frame(self, number, encode(question))  # type: ignore[arg-type]
        with trio.move_on_after(ASK_SECONDS):
            await answered.wait()
        if number not in self._answers:
            raise AssayError("timeout")
        answer = self._answers.pop(number)
        if isinstance(answer, m.Error):
            raise remote_error(answer)
        return answer

    async def insist(self, question: object) -> Any:
        while True:
            try:
                return await self.ask(question)
            except RemoteError as error:
                if error.code not in ("no_capacity", "not_registered", "storage_failed"):
                    raise
            except AssayError:
                pass
            await trio.sleep(0.02)

    def reply(self, request: int, body: bytes) -> None:
        self._answers[request] = decode(body)
        self._waiting.pop(request).set()

    def notify(self, body: bytes) -> None:
        """Nodes take no audits."""

    def end(self, reason: Exception) -> None:
        """There is no connection to close."""


class Lines(dict[Any, Any]):
    """A part of the journal whose entries are appended to a file as they are made."""

    def __init__(self, name: str, file: int) -> None:
        super().__init__()
        self._name, self._file = name, file

    def __setitem__(self, key: Any, value: Any) -> None:
        super().__setitem__(key, value)
        line = {"part": self._name, "key": _plain(key), "value": _plain(value)}
        os.write(self._file, json.dumps(line).encode() + b"\n")


def filed_journal(folder: Path) -> Journal:
    file = os.open(folder / "journal", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    parts = ("tickets", "charged", "granted", "grants_tried", "epochs")
    return Journal(**{name: Lines(name, file) for name in parts})


def read_journal(folder: Path) -> Journal:
    """What all lives so far acknowledged; a line cut off by a kill is none."""
    journal = Journal()
    path = folder / "journal"
    text = path.read_bytes() if path.exists() else b""
    for line in text.split(b"\n")[:-1]:
        entry = json.loads(line)
        part: MutableMapping[Any, Any] = getattr(journal, entry["part"])
        if entry["part"] == "epochs":
            root, total, accounts = entry["value"]
            closed = m.EpochClosed(
                epoch=entry["key"], root=bytes.fromhex(root), total=total, accounts=accounts
            )
            part[entry["key"]] = closed
        else:
            value = entry["value"]
            part[bytes.fromhex(entry["key"])] = (
                bytes.fromhex(value) if isinstance(value, str) else value
            )
    return journal


def _plain(value: Any) -> Any:
    if isinstance(value, m.EpochClosed):
        return [value.root.hex(), value.total, value.accounts]
    return value.hex() if isinstance(value, bytes) else value


# ---- one life ----


def anchor_of(life: Life, store: Store) -> tuple[Anchor, LocalChain | None]:
    """The chain as `coordinator start` opens it; `plain` leaves the seals out."""
    quick = Patience(retry_us=SECOND // 20, bump_us=SECOND)
    if life.mode == "rpc":
        chain = RpcChain(life.url)
        deployment = Deployment(0, bytes.fromhex(life.ledger), POSTER.address)
        waiting = Patience(
            confirmations=CONFIRMATIONS, has_pool=True, retry_us=SECOND // 20, bump_us=SECOND
        )
        return Anchor(chain, deployment, POSTER, store.engine, waiting), None
    sealed = life.mode == "sealed"
    local = LocalChain.open(
        Path(life.folder) / "chain.db",
        genesis=Genesis(POSTER.address),
        signer=COORDINATOR if sealed else None,
        guard=SealGuard(store.engine) if sealed else None,
    )
    deployment = CreditLedgerClient(local, poster_key(COORDINATOR.seed)).deploy()
    return Anchor(EmbeddedChain(local), deployment, POSTER, store.engine, quick), local


async def live(life: Life, told: int) -> None:
    """Until it is killed, or, to `finish`, until all is posted."""
    folder = Path(life.folder)
    store = Store(database(folder))
    anchor, local = anchor_of(life, store)
    runtime = make_runtime(
        POLICY, COORDINATOR, store, anchor, {}, {MODEL: LISTED}, folder / "epochs"
    )
    async with trio.open_nursery() as nursery:
        started = trio.Event()
        nursery.start_soon(runtime.run, started)
        nursery.start_soon(anchor.run)
        await started.wait()
        os.write(told, b'{"ready": true}\n')
        if life.finish:
            with trio.fail_after(FINISH_SECONDS):
                await _all_posted(store, anchor)
        else:
            await _load(life, runtime, nursery)
        nursery.cancel_scope.cancel()
    if local is not None:
        local.close()
    store.close()


async def _load(life: Life, runtime: Runtime, nursery: trio.Nursery) -> None:
    load = Load(lambda who: Seat(runtime, who), OPERATOR, MODEL, life.seed)
    load.turn(life.turn)
    load.epoch_seconds, load.workers = 0.06, 3
    load.journal = filed_journal(Path(life.folder))
    if life.room:
        nursery.start_soon(_little_room, life)
    await load.run()


async def _little_room(life: Life) -> None:
    """A disk that is full for a while: no file can grow beyond its size and a little."""
    sizes = [os.stat(entry).st_size for entry in os.scandir(life.folder) if ".db" in entry.name]
    hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
    resource.setrlimit(resource.RLIMIT_FSIZE, (max(sizes) + life.room, hard))
    await trio.sleep(life.room_seconds)
    resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))


async def _all_posted(store: Store, anchor: Anchor) -> None:
    """Every closed epoch and round; a running round is closed and drawn, too."""
    while True:
        await trio.sleep(0.02)
        try:
            await anchor.outbox.pump()  # a pass sees what an older copy of the chain has lost
        except AssayError:
            continue
        epochs = {row.state for row in store.rows(EpochRow)}
        rounds = [row.state for row in store.rows(RoundRow)]
        running = max((row.round for row in store.rows(JobRow)), default=0)
        done = epochs <= {"posted"} and rounds == ["drawn"] * running
        if done and not anchor.outbox.pending:
            return


def _child(life: Life) -> None:
    log = os.open(Path(life.folder) / "log", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    told = os.dup(1)
    os.dup2(log, 1)
    os.dup2(log, 2)
    trio.run(live, life, told)


def serve() -> None:
    """Forks a child a line; answers {"pid"} at once and {"pid", "code"} when it is gone."""
    outbox_module.POLL_SECONDS = outbox_module.RETRY_SECONDS = 0.03  # type: ignore[misc]
    runtime_module.POST_RETRY_SECONDS = 0.05  # type: ignore[misc]
    runtime_module.RESTORE_RETRY_SECONDS = 0.05  # type: ignore[misc]
    runtime_module.TICK_SECONDS = 0.05  # type: ignore[misc]
    configure_logs(level=logging.WARNING)
    with tempfile.TemporaryDirectory() as warm:
        Store(database(Path(warm))).close()
    for line in sys.stdin:
        life = Life(**json.loads(line))
        pid = os.fork()
        if pid == 0:
            try:
                _child(life)
                os._exit(0)
            except BaseException:
                traceback.print_exc()
            finally:
                sys.stderr.flush()
                os._exit(1)
        print(json.dumps({"pid": pid}), flush=True)
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        print(json.dumps({"pid": pid, "code": code}), flush=True)


if __name__ == "__main__":
    serve()
