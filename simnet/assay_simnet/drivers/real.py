"""Separate OS processes on loopback: what a scenario starts, talks to, kills and starts again.

Every process is a command a person could type; its stderr goes to a file of its own. All that was
started is stopped when the network is left, however it is left.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import trio

from assay_coordinator.operator import ask
from assay_network.keystore import load_or_create_key
from assay_protocol.errors import AssayError
from assay_protocol.messages import GetNetwork, Network, NodeStatus
from assay_protocol.signing import Identity

START_SECONDS_MAX: Final = 180.0  # on a machine that is busy with more than this
STOP_SECONDS_MAX: Final = 30.0
POLL_SECONDS: Final = 0.25


class Lines:
    """A child's stdout as JSON objects."""

    def __init__(self, stream: trio.abc.ReceiveStream) -> None:
        self._stream, self._buffer = stream, b""

    async def next(self) -> dict[str, Any]:
        """The next object; raises AssayError("peer_gone") when the child closed its stdout."""
        while b"\n" not in self._buffer:
            chunk = await self._stream.receive_some(65_536)
            if not chunk:
                raise AssayError("peer_gone", "the process ended")
            self._buffer += chunk
        line, self._buffer = self._buffer.split(b"\n", 1)
        value: dict[str, Any] = json.loads(line)
        return value


@dataclass
class RealNetwork:
    """The processes of one scenario, by name, under one folder."""

    folder: Path
    address: str = ""
    rpc: str = ""
    pages: str = ""  # the coordinator's, where it serves some
    gateway: str = ""
    apart: bool = False  # in process groups of their own: a terminal's Ctrl-C is ours alone
    contracts: dict[str, str] = field(default_factory=dict)  # addresses by name
    processes: dict[str, trio.Process] = field(default_factory=dict)
    killed: list[trio.Process] = field(default_factory=list)

    async def start_coordinator(
        self, policy: str, card: Path, faucet: int, more: Sequence[str] = ()
    ) -> None:
        """Start it with `more` words, and wait until it is ready; this scenario is its operator."""
        data = self.folder / "coordinator"
        data.mkdir(exist_ok=True)
        (data / "policy.toml").write_text(policy)
        operator = Identity(self.operator_seed()).public_key.hex()
        listen = self.address.rpartition("/p2p/")[0] or "/ip4/127.0.0.1/tcp/0"
        command = [sys.executable, "-m", "assay_coordinator", "start", "--data-dir", str(data)]
        command += ["--listen", listen, "--rpc", "127.0.0.1:0", "--catalogue", str(card)]
        command += ["--policy", str(data / "policy.toml"), "--operator", operator]
        command += ["--faucet", str(faucet), *more]
        process = await self.spawn("coordinator", command)
        assert process.stdout is not None
        with trio.fail_after(START_SECONDS_MAX):
            ready = await Lines(process.stdout).next()
        self.address, self.rpc = ready["address"], ready["rpc"]
        self.contracts, self.pages = ready["contracts"], ready["http"] or ""

    async def start_gateway(self, *words: str) -> str:
        """`assay gateway` with `words`, on any free port if they name none; its URL."""
        command = [sys.executable, "-m", "assay", "gateway", "--coordinator", self.address]
        command += ["--listen", "127.0.0.1:0", "--data-dir", str(self.folder / "gateway")]
        command += ["--key", str(self.folder / "gateway.key"), *words]
        process = await self.spawn("gateway", command)
        assert process.stdout is not None
        with trio.fail_after(START_SECONDS_MAX):
            try:
                self.gateway = (await Lines(process.stdout).next())["ready"]
            except AssayError:
                await process.wait()
                self.check_alive("gateway")
                raise
        return self.gateway

    async def start_node(self, name: str, card: Path, model: Path, **flags: object) -> None:
        """An honest `node start`. What it says is not read: a pipe would fill, and stop it."""
        given = {**self._node_flags(name, card, model), **flags}
        words = [word for key, value in given.items() for word in (_flag(key), str(value))]
        command = [sys.executable, "-m", "assay_node", "start", *words]
        await self.spawn(name, command, stdout=subprocess.DEVNULL)

    async def start_cheat(
        self, name: str, card: Path, model: Path, cheap: Path, **flags: object
    ) -> None:
        """A node that loads `cheap` and says it is `model`."""
        given = {**self._node_flags(name, card, model), **flags}
        words = [f"{k}={v}" for k, v in given.items()]
        module = "assay_simnet.behaviours.cheaper_model"
        await self.spawn(name, [sys.executable, "-m", module, str(cheap), *words])

    async def spawn(self, name: str, command: Sequence[str], **options: Any) -> trio.Process:
        """Start `command` as the process `name`."""
        if self.apart:
            options["process_group"] = 0
        with (self.folder / f"{name}.log").open("ab") as errors:
            process = await trio.lowlevel.open_process(
                command, stdout=options.pop("stdout", subprocess.PIPE), stderr=errors, **options
            )
        self.processes[name] = process
        return process

    def kill(self, name: str) -> None:
        """SIGKILL, as a power cut would."""
        process = self.processes.pop(name)
        process.kill()
        self.killed.append(process)

    async def kill_and_reap(self, name: str) -> None:
        """`kill`, and wait until the process is gone: its ports and files are free."""
        self.kill(name)
        await _reap(self.killed.pop())

    async def end(self, name: str) -> None:
        """SIGTERM, and wait as long as it takes; nothing if it does not run."""
        process = self.processes.get(name)
        if process is None:
            return
        if process.poll() is None:
            process.terminate()
        await process.wait()

    def operator_seed(self) -> bytes:
        return load_or_create_key(self.folder / "operator.key")

    def key_of(self, name: str) -> bytes:
        """A node's public key."""
        return Identity(load_or_create_key(self.folder / name / "node.key")).public_key

    async def status(self) -> Network:
        """The public state."""
        return await ask(self.operator_seed(), self.address, GetNetwork(), Network)

    async def node(self, name: str) -> NodeStatus | None:
        """The public state of one node."""
        key = self.key_of(name)
        return next((node for node in (await self.status()).nodes if node.node == key), None)

    async def wait_present(self, names: Sequence[str], seconds: float = START_SECONDS_MAX) -> None:
        """Until every named node is registered and not away; raises trio.TooSlowError."""
        with trio.fail_after(seconds):
            for name in names:
                while (node := await self.node(name)) is None or node.state == "away":
                    self.check_alive(name)
                    await trio.sleep(POLL_SECONDS)

    def check_alive(self, name: str) -> None:
        """Raise AssayError if the process ended by itself, with the end of its log."""
        if self.processes[name].poll() is not None:
            tail = (self.folder / f"{name}.log").read_text()[-2_000:]
            raise AssayError("peer_gone", f"{name} ended:\n{tail}")

    async def stop(self) -> None:
        """SIGTERM to all, SIGKILL to what does not follow."""
        for process in self.processes.values():
            if process.poll() is None:
                process.terminate()
        with trio.move_on_after(STOP_SECONDS_MAX):
            for process in self.processes.values():
                await process.wait()
        for process in self.processes.values():
            if process.poll() is None:
                process.kill()
        for process in (*self.processes.values(), *self.killed):
            await _reap(process)

    def _node_flags(self, name: str, card: Path, model: Path) -> dict[str, object]:
        return {
            "coordinator": self.address,
            "data_dir": self.folder / name,
            "listen": "/ip4/127.0.0.1/tcp/0",
            "card": card,
            "model": model,
            "threads": 1,  # several nodes share this machine
        }


@asynccontextmanager
async def real_network(folder: Path, *, apart: bool = False) -> AsyncIterator[RealNetwork]:
    """An empty network; its processes end with the scope."""
    network = RealNetwork(folder, apart=apart)
    try:
        yield network
    finally:
        with trio.CancelScope(shield=True):
            await network.stop()


async def _reap(process: trio.Process) -> None:
    """Wait for its end and close our ends of its pipes."""
    await process.wait()
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            await pipe.aclose()


def _flag(key: str) -> str:
    return "--" + key.replace("_", "-")
