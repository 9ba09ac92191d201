"""Who may read what a process tells over HTTP: names, passwords, and what is open to all."""

from __future__ import annotations

import base64
from functools import partial
from pathlib import Path

import httpx
import pytest
import trio
import trio.testing

from asgi_caller import Answer, Caller
from assay_network.http_guard import Guard, guard_of, guarded, is_own_name
from assay_network.monitor import Monitored, monitor_app, run_monitor
from assay_network.password_guesses import GUESS_SECONDS, GUESSES_AT_ONCE
from assay_protocol.errors import CODES, AssayError

HERE = ("127.0.0.1", 9100)
PASSWORD = "correct horse battery".replace(" ", "-")
MONITORED = Monitored(metrics=lambda: b"assay_x 1.0\n", faults=list)


def written(path: Path, text: str, mode: int = 0o600) -> Path:
    path.write_text(text)
    path.chmod(mode)
    return path


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    return written(tmp_path / "password", PASSWORD + "\n")


async def asked(guard: Guard, path: str = "/metrics", **headers: str) -> Answer:
    return await Caller(guarded(monitor_app(MONITORED), guard)).get(path, headers=headers)


@pytest.mark.parametrize(
    "host",
    ["localhost", "LOCALHOST:9100", "127.0.0.1", "10.1.2.3:9100", "[::1]", "[::1]:9100", "dash:80"],
)
def test_names_of_its_own(host: str) -> None:
    assert is_own_name(host, {"dash"})


@pytest.mark.parametrize(
    "host",
    ["", "evil.example", "evil.example:9100", "127.0.0.1.evil.example", "localhost.evil.example",
     "dash.evil.example", "127.0.0.1@evil.example", "evil.example#127.0.0.1", "[::1].evil", ":80"],
)  # fmt: skip
def test_names_of_others(host: str) -> None:
    assert not is_own_name(host, {"dash"})


async def test_a_page_whose_name_was_made_to_mean_this_machine_reads_nothing() -> None:
    guard = guard_of("--http", HERE, None, ["Dash.Example.org"], False)
    refused = await asked(guard, host="evil.example:9100")
    assert (refused.status_code, refused.json()["error"]["code"]) == (421, "misdirected_request")
    assert "assay_x" not in refused.text
    for own in ("127.0.0.1:9100", "localhost:9100", "dash.example.org"):
        assert (await asked(guard, host=own)).status_code == 200


@pytest.mark.parametrize("path", ["/healthz", "/readyz"])
async def test_health_is_told_to_whoever_restarts_it(secret: Path, path: str) -> None:
    for guard in (Guard(), guard_of("--http", HERE, secret, [], False)):
        assert (await asked(guard, path, host="evil.example")).status_code == 200


@pytest.mark.parametrize("path", ["//healthz", "/healthz/", "/metrics", "/healthz/../metrics"])
async def test_nothing_that_only_looks_like_health_is(secret: Path, path: str) -> None:
    assert (await asked(guard_of("--http", HERE, secret, [], False), path)).status_code == 401


async def test_a_password_is_a_bearer_token_or_any_user_s(secret: Path) -> None:
    guard = guard_of("--http", ("0.0.0.0", 9100), secret, [], False)
    basic = base64.b64encode(f"who:{PASSWORD}".encode()).decode()
    for right in (f"Bearer {PASSWORD}", f"bearer  {PASSWORD} ", f"Basic {basic}"):
        answer = await asked(guard, authorization=right, host="anything.example")
        assert (answer.status_code, answer.text) == (200, "assay_x 1.0\n")
    wrongs = ["", "Bearer", "Bearer ", PASSWORD, f"Digest {PASSWORD}", f"Bearer {PASSWORD}x"]
    wrongs += [f"Basic {PASSWORD}", "Basic ====", "Basic \xff", "Bearer \xff", f"Bearer {basic}"]
    for wrong in wrongs:
        answer = await asked(guard, authorization=wrong)
        assert (answer.status_code, answer.json()["error"]["code"]) == (401, "password_required")
        assert answer.headers["www-authenticate"].startswith("Basic ")


async def test_who_guesses_is_soon_not_heard_and_keeps_nobody_else_out(
    secret: Path, autojump_clock: trio.testing.MockClock
) -> None:
    app = guarded(monitor_app(MONITORED), guard_of("--http", ("0.0.0.0", 1), secret, [], False))

    async def told(client: str, password: str | None) -> Answer:
        headers = {} if password is None else {"authorization": f"Bearer {password}"}
        return await Caller(app, client=(client, 9)).get("/metrics", headers=headers)

    async def statuses(client: str, times: int, password: str = "wrong") -> list[int]:
        return [(await told(client, password)).status_code for _ in range(times)]

    stranger, operator, known = "203.0.113.7", "198.51.100.1", "192.0.2.9"
    assert await statuses(known, 1, PASSWORD) == [200]
    assert await statuses(stranger, 12) == [401] * GUESSES_AT_ONCE + [429] * 2
    refused = await told(stranger, PASSWORD)
    assert refused.status_code == 429, "not even told whether it is right"
    assert refused.json()["error"]["code"] == "rate_limited"
    assert 0 < int(refused.headers["retry-after"]) <= GUESS_SECONDS
    assert (await told(stranger, None)).status_code == 401, "who tells none guesses none"
    assert await statuses(operator, 1, PASSWORD) == [200]
    assert await statuses(known, 99) == [401] * 99, "a neighbour of his may guess"
    assert await statuses(known, 1, PASSWORD) == [200]
    assert await statuses("127.0.0.1", 99) == [401] * 99, "a proxy's, perhaps"
    assert await statuses("127.0.0.1", 1, PASSWORD) == [200]
    await trio.sleep(int(refused.headers["retry-after"]))
    assert await statuses(stranger, 2) == [401, 429]
    assert (await told(stranger, None)).status_code == 401


async def test_a_server_without_a_password_counts_nothing(secret: Path) -> None:
    app = guarded(monitor_app(MONITORED), Guard())
    for _ in range(2 * GUESSES_AT_ONCE):
        caller = Caller(app, client=("203.0.113.7", 9))
        answer = await caller.get("/metrics", headers={"authorization": "Bearer x"})
        assert answer.status_code == 200


@pytest.mark.parametrize(
    ("address", "opened", "code"),
    [("0.0.0.0", False, "config_invalid"), ("192.0.2.1", False, "config_invalid"),
     ("::", False, "config_invalid"), ("0.0.0.0", True, ""), ("::1", False, "")],
)  # fmt: skip
def test_an_address_that_others_reach_needs_a_word(address: str, opened: bool, code: str) -> None:
    if not code:
        assert not guard_of("--http", (address, 1), None, [], opened).password
        return
    with pytest.raises(AssayError, match="--http-password FILE, or --http-open") as caught:
        guard_of("--http", (address, 1), None, [], opened)
    assert caught.value.code == code


def test_a_password_that_is_none(tmp_path: Path) -> None:
    for text in ("", "short", "x" * 15, "x" * 1_025, "with a space in it", "nicht-schön-genug"):
        with pytest.raises(AssayError) as caught:
            guard_of("--http", HERE, written(tmp_path / "p", text), [], False)
        assert caught.value.code == "config_invalid"
        assert len(text) < 6 or text not in str(caught.value)
    with pytest.raises(AssayError) as caught:
        guard_of("--http", HERE, written(tmp_path / "p", PASSWORD, 0o640), [], False)
    assert caught.value.code == "key_permissions"
    with pytest.raises(AssayError, match="No such file"):
        guard_of("--http", HERE, tmp_path / "none", [], False)


@pytest.mark.parametrize("name", ["", "a b", "http://x", "x:80", "*", "-", "ex\n"])
def test_a_name_that_is_none(name: str) -> None:
    with pytest.raises(AssayError, match="not the name of a host"):
        guard_of("--http", HERE, None, [name], False)


def test_a_password_and_anybody_contradict(secret: Path) -> None:
    with pytest.raises(AssayError, match="not both"):
        guard_of("--http", HERE, secret, [], True)


async def test_the_server_asks_for_it(secret: Path) -> None:
    serve = partial(run_monitor, guard=guard_of("--http", HERE, secret, [], False))
    async with trio.open_nursery() as nursery:
        url = await nursery.start(serve, MONITORED, ("127.0.0.1", 0))
        async with httpx.AsyncClient(trust_env=False) as web:
            assert (await web.get(f"{url}/metrics")).status_code == 401
            assert (await web.get(f"{url}/metrics", auth=("x", PASSWORD))).status_code == 200
            assert (await web.get(f"{url}/readyz")).status_code == 200
        nursery.cancel_scope.cancel()


def test_what_it_refuses_with_are_codes() -> None:
    assert {"misdirected_request", "password_required"} <= CODES.keys()
