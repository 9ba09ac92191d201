"""`node doctor` on machines with one planted fault each: it names the fault and its mend.

Every fault is real: key files with a wrong mode, sockets that are listened on, coordinators on
loopback that speak real libp2p, files cut short, an engine process that llama.cpp kills. Only a
blocked port has no firewall here: the node announces a port that nobody answers at.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import re
import shutil
import socket
import struct
import sys
import threading
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import pytest
import trio

from assay_network import reach
from assay_network.host import Host, open_host
from assay_network.keystore import load_or_create_key
from assay_network.reach import ReachServer
from assay_network.session import Session, serve_sessions
from assay_node.cli import main
from assay_node.config import Settings
from assay_node.doctor import device_in_use
from assay_node.faults import EXIT_CODES, FAULTS, DoctorFault, mend_of
from assay_node.findings import Findings
from assay_node.running import only_node
from assay_node.start_checks import CLOCK_SKEW_SECONDS_MAX
from assay_protocol.cards import encode_card
from assay_protocol.codec import decode, encode
from assay_protocol.errors import CODES, AssayError
from assay_protocol.limits import MODEL_BYTES_MAX
from assay_protocol.links import REACH, SESSION
from assay_protocol.messages import Error, GetPart, Part
from assay_protocol.signing import Identity
from card_cases import small_card
from gguf_cases import VALUES, gguf, text
from node.test_hardware import FakeNvml

COORDINATOR = Identity(b"\x03" * 32)
LOOPBACK = "/ip4/127.0.0.1/tcp/0"
CAPSYS = pytest.CaptureFixture[str]
PAGE = Path(__file__).resolve().parents[2] / "docs" / "run-a-node.md"


CATALOGUE: dict[bytes, bytes] = {}  # of every coordinator here: cards by model


def give_card(session: Session, request: int, body: bytes) -> None:
    """Answer the one thing that a doctor asks on a session."""
    asked = decode(body)
    assert isinstance(asked, GetPart)
    card = CATALOGUE.get(asked.key)
    answer = Part(total=len(card), data=card) if card else Error(code="model_unknown", detail="")
    session.reply(request, encode(answer))


@asynccontextmanager
async def coordinator(
    *, session: str = SESSION, offers_reach: bool = True, skew_seconds: int = 0
) -> AsyncIterator[Host]:
    """What a doctor asks a coordinator, on real sockets."""
    async with open_host(COORDINATOR.seed, [LOOPBACK]) as host, open_host(b"\x04" * 32) as dialer:
        serve_sessions(host, session, lambda _: give_card, lambda _: None)
        if offers_reach:

            def clock() -> int:
                return time.time_ns() // 1000 + skew_seconds * 1_000_000

            host.serve(REACH, ReachServer(host, dialer, clock).handle)
        yield host


@contextmanager
def running_coordinator(**options: Any) -> Iterator[str]:
    """The same in a thread of its own; its address."""
    ready, addresses, done = threading.Event(), [], trio.Event()
    tokens: list[trio.lowlevel.TrioToken] = []

    async def run() -> None:
        async with coordinator(**options) as host:
            addresses.append(host.addresses[0])
            tokens.append(trio.lowlevel.current_trio_token())
            ready.set()
            await done.wait()

    thread = threading.Thread(target=trio.run, args=(run,))
    thread.start()
    try:
        assert ready.wait(20)
        yield addresses[0]
    finally:
        tokens[0].run_sync_soon(done.set)
        thread.join()


def doctor(capsys: CAPSYS, directory: Path, *argv: str) -> tuple[int, list[dict[str, str]]]:
    """Exit code and findings of a scripted node, unless `argv` says otherwise."""
    fixed = ["doctor", "--json", "--data-dir", str(directory)]
    given = [*fixed, *argv]
    for flag, value in (("--listen", LOOPBACK), ("--engine", "scripted")):
        given += [] if flag in argv else [flag, value]
    code = main(given)
    said = json.loads(capsys.readouterr().out)
    assert said["exit_code"] == code
    assert said["ok"] == (code == 0)
    return code, said["findings"]


def the_fault(findings: list[dict[str, str]]) -> dict[str, str]:
    (fault,) = [one for one in findings if one["state"] == "fault"]
    return fault


def found(capsys: CAPSYS, directory: Path, *argv: str) -> dict[str, str]:
    """The one fault, after its exit code was checked."""
    code, findings = doctor(capsys, directory, *argv)
    fault = the_fault(findings)
    assert code == EXIT_CODES[fault["check"]]
    return fault


@pytest.fixture(autouse=True)
def one_question_after_the_other(monkeypatch: pytest.MonkeyPatch) -> None:
    """All these doctors ask from one address."""
    monkeypatch.setattr(reach, "PAUSE_SECONDS", 0.0)


@pytest.fixture(scope="module")
def well() -> Iterator[str]:
    with running_coordinator() as address:
        yield address


def with_model(directory: Path, data: bytes | None = None, **changes: Any) -> list[str]:
    """Flags for a model of llama's: its file and the card of it."""
    whole = gguf()
    fields = {"digest": hashlib.sha256(whole).digest(), "size_bytes": len(whole)}
    (directory / "m.gguf").write_bytes(whole if data is None else data)
    card = small_card(**(fields | changes))
    CATALOGUE[card.model] = encode_card(card)
    (directory / "m.card").write_bytes(CATALOGUE[card.model])
    named = {"--engine": "llama", "--card": directory / "m.card", "--model": directory / "m.gguf"}
    return [str(word) for pair in named.items() for word in pair]


def test_a_well_machine_has_no_fault(tmp_path: Path, capsys: CAPSYS, well: str) -> None:
    code, findings = doctor(capsys, tmp_path, "--coordinator", well)
    assert code == 0
    states = {one["check"]: one["state"] for one in findings}
    checks = ["key", "disk", "model", "engine", "port", "coordinator", "protocol", "clock", "reach"]
    checks += ["limits"]
    assert states == dict.fromkeys(checks, "ok") | {"catalogue": "skipped"}
    assert not (tmp_path / "node.key").exists(), "the doctor makes nothing"


# The ten planted faults.


def test_1_a_key_that_others_can_read(tmp_path: Path, capsys: CAPSYS, well: str) -> None:
    key = tmp_path / "node.key"
    load_or_create_key(key)
    key.chmod(0o644)
    fault = found(capsys, tmp_path, "--coordinator", well)
    assert (fault["check"], fault["code"]) == ("key", "key_permissions")
    assert fault["mend"] == f"chmod 600 {key}"
    os.chmod(key, 0o600)  # the mend
    assert doctor(capsys, tmp_path, "--coordinator", well)[0] == 0


def test_2_a_port_that_another_process_has(tmp_path: Path, capsys: CAPSYS, well: str) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        argv = ["--listen", f"/ip4/127.0.0.1/tcp/{port}", "--coordinator", well]
        fault = found(capsys, tmp_path, *argv)
    assert (fault["check"], fault["code"]) == ("port", "port_in_use")
    assert f"ss -ltnp 'sport = :{port}'" in fault["mend"]


def test_3_no_coordinator(tmp_path: Path, capsys: CAPSYS) -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        port = nobody.getsockname()[1]
        where = f"{COORDINATOR.public_key.hex()}@/ip4/127.0.0.1/tcp/{port}"
        fault = found(capsys, tmp_path, "--coordinator", where)
    assert (fault["check"], fault["code"]) == ("coordinator", "no_coordinator")
    assert f"/tcp/{port}" in fault["detail"]
    assert "compare coordinator" in fault["mend"]


@pytest.mark.parametrize("sign", [1, -1])
def test_4_a_wrong_clock(tmp_path: Path, capsys: CAPSYS, sign: int) -> None:
    with running_coordinator(skew_seconds=sign * (CLOCK_SKEW_SECONDS_MAX + 60)) as address:
        fault = found(capsys, tmp_path, "--coordinator", address)
    assert (fault["check"], fault["code"]) == ("clock", "clock_skew")
    assert ("behind" if sign > 0 else "ahead of") in fault["detail"]
    assert fault["mend"] == "timedatectl set-ntp true"


def test_5_a_model_file_of_another_hash(tmp_path: Path, capsys: CAPSYS, well: str) -> None:
    cut = gguf()[:-100]
    fault = found(capsys, tmp_path, "--coordinator", well, *with_model(tmp_path, cut))
    assert (fault["check"], fault["code"]) == ("model", "model_corrupt")
    assert fault["mend"] == f"rm {tmp_path / 'm.gguf'} && node models pull {tmp_path / 'm.card'}"


def test_5b_a_file_that_is_cut_off_and_carded_so(tmp_path: Path, capsys: CAPSYS, well: str) -> None:
    cut = gguf()[:-100]
    fields = {"digest": hashlib.sha256(cut).digest(), "size_bytes": len(cut)}
    fault = found(capsys, tmp_path, "--coordinator", well, *with_model(tmp_path, cut, **fields))
    assert (fault["check"], fault["code"]) == ("model", "gguf_invalid")


def test_6_a_disk_without_room_for_the_model(tmp_path: Path, capsys: CAPSYS, well: str) -> None:
    """No disk is faked: the card is of a model larger than what is free."""
    card = tmp_path / "huge.card"
    huge = small_card(size_bytes=MODEL_BYTES_MAX, digest=b"h" * 32)
    CATALOGUE[huge.model] = encode_card(huge)
    card.write_bytes(CATALOGUE[huge.model])
    assert shutil.disk_usage(tmp_path).free < MODEL_BYTES_MAX
    argv = ["--engine", "llama", "--card", str(card), "--coordinator", well]
    fault = found(capsys, tmp_path, *argv)
    assert (fault["check"], fault["code"]) == ("disk", "disk_full")
    assert fault["mend"].startswith(f"free {(MODEL_BYTES_MAX >> 20) + 256} MiB at {tmp_path}")


EPSILON = text("llama.attention.layer_norm_rms_epsilon") + struct.pack("<If", 6, 1e-5)


@pytest.mark.skipif(importlib.util.find_spec("llama_cpp") is None, reason="needs llama.cpp")
@pytest.mark.parametrize("dies", [False, True])
def test_7_an_engine_that_refuses_the_model_or_dies_of_it(
    dies: bool, tmp_path: Path, capsys: CAPSYS, well: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Files our reader takes: one lacks what llama.cpp wants, at the other it calls abort()."""
    monkeypatch.setenv("ASSAY_CACHE", str(tmp_path / "cache"))  # trials of it are kept
    layers: dict[str, str | int] = {"llama.block_count": 600} if dies else {}  # it takes 512
    file = gguf(VALUES | layers, extra=(EPSILON,) if dies else ())
    fields = {"digest": hashlib.sha256(file).digest(), "size_bytes": len(file)}
    argv = with_model(tmp_path, file, **fields)
    fault = found(capsys, tmp_path, "--coordinator", well, *argv)
    assert (fault["check"], fault["code"]) == ("engine", "engine_failed")
    assert ("died" in fault["detail"] or "ended" in fault["detail"]) == dies, fault["detail"]
    assert fault["mend"].startswith(f"node selfcheck --model {tmp_path / 'm.gguf'}")


@pytest.mark.parametrize(
    ("profile", "used", "fault"),
    [("fast", "cpu", True), ("fast", "gpu", False), ("exact", "cpu", False)],
)
def test_7b_a_gpu_that_the_library_cannot_use(
    profile: str, used: str, fault: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There is no GPU here: NVML is test_hardware.py's fake, and so is what the engine says."""
    monkeypatch.setitem(sys.modules, "pynvml", FakeNvml(names=("NVIDIA L4",)))
    settings = Settings(profile=profile, data_dir=str(tmp_path))
    if fault:
        with pytest.raises(DoctorFault, match="NVIDIA L4 is there") as caught:
            device_in_use(settings, used)
        assert caught.value.code == "gpu_unused"
    else:
        assert device_in_use(settings, used).startswith(used)


def test_8_a_model_that_memory_has_no_room_for(tmp_path: Path, capsys: CAPSYS, well: str) -> None:
    """Held against what this machine has free: 4,096 slots of a model of very many layers."""
    values = {
        "general.architecture": "llama",
        "llama.context_length": 1 << 20,
        "llama.block_count": 4_096,
        "llama.embedding_length": 1 << 16,
        "llama.attention.head_count": 64,
    }
    wide = gguf(values)
    fields = {"digest": hashlib.sha256(wide).digest(), "size_bytes": len(wide)}
    argv = [*with_model(tmp_path, wide, **fields), "--slots", "4096", "--fit", "refuse"]
    fault = found(capsys, tmp_path, "--coordinator", well, *argv)
    assert (fault["check"], fault["code"]) == ("memory", "model_too_large")
    assert "MiB may be used" in fault["detail"]
    assert fault["mend"].startswith("set slots and context")


def test_9_a_port_the_world_cannot_reach(tmp_path: Path, capsys: CAPSYS, well: str) -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        port = nobody.getsockname()[1]
        argv = ["--announce", f"/ip4/127.0.0.1/tcp/{port}", "--coordinator", well]
        fault = found(capsys, tmp_path, *argv)
    assert (fault["check"], fault["code"]) == ("reach", "port_blocked")
    assert fault["mend"] == (
        f"open TCP {port} in firewall and router, then set announce to /ip4/127.0.0.1/tcp/{port}"
    )


def test_10_a_coordinator_of_an_old_protocol(tmp_path: Path, capsys: CAPSYS) -> None:
    with running_coordinator(session="/assay/session/0") as address:
        fault = found(capsys, tmp_path, "--coordinator", address)
    assert (fault["check"], fault["code"]) == ("protocol", "old_protocol")
    assert "pip install -U assay-network" in fault["mend"]


def test_11_a_model_the_coordinator_does_not_know(
    tmp_path: Path, capsys: CAPSYS, well: str
) -> None:
    argv = with_model(tmp_path)
    CATALOGUE.clear()
    code, findings = doctor(capsys, tmp_path, "--quick", "--coordinator", well, *argv)
    fault = the_fault(findings)
    assert (fault["check"], fault["code"], code) == ("catalogue", "model_unknown", 21)
    assert fault["mend"].startswith(f"ask its operator to add {tmp_path / 'm.card'}")


# What is not a fault.


def test_what_cannot_be_asked_is_not_called_good(tmp_path: Path, capsys: CAPSYS) -> None:
    with running_coordinator(offers_reach=False) as address:
        code, findings = doctor(capsys, tmp_path, "--coordinator", address)
    assert code == 0
    states = {one["check"]: one["state"] for one in findings}
    assert states["clock"] == states["reach"] == "skipped"


def test_the_port_of_a_running_node_is_its_own(tmp_path: Path, capsys: CAPSYS, well: str) -> None:
    with only_node(tmp_path), socket.socket() as mine:
        mine.bind(("127.0.0.1", 0))
        mine.listen()
        listen = f"/ip4/127.0.0.1/tcp/{mine.getsockname()[1]}"
        _, findings = doctor(capsys, tmp_path, "--listen", listen, "--coordinator", well)
    (port,) = [one for one in findings if one["check"] == "port"]
    assert port["state"] == "skipped"
    assert str(os.getpid()) in port["detail"]


def test_lines_for_people_say_the_mend(tmp_path: Path, capsys: CAPSYS) -> None:
    argv = ["doctor", "--data-dir", str(tmp_path), "--listen", LOOPBACK, "--engine", "scripted"]
    assert main([*argv, "--quick", "--coordinator", "nonsense"]) == EXIT_CODES["coordinator"]
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "ok   key: none yet; the first start makes one"
    assert "--   engine: not checked: as you said" in lines
    at = next(n for n, line in enumerate(lines) if line.startswith("FAIL coordinator: "))
    assert lines[at].startswith("FAIL coordinator: config_invalid: coordinator must be")
    assert lines[at + 1].startswith("     mend: ")


def test_a_check_lets_faults_of_ours_pass() -> None:
    findings = Findings()
    with pytest.raises(ZeroDivisionError), findings.of("key"):
        _ = 1 // 0
    with findings.of("disk", path="/x"):
        raise OSError(5, "an error of the disk")
    with findings.of("clock"):
        raise DoctorFault("clock_skew", "late")
    with findings.of("engine"):
        raise AssayError("internal", "of no known mend")
    assert [one.code for one in findings.found] == ["storage_failed", "clock_skew", "internal"]
    assert findings.found[0].mend == "chown and chmod /x, or set data_dir"
    assert "docs/errors.md" in findings.found[2].mend


def test_the_doctor_s_own_codes_are_few_and_the_page_has_every_one() -> None:
    own = {"no_coordinator", "old_protocol", "clock_skew", "port_blocked", "limit_not_enforced"}
    own |= {"gpu_unused", "projector_missing", "projector_wrong"}
    assert set(FAULTS) - set(CODES) == own
    page = PAGE.read_text()
    for code, fault in FAULTS.items():
        mend = re.sub(r"\{(\w+)\}", lambda name: name[1].upper(), fault.mend)
        assert mend_of(code, {}) == mend
        assert f"| `{code}` | {fault.means} | `{mend}` |" in page, code
    for check, code in EXIT_CODES.items():
        assert f"| `{check}` | {code} |" in page, check
