"""Limits on a real machine: what is seen of it, and that what cannot be kept is refused."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import trio

from assay_network.frames import Frames
from assay_network.host import open_host
from assay_node import activity, owner_limits
from assay_node.activity import graphical_session, idle_seconds
from assay_node.config import Settings, load_settings
from assay_node.core.limits import Surroundings
from assay_node.doctor import examine
from assay_node.hardware import hottest_gpu
from assay_node.owner_limits import (
    OwnerWatch,
    limits_of,
    look,
    read_sent,
    require_kept,
    terms_of,
    unkept,
)
from assay_protocol.errors import AssayError
from assay_protocol.messages import Heartbeat, Register
from card_cases import small_card
from node.app_world import open_world
from node.test_hardware import FakeNvml

NOON_UTC = 1_767_355_200_000_000  # Friday, 2 January 2026, 12:00


def terminals(folder: Path, monkeypatch: pytest.MonkeyPatch, ages: list[int]) -> float:
    """Devices last typed at so many seconds ago; the time they are seen at."""
    now = 1_800_000_000.0
    for number, age in enumerate(ages):
        (folder / str(number)).touch()
        os.utime(folder / str(number), (now - age, now))
    (folder / "ptmx").touch()  # is no terminal
    monkeypatch.setattr(activity, "_TERMINALS", ((str(folder), "[0-9]*"),))
    monkeypatch.setattr(activity, "_SESSIONS", folder / "none")
    return now


def test_the_newest_typing_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = terminals(tmp_path, monkeypatch, [900, 70, 4_000])
    assert idle_seconds(now) == 70
    assert idle_seconds(now - 100) == 0, "a clock set back is no negative time"


def test_no_terminal_tells_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert idle_seconds(terminals(tmp_path, monkeypatch, [])) is None


@pytest.mark.parametrize(
    ("session", "graphical"),
    [
        ("ACTIVE=1\nTYPE=wayland\n", True),
        ("ACTIVE=1\nTYPE=x11\n", True),
        ("ACTIVE=0\nTYPE=x11\n", False),
        ("ACTIVE=1\nTYPE=tty\n", False),
    ],
)
def test_a_desktop_that_is_used_hides_its_typing(
    session: str, graphical: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = terminals(tmp_path, monkeypatch, [900])
    sessions = tmp_path / "sessions"
    sessions.mkdir()
    (sessions / "c1").write_text(session)
    (sessions / "c1.ref").mkdir()
    monkeypatch.setattr(activity, "_SESSIONS", sessions)
    assert graphical_session(sessions) == graphical
    assert (idle_seconds(now) is None) == graphical


def test_the_hottest_gpu_counts_and_none_is_not_cold(monkeypatch: pytest.MonkeyPatch) -> None:
    nvml = FakeNvml(names=("NVIDIA L4", "NVIDIA L4"))
    warm = SimpleNamespace(NVML_TEMPERATURE_GPU=0, nvmlDeviceGetTemperature=lambda gpu, _: 50 + gpu)
    for name, value in vars(warm).items():
        setattr(nvml, name, value)
    monkeypatch.setitem(sys.modules, "pynvml", nvml)
    assert hottest_gpu() == 51
    assert nvml.open == 0
    monkeypatch.setitem(sys.modules, "pynvml", FakeNvml("init"))
    assert hottest_gpu() is None
    monkeypatch.setitem(sys.modules, "pynvml", None)
    assert hottest_gpu() is None


def test_the_wall_clock_is_the_owners() -> None:
    where = {"UTC": (4, 720), "Asia/Tokyo": (4, 1_260), "Pacific/Kiritimati": (5, 120)}
    for zone, (weekday, minute) in where.items():
        seen = look(Settings(time_zone=zone), NOON_UTC)
        assert (seen.weekday, seen.minute) == (weekday, minute), zone
        assert (seen.idle_seconds, seen.celsius) == (None, None), "not limited: not looked for"


def test_settings_become_limits(tmp_path: Path) -> None:
    file = tmp_path / "node.toml"
    file.write_text(
        f'hours = ["mon-fri 22:00-07:00"]\nclients = ["{"ab" * 32}"]\nidle_minutes = 5\n'
        "max_celsius = 80\nmin_price_in = 1\nmin_price_out = 2\n"
    )
    settings = load_settings(file, {}, {})
    limits, terms = limits_of(settings), terms_of(settings)
    assert (limits.idle_seconds, limits.celsius_max, len(limits.windows)) == (300, 80, 1)
    assert (terms.price_in_min, terms.price_out_min) == (1, 2)
    assert terms.clients == {b"\xab" * 32}


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ('hours = ["nights"]', "nights"),
        ('time_zone = "Mars/Olympus"', "Mars/Olympus"),
        ('time_zone = "../etc"', "../etc"),
        ('clients = ["short"]', "clients must be"),
        ('refused_clients = ["short"]', "refused_clients must be"),
        ('region = "EU"', "region must be"),
        ("max_celsius = 900", "max_celsius must be in"),
        ("idle_minute = 5", "did you mean 'idle_minutes'"),
    ],
)
def test_a_wrong_limit_is_refused_by_name(line: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "node.toml").write_text(line)
    with pytest.raises(AssayError, match=said.replace(".", r"\.")) as caught:
        load_settings(tmp_path / "node.toml", {}, {})
    assert caught.value.code == "config_invalid"


def test_a_limit_that_cannot_be_kept_stops_the_start_and_the_doctor_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", None)
    terminals(tmp_path, monkeypatch, [])
    for changes in ({"max_celsius": 80}, {"idle_minutes": 5}, {"max_watts": 200}):
        settings = Settings(**changes, data_dir=str(tmp_path), engine="scripted")
        with pytest.raises(AssayError, match="cannot be kept here"):
            require_kept(settings, [])
        (limit,) = [one for one in examine(settings) if one.check == "limits"]
        assert (limit.state, limit.code) == ("fault", "limit_not_enforced")
        assert limit.mend == f"take {next(iter(changes))} out of the settings"
    assert unkept(Settings(hours=("08:00-09:00",))) is None


def test_a_price_that_no_job_would_pay_stops_the_start() -> None:
    card = small_card(price_in=100, price_out=300)
    require_kept(Settings(min_price_in=100, min_price_out=300), [card, None])
    with pytest.raises(AssayError, match="min_price_out would refuse every job"):
        require_kept(Settings(min_price_out=301), [card])


async def test_the_watch_tells_of_changes_only(monkeypatch: pytest.MonkeyPatch) -> None:
    idle = [10, 10, 400, 400, 5]
    told: list[str] = []

    def seen(_settings: Settings, _now: int, _sent: int | None) -> Surroundings:
        return Surroundings(0, 0, idle.pop(0), None)

    def tell(reason: str) -> None:
        told.append(reason)
        if not idle:
            scope.cancel()

    monkeypatch.setattr(owner_limits, "look", seen)
    monkeypatch.setattr(owner_limits, "LOOK_SECONDS", 0)
    with trio.fail_after(20), trio.CancelScope() as scope:
        await OwnerWatch(Settings(idle_minutes=5), lambda: 0, lambda: None, tell).run()
    assert told == ["in_use", "", "in_use"]


async def test_what_was_sent_today_outlives_the_node(tmp_path: Path) -> None:
    settings = Settings(data_dir=str(tmp_path), daily_upload_mib=1, time_zone="UTC")
    for sent, reason in (((1 << 20) - 1, None), (1, "sent")):
        told: list[str] = []
        with trio.move_on_after(0.3):
            await OwnerWatch(settings, lambda: NOON_UTC, lambda n=sent: n, told.append).run()
        assert told == ([] if reason is None else [reason])
    assert read_sent(tmp_path / "sent.json").bytes == 1 << 20
    for damaged in ("", "[]", '{"day": 1}', '{"day": true, "bytes": 1}', "7"):
        (tmp_path / "sent.json").write_text(damaged)
        assert read_sent(tmp_path / "sent.json").bytes == 0


async def test_bytes_on_real_sockets_are_counted() -> None:
    async def take(_peer: bytes, frames: Frames) -> None:
        await frames.send(bytes(len(await frames.receive(5.0))))

    async with open_host(b"a" * 32, ["/ip4/127.0.0.1/tcp/0"]) as one, open_host(b"b" * 32) as two:
        one.serve("/x", take)
        await two.call(one.public_key, "/x", bytes(100_000), 5.0, one.addresses)
        for host in (one, two):
            assert host.bytes_sent is not None
            assert 100_000 < host.bytes_sent < 110_000


async def test_a_node_outside_its_hours_registers_and_says_that_it_is_away(tmp_path: Path) -> None:
    seconds = time.gmtime()
    hour = (seconds.tm_hour + 12) % 24
    async with open_world(tmp_path) as world:
        settings = world.settings(hours=(f"{hour:02}:00-{hour:02}:01",), time_zone="UTC")
        async with world.node(settings=settings):
            with trio.fail_after(20):
                while not any(
                    isinstance(m, Heartbeat) and m.draining for m in world.coordinator.heard
                ):
                    await world.coordinator.stirred.wait()
            assert await world.coordinator.hear(Register)


def is_away(message: object) -> bool:
    return isinstance(message, Heartbeat) and message.draining
