"""The JSON API over a network that has lived, held against its tables and its core."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import trio
from starlette.applications import Starlette

from asgi_caller import Answer, Caller
from assay_contracts.credit.bundle import CreditBundle
from assay_coordinator.adapters.tables import TABLES
from assay_coordinator.core.jobs import FINAL
from assay_coordinator.core.records import AuditRow, EpochRow, JobRow, RoundRow, VerdictRow
from assay_coordinator.dashboard import routes as routes_module
from assay_coordinator.dashboard.routes import API, CLOCK_HEADER, STATUS, dashboard_routes
from assay_protocol.credit_tree import fold
from assay_protocol.errors import CODES
from coordinator.dashboard.lived_in import CLIENTS, LivedIn, lived_in

UNKNOWN = "ab" * 32


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LivedIn]:
    folder: Path = tmp_path_factory.mktemp("lived_in")
    with lived_in(folder) as lived:
        yield lived


@pytest.fixture
def caller(world: LivedIn) -> Caller:
    return Caller(Starlette(routes=dashboard_routes(world.subject())))


async def told(caller: Caller, path: str) -> Any:
    answer = await caller.get(path)
    assert answer.status_code == 200, answer.text
    return answer.json()


async def all_items(caller: Caller, path: str, limit: int) -> list[Any]:
    """Every item of a list, page by page."""
    items: list[Any] = []
    following, joint = "", "&" if "?" in path else "?"
    for _ in range(500):
        page = await told(caller, f"{path}{joint}limit={limit}{following}")
        assert len(page["items"]) <= limit
        items += page["items"]
        if page["next"] is None:
            return items
        assert len(page["items"]) == limit
        following = f"&after={page['next']}"
    raise AssertionError("the pages never end")


# ---- what is told is what is in the tables ----


async def test_the_first_page_says_how_the_network_does(caller: Caller, world: LivedIn) -> None:
    seen, core = await told(caller, "/api/network"), world.coordinator
    nodes = core.registry.nodes.values()
    assert seen["nodes"]["registered"] == len(nodes)
    assert seen["nodes"]["present"] == sum(node.present(world.now) for node in nodes)
    assert seen["nodes"]["convicted"] == 2
    assert seen["nodes"]["suspended"] == seen["nodes"]["away"] == 1
    assert (seen["jobs"], seen["audits"]) == (core.jobs.booked, len(world.store.rows(AuditRow)))
    closed = {world.cheat.key.hex(), world.twofaced.key.hex(), world.suspect.key.hex()}
    assert {node["node"] for node in seen["attention"]} == closed
    since = seen["activity"]["first_at"]
    rounds = [row.count for row in world.store.rows(RoundRow) if row.closed_at >= since]
    assert sum(seen["activity"]["jobs"]) == sum(rounds) > 50
    against = [row.outcome for row in world.store.rows(VerdictRow) if row.outcome != "passed"]
    assert sum(seen["activity"]["against"]) == len(seen["against"]) == len(against) > 2
    assert seen["rates"]["tokens_per_second"] > 0


async def test_jobs_come_newest_first_and_each_once(caller: Caller, world: LivedIn) -> None:
    rows = {row.ticket.hex(): row for row in world.store.rows(JobRow) if row.round}
    shown = await all_items(caller, "/api/jobs", 7)
    assert [job["ticket"] for job in shown] == list(dict.fromkeys(job["ticket"] for job in shown))
    assert {job["ticket"] for job in shown} == rows.keys()
    times = [job["booked_at"] for job in shown]
    assert times == sorted(times, reverse=True)
    for job in shown:
        row = rows[job["ticket"]]
        assert (job["charged"], job["node"]) == (str(row.charged), row.node.hex())
        if row.state in FINAL:
            assert job["state"] == row.state
    mine = await all_items(caller, f"/api/jobs?node={world.cheat.key.hex()}", 5)
    assert [job["ticket"] for job in mine] == [
        job["ticket"] for job in shown if job["node"] == world.cheat.key.hex()
    ]
    assert 0 < len(mine) < len(shown)


async def test_nodes_come_page_by_page_and_by_state(caller: Caller, world: LivedIn) -> None:
    shown = await all_items(caller, "/api/nodes", 2)
    assert (
        len(shown) == len({node["node"] for node in shown}) == len(world.coordinator.registry.nodes)
    )
    for state, count in Counter(node["state"] for node in shown).items():
        assert len(await all_items(caller, f"/api/nodes?state={state}", 3)) == count
    model = shown[0]["models"][0]["id"]
    offering = await all_items(caller, f"/api/nodes?model={model}", 50)
    assert {node["node"] for node in offering} == {n["node"] for n in shown if n["models"]}
    assert await all_items(caller, f"/api/nodes?model={UNKNOWN}", 50) == []


async def test_a_convicted_node_is_told_with_why(caller: Caller, world: LivedIn) -> None:
    cheat = await told(caller, f"/api/nodes/{world.cheat.key.hex()}")
    assert (cheat["standing"], cheat["convicted_for"]) == ("convicted", "quorum")
    assert cheat["disproved"] >= 2
    assert cheat["escrow"] == "0"
    other = await told(caller, f"/api/nodes/{world.twofaced.key.hex()}")
    assert (other["standing"], other["convicted_for"]) == ("convicted", "equivocation")
    (one, *_) = await all_items(caller, "/api/verdicts?outcome=failed", 50)
    assert one["node"] == world.cheat.key.hex()
    job = await told(caller, f"/api/jobs/{one['ticket']}")
    assert (job["outcome"], job["state"]) == ("failed", "refunded")
    assert {audit["found"] for audit in job["audits"]} == {"bad"}
    assert all(audit["mismatches"] > 0 for audit in job["audits"])


async def test_a_node_shows_its_audits_and_those_it_made(caller: Caller, world: LivedIn) -> None:
    node, rows = world.honest[0], world.store.rows(AuditRow)
    path = f"/api/nodes/{node.key.hex()}/audits"
    of_it = await all_items(caller, path, 3)
    assert {a["audit"] for a in of_it} == {r.audit.hex() for r in rows if r.executor == node.key}
    by_it = await all_items(caller, f"{path}?role=auditor", 3)
    assert {a["audit"] for a in by_it} == {r.audit.hex() for r in rows if r.auditor == node.key}
    assert of_it
    assert by_it
    seen = await told(caller, f"/api/nodes/{node.key.hex()}")
    assert seen["device"] == "NVIDIA GeForce RTX 4090"
    assert seen["offers"][0]["decode_tokens_per_second"] == 92.4
    assert (seen["audits_passed"], seen["audits_done"]) == (world.row(node).verified, len(by_it))


async def test_a_days_verdicts_are_counted(caller: Caller, world: LivedIn) -> None:
    seen = await told(caller, "/api/verification")
    counted = Counter(row.outcome for row in world.store.rows(VerdictRow))
    assert {one: n for one, n in seen["outcomes"].items() if n} == counted
    assert {one: sum(hours) for one, hours in seen["by_hour"].items()} == seen["outcomes"]
    assert len(await all_items(caller, "/api/verdicts", 10)) == counted.total()


async def test_epochs_show_root_transaction_and_leaves(caller: Caller, world: LivedIn) -> None:
    rows = {row.epoch: row for row in world.store.rows(EpochRow)}
    shown = await all_items(caller, "/api/epochs", 1)
    assert [one["epoch"] for one in shown] == sorted(rows, reverse=True)
    assert len(shown) >= 3
    for one in shown:
        row = rows[one["epoch"]]
        assert (one["root"], one["total"]) == (row.root.hex(), str(row.total))
        assert (one["state"], one["post_state"]) == ("posted", "final")
        assert len(one["transaction"]) == 64
        assert one["block"] > 0
        leaves = await all_items(caller, f"/api/epochs/{one['epoch']}/leaves", 4)
        assert [leaf["index"] for leaf in leaves] == list(range(row.leaves))
        assert sum(int(leaf["lifetime"]) for leaf in leaves) == row.total


async def test_an_accounts_bundle_leads_to_the_root_on_the_chain(
    caller: Caller, world: LivedIn
) -> None:
    account = world.honest[1].key.hex()
    answer = await caller.get(f"/api/credit/{account}/bundle")
    assert answer.headers["content-type"] == "application/octet-stream"
    bundle = CreditBundle.decode(b"".join(answer.pieces))
    epoch = await told(caller, f"/api/epochs/{bundle.epoch}")
    assert len(bundle.statements) == 2, "it earned by computing and by auditing"
    for one in bundle.statements:
        root, total = fold(one.leaf.hash, one.leaf.cumulative, one.index, one.proof)
        assert (root.hex(), str(total)) == (epoch["root"], epoch["total"])
    seen = await told(caller, f"/api/credit/{account}")
    assert sum(int(role["lifetime"]) for role in seen["roles"]) == int(seen["earned"])
    assert sum(int(one["amount"]) for one in seen["epochs"]) == int(seen["earned"])


async def test_models_say_who_serves_them(caller: Caller, world: LivedIn) -> None:
    (model,) = (await told(caller, "/api/models"))["items"]
    census = await told(caller, "/api/network")
    assert model["nodes"] == census["nodes"]["active"] + census["nodes"]["probation"]
    assert (model["license"], model["size_bytes"]) == ("apache-2.0", 98_000_000)
    rates = model["decode_tokens_per_second"]
    assert rates["least"] <= rates["mean"] <= rates["most"] == 92.4


# ---- what is not told ----


async def everything(caller: Caller, world: LivedIn) -> str:
    """All that the API says, of all there is."""
    paths = ["/api/network", "/api/models", "/api/verification"]
    lists = ["/api/nodes", "/api/jobs", "/api/verdicts", "/api/epochs"]
    paths += [f"{path}?limit=200" for path in lists]
    for key in world.coordinator.registry.nodes:
        paths += [f"/api/nodes/{key.hex()}", f"/api/credit/{key.hex()}"]
        paths += [f"/api/nodes/{key.hex()}/audits?role={role}" for role in ("executor", "auditor")]
    paths += [f"/api/jobs/{row.ticket.hex()}" for row in world.store.rows(JobRow) if row.round]
    paths += [f"/api/epochs/{row.epoch}/leaves" for row in world.store.rows(EpochRow)]
    return "".join([(await caller.get(path)).text for path in paths])


async def test_no_client_and_no_address_is_in_anything_told(caller: Caller, world: LivedIn) -> None:
    text = await everything(caller, world)
    assert len(text) > 100_000
    assert world.honest[0].key.hex() in text
    for client in CLIENTS:
        assert client.public_key.hex() not in text
        assert client.public_key.hex()[:12] not in text
    assert "192.0.2.7" not in text
    for node in (*world.honest, world.cheat):
        pieces = (await caller.get(f"/api/credit/{node.key.hex()}/bundle")).pieces
        assert node.key in b"".join(pieces)
        assert not any(client.public_key in b"".join(pieces) for client in CLIENTS)
    prompts = {row.ticket_blob for row in world.store.rows(JobRow)}
    assert not any(blob.hex() in text for blob in prompts)


async def test_whether_a_job_is_audited_is_told_once_its_round_is_drawn(world: LivedIn) -> None:
    caller = Caller(Starlette(routes=dashboard_routes(world.subject())))
    with world.anchor_down():
        for verify in ("none", "sample", "now"):
            held = world.ask(CLIENTS[0], verify=verify)
            assert not isinstance(held, Exception)
            world.serve(held)
            world.hand_in(held)
            world.write()
            job = await told(caller, f"/api/jobs/{held.ticket.ticket.hex()}")
            assert (job["state"], job["outcome"], job["verify"]) == ("booked", None, None)
            assert job["audits"] == []
    world.settle()
    world.write()
    (last, *_) = (await told(caller, "/api/jobs?limit=3"))["items"]
    assert (last["outcome"], last["state"]) == ("passed", "released")


async def test_what_an_auditor_found_is_told_with_the_verdict(world: LivedIn) -> None:
    caller = Caller(Starlette(routes=dashboard_routes(world.subject())))
    executor, ticket, auditor = world.honest[2].key, b"\x77" * 16, world.honest[0].key
    (last, *_) = world.store.rows(AuditRow)
    early = replace(last, audit=ticket, ticket=ticket, executor=executor, auditor=auditor)
    world.written.commit([early])  # the first of two replays: the second auditor is not asked yet
    of_it = await told(caller, f"/api/nodes/{executor.hex()}/audits?limit=200")
    by_it = await told(caller, f"/api/nodes/{auditor.hex()}/audits?role=auditor&limit=200")
    assert ticket.hex() not in str(of_it) + str(by_it)
    world.written.commit([VerdictRow(ticket, "passed", last.at, b"")])
    again = await told(caller, f"/api/nodes/{executor.hex()}/audits?limit=199")
    assert ticket.hex() in str(again)
    with world.written.engine.begin() as connection:
        for cls in (AuditRow, VerdictRow):
            connection.execute(TABLES[cls].delete().where(TABLES[cls].c.ticket == ticket))


async def test_who_never_earned_looks_like_nobody(caller: Caller) -> None:
    client, nobody = CLIENTS[0].public_key.hex(), UNKNOWN
    mine, theirs = [(await caller.get(f"/api/credit/{one}")).text for one in (client, nobody)]
    assert mine.replace(client, nobody) == theirs
    for one in (client, nobody):
        answer = await caller.get(f"/api/credit/{one}/bundle")
        assert (answer.status_code, answer.json()["error"]["code"]) == (404, "proof_invalid")


# ---- what is asked wrongly ----


@pytest.mark.parametrize(
    ("path", "status", "code"),
    [
        ("/api/nodes?limit=0", 400, "query_invalid"),
        ("/api/nodes?limit=201", 400, "query_invalid"),
        ("/api/nodes?limit=1e3", 400, "query_invalid"),
        ("/api/nodes?limit=%C2%B2", 400, "query_invalid"),
        ("/api/nodes?limit=5&limit=6", 400, "query_invalid"),
        ("/api/nodes?stat=active", 400, "query_invalid"),
        ("/api/nodes?state=fine", 400, "query_invalid"),
        ("/api/nodes?model=xyz", 400, "query_invalid"),
        ("/api/nodes?after=1.2", 400, "query_invalid"),
        ("/api/jobs?after=1.99999999999999999999.aa", 400, "query_invalid"),
        ("/api/jobs?after=" + "9" * 300, 400, "query_invalid"),
        ("/api/jobs?node=%00", 400, "query_invalid"),
        ("/api/network?x", 400, "query_invalid"),
        ("/api/nodes/xyz", 400, "query_invalid"),
        (f"/api/nodes/{UNKNOWN}", 404, "unknown_node"),
        (f"/api/nodes/{UNKNOWN}/audits", 404, "unknown_node"),
        ("/api/jobs/" + "00" * 16, 404, "unknown_ticket"),
        ("/api/jobs/" + "0 " * 16, 400, "query_invalid"),
        ("/api/epochs/0", 404, "epoch_unknown"),
        ("/api/epochs/-1", 400, "query_invalid"),
        ("/api/epochs/9999999999999999999", 400, "query_invalid"),
        ("/api/epochs/77/leaves", 404, "epoch_unknown"),
        ("/api/epochs/1/leaves?after=4294967295", 400, "query_invalid"),
        ("/api/credit/12", 400, "query_invalid"),
    ],
)
async def test_what_is_not_there_has_a_code(
    caller: Caller, path: str, status: int, code: str
) -> None:
    answer = await caller.get(path)
    assert (answer.status_code, answer.json()["error"]["code"]) == (status, code)
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["cache-control"] == "no-store"


async def test_a_filter_that_is_empty_is_none(caller: Caller) -> None:
    assert await told(caller, "/api/nodes?state=") == await told(caller, "/api/nodes")


def test_every_status_is_of_a_known_code() -> None:
    assert STATUS.keys() <= CODES.keys()


# ---- how it is served ----


async def test_who_has_an_answer_is_not_sent_it_again(caller: Caller, world: LivedIn) -> None:
    first = await caller.get("/api/nodes")
    assert first.headers[CLOCK_HEADER] == str(world.now)
    again = await caller.get("/api/nodes", headers={"if-none-match": first.headers["etag"]})
    assert (again.status_code, again.text) == (304, "")
    assert again.headers[CLOCK_HEADER] == str(world.now), "time goes on all the same"


async def test_nothing_can_be_changed_here(caller: Caller) -> None:
    for endpoint in API:
        path = re.sub(r"\{(\w+)\}", "1", endpoint.path)
        for method in ("POST", "PUT", "DELETE", "PATCH"):
            assert (await caller.request(method, path)).status_code == 405


async def test_a_crowd_costs_what_one_reader_does(
    world: LivedIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    subject, reads = world.subject(), 0
    plain = type(subject).read

    async def counted(self: Any, *arguments: Any) -> Any:
        nonlocal reads
        reads += 1
        return await plain(self, *arguments)

    monkeypatch.setattr(type(subject), "read", counted)
    caller = Caller(Starlette(routes=dashboard_routes(subject)))
    for _ in range(20):
        await told(caller, "/api/network")
    assert reads == 1


async def test_too_many_at_once_are_told_to_come_again(
    world: LivedIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(routes_module, "MAKING_MAX", 2)
    caller = Caller(Starlette(routes=dashboard_routes(world.subject())))
    answers: list[Answer] = []

    async def ask(number: int) -> None:
        answers.append(await caller.get(f"/api/jobs?limit={number}"))

    async with trio.open_nursery() as nursery:
        for number in range(1, 7):
            nursery.start_soon(ask, number)
    busy = [answer for answer in answers if answer.status_code == 503]
    assert len(busy) == 4
    assert {answer.headers["retry-after"] for answer in busy} == {"1"}
    assert {answer.json()["error"]["code"] for answer in busy} == {"busy"}
    assert (await caller.get("/api/jobs?limit=1")).status_code == 200


async def test_no_host_makes_one_path_s_answer_another_s(caller: Caller) -> None:
    """With Starlette 1.0 `request.url` holds what a caller writes in Host, and was the name under
    which an answer is kept."""
    asked = await caller.get("/api/models", headers={"host": "x/api/network#"})
    assert asked.status_code == 200
    assert "coordinator" in await told(caller, "/api/network")


async def test_what_is_read_slowly_has_a_bound(
    world: LivedIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A thousand connections may each ask for a bundle, and read none of it for a minute."""
    monkeypatch.setattr(routes_module, "SENDING_BYTES_MAX", 20_000)
    app: Any = Starlette(routes=dashboard_routes(world.subject()))
    account = world.honest[1].key.hex()
    path, statuses, read = f"/api/credit/{account}/bundle", [], trio.Event()

    async def ask(done: trio.Event) -> None:
        async def receive() -> Any:
            await trio.sleep_forever()

        async def send(message: Any) -> None:
            if message["type"] == "http.response.start":
                statuses.append(message["status"])
            else:
                done.set()
                await read.wait()

        scope = {"type": "http", "method": "GET", "path": path, "query_string": b"", "headers": []}
        await app(scope, receive, send)

    async with trio.open_nursery() as nursery:
        for _ in range(12):
            done = trio.Event()
            nursery.start_soon(ask, done)
            with trio.move_on_after(5):
                await done.wait()
        assert 503 in statuses
        assert statuses[0] == 200
        read.set()
    assert (await Caller(app).get(path)).status_code == 200, "and it is free again"
