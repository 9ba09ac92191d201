"""Every view of the dashboard in Chromium, over a network that has lived (lived_in.py): in light,
in dark and on a phone, without an error on the console or a request off the origin (pages.py)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from queue import Queue
from threading import Thread
from typing import Any

import pytest
import trio

from assay_coordinator.core.records import VerdictRow
from assay_coordinator.dashboard.routes import dashboard_routes
from assay_network.http_guard import Guard, guard_of
from assay_network.monitor import Monitored, run_monitor
from assay_protocol import messages as m
from coordinator.core.coordinator_world import MODEL, node
from coordinator.dashboard.lived_in import CLIENTS, LivedIn, lived_in
from end_to_end.pages import LOOKS, needs_browser, open_browser, visit

pytestmark = [pytest.mark.end_to_end, pytest.mark.slow, needs_browser]

SECONDS_MAX = 30.0
LOADED = "main[aria-busy=false]"
HOSTILE = '<img src="https://elsewhere.example/x" onerror="document.title=1">'


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LivedIn]:
    folder: Path = tmp_path_factory.mktemp("lived_in")
    with lived_in(folder) as lived:
        yield lived


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with open_browser() as opened:
        yield opened


@contextmanager
def served(world: LivedIn, *faults: str, guard: Guard = Guard()) -> Iterator[str]:
    """The URL of the coordinator's door, open in a thread: Playwright's calls block this one."""
    opened: Queue[tuple[str, Callable[[], object]]] = Queue()

    async def serve() -> None:
        monitored = Monitored(metrics=lambda: b"", faults=lambda: faults)
        routes = dashboard_routes(world.subject(faults))
        run = partial(run_monitor, monitored, ("127.0.0.1", 0), routes, guard=guard)
        async with trio.open_nursery() as nursery:
            url: str = await nursery.start(run)
            token = trio.lowlevel.current_trio_token()
            opened.put((url, partial(token.run_sync_soon, nursery.cancel_scope.cancel)))

    thread = Thread(target=trio.run, args=(serve,))
    thread.start()
    url, close = opened.get(timeout=SECONDS_MAX)
    try:
        yield url
    finally:
        close()
        thread.join(SECONDS_MAX)


def views(world: LivedIn) -> dict[str, tuple[str, str]]:
    """Each view's address, and something that it must say."""
    honest, cheat = world.honest[0].key.hex(), world.cheat.key.hex()
    failed = [row.ticket.hex() for row in world.store.rows(VerdictRow) if row.outcome == "failed"]
    return {
        "network": ("#/", "Healthy."),
        "nodes": ("#/nodes", "NVIDIA RTX A6000"),
        "node": (f"#/nodes/{honest}", "NVIDIA GeForce RTX 4090"),
        "convicted": (f"#/nodes/{cheat}", "of its answers wrong"),
        "jobs": ("#/jobs", "pay held"),
        "job": (f"#/jobs/{failed[0]}", "Two auditors who agree"),
        "verification": ("#/verification", "Verdicts by the hour"),
        "credit": ("#/credit", "on chain"),
        "epoch": ("#/credit/epochs/2", "Leaf file's sha256"),
        "account": (f"#/credit/{honest}", "By auditing"),
        "models": ("#/models", "Q4_1"),
    }


def test_a_browser_that_knows_the_password_sees_all_of_it(
    world: LivedIn, browser: Any, tmp_path: Path
) -> None:
    """It sends what it was told with the page, its scripts and all they ask for."""
    secret = tmp_path / "password"
    secret.write_text("nobody-guesses-this")
    secret.chmod(0o600)
    guard = guard_of("--http", ("127.0.0.1", 0), secret, [], False)
    known = {"username": "anyone", "password": "nobody-guesses-this"}
    with served(world, guard=guard) as url:
        for given in (None, known | {"password": "nobody-guesses-it"}):
            context = browser.new_context(http_credentials=given)
            answer = context.request.get(f"{url}/api/network")
            assert (answer.status, answer.json()["error"]["code"]) == (401, "password_required")
            context.close()
        context = browser.new_context(http_credentials=known)
        page = context.new_page()
        assert page.goto(url).status == 200
        page.wait_for_selector(f"{LOADED} >> text=Healthy.")
        context.close()


@pytest.mark.parametrize("look", LOOKS)
def test_every_view_shows_what_there_is(world: LivedIn, browser: Any, look: str) -> None:
    with served(world) as url:
        with visit(browser, url, look) as seen:
            for name, (address, text) in views(world).items():
                seen.page.goto(f"{url}/{address}")
                seen.says(text, LOADED)
                seen.picture(f"dashboard-{name}", full_page=name == "network")
                wide = seen.page.evaluate("document.documentElement.scrollWidth - innerWidth")
                assert wide <= 0, f"{name} is {wide} px too wide"


def test_credit_is_checked_in_the_browser(world: LivedIn, browser: Any) -> None:
    account = world.honest[0].key.hex()
    root = world.coordinator.epochs.last
    assert root is not None

    with served(world) as url:
        with visit(browser, f"{url}/#/credit/{account}") as seen:
            page = seen.page
            page.click("text=Check it here")
            seen.says("One thing is open")
            assert page.locator(".steps .badge.bad").count() == 0
            assert page.locator(".steps .badge.good").count() > 8
            page.fill("#root", f"0x{root.root.hex()}")
            page.press("#root", "Enter")
            page.wait_for_selector("text=leads to the root you gave")
            seen.picture("dashboard-proof", full_page=True)
            page.fill("#root", root.root.hex()[:-1] + ("0" if root.root.hex()[-1] != "0" else "1"))
            page.press("#root", "Enter")
            page.wait_for_selector("text=does not hold")


def test_a_tampered_bundle_does_not_hold(world: LivedIn, browser: Any) -> None:
    account = world.honest[0].key.hex()

    def tamper(route: Any) -> None:
        body = bytearray(route.fetch().body())
        place = body.rindex(world.honest[0].key) + 40  # within the leaf: what it earned
        body[place] ^= 1
        route.fulfill(status=200, body=bytes(body), content_type="application/octet-stream")

    with served(world) as url:
        with visit(browser, f"{url}/#/credit/{account}") as seen:
            seen.page.route("**/bundle", tamper)
            seen.page.click("text=Check it here")
            seen.page.wait_for_selector(".steps .badge.bad, .notice.bad[role=alert]")
            assert "Everything adds up" not in seen.page.text_content("main")


def test_an_owner_finds_their_node_by_keyboard(world: LivedIn, browser: Any) -> None:
    key = world.honest[1].key.hex()

    with served(world) as url:
        with visit(browser, f"{url}/") as seen:
            page = seen.page
            page.wait_for_selector(LOADED)
            page.focus("#key")
            page.keyboard.type("no key")
            page.keyboard.press("Enter")
            seen.says("64 hex digits", "#key-fault")
            page.fill("#key", key)
            page.keyboard.press("Enter")
            page.wait_for_selector("#own")
            page.focus("#own")
            page.keyboard.press("Enter")
            page.click("text=Network")
            seen.says("In escrow", LOADED)
            seen.says(key[:8])
            seen.picture("dashboard-own-node")


def test_focus_is_seen_and_the_page_can_be_skipped_to(world: LivedIn, browser: Any) -> None:
    with served(world) as url:
        with visit(browser, f"{url}/#/nodes") as seen:
            page = seen.page
            page.wait_for_selector(LOADED)
            page.keyboard.press("Tab")
            assert page.evaluate("document.activeElement.className") == "skip"
            outlines = []
            for _ in range(12):
                page.keyboard.press("Tab")
                outlines.append(
                    page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
                )
            assert set(outlines) == {"solid"}
            landmarks = page.locator("header, nav[aria-label], main")
            assert landmarks.count() >= 3
            assert page.locator("h1").count() == 1
            assert page.locator("table").count() == page.locator("table caption").count() == 1
            assert page.locator("tbody th[scope=row]").count() == page.locator("tbody tr").count()


def test_what_a_node_says_of_itself_is_text(world: LivedIn, browser: Any) -> None:
    liar = node(99)
    offer = m.Offer(
        model=MODEL, class_id=HOSTILE, slots=1, context=9, prefill_rate=1, decode_rate=1
    )
    asked = m.Register(
        operator=liar.operator,
        offers=(offer,),
        addresses=("/memory/1",),
        software=HOSTILE,
        device=HOSTILE,
    )
    assert isinstance(world.call(liar.key, asked), m.Registered)

    with served(world) as url:
        with visit(browser, f"{url}/#/nodes/{liar.key.hex()}") as seen:
            seen.page.wait_for_selector(LOADED)
            seen.says(HOSTILE)
            assert seen.page.locator("main img").count() == 0
            assert seen.page.title().startswith("Node")


def test_faults_and_what_is_not_there_are_said(world: LivedIn, browser: Any) -> None:
    with served(world, "commit_failed") as url:
        with visit(browser, f"{url}/") as seen:
            seen.page.wait_for_selector("text=did not commit")
            seen.says("1 fault", "#state")
            seen.page.goto(f"{url}/#/nothing")
            seen.page.wait_for_selector("text=There is no such page")
            seen.expected |= {404, 400}
            seen.page.goto(f"{url}/#/nodes/{'ab' * 32}")
            seen.page.wait_for_selector("text=unknown_node")
            seen.page.goto(f"{url}/#/jobs?limit=x")
            seen.page.wait_for_selector("text=query_invalid")
            client = CLIENTS[0].public_key.hex()
            seen.page.goto(f"{url}/#/credit/{client}")
            seen.page.click("text=Check it here")
            seen.page.wait_for_selector("text=Nothing to check")


def test_an_open_page_keeps_up_and_leaves_the_focus_where_it_is(
    world: LivedIn, browser: Any
) -> None:
    with served(world) as url:
        with visit(browser, f"{url}/#/jobs") as seen:
            page = seen.page
            page.wait_for_selector(LOADED)
            first = page.locator("tbody th a").first
            first.focus()
            before = first.get_attribute("href")
            world.pass_time(1)
            world.ask_and_serve(CLIENTS[0], max_tokens=24, only=(world.honest[0].key,))
            world.write()
            newest = f"#/jobs/{list(world.issued)[-1].hex()}"
            page.wait_for_selector(f'tbody th a[href="{newest}"]')  # it asks again by itself
            assert page.evaluate("document.activeElement.getAttribute('href')") == before


def test_a_page_whose_coordinator_is_gone_says_so_and_keeps_what_it_had(
    world: LivedIn, browser: Any
) -> None:
    door = ExitStack()
    url = door.enter_context(served(world))
    with visit(browser, f"{url}/#/nodes") as seen:
        seen.page.wait_for_selector(LOADED)
        door.close()
        notice = seen.page.wait_for_selector("main .notice[role=alert]")
        assert "does not answer" in notice.text_content()
        assert "What is shown is what it said before" in notice.text_content()
        assert world.honest[0].key.hex()[:8] in seen.page.text_content("tbody")
        seen.page.wait_for_selector("#state:has-text('no answer')")
        # What it was asking when the door closed is cut off; what it asks later finds no door.
        gone = ("ERR_CONNECTION_REFUSED", "ERR_CONNECTION_RESET", "ERR_EMPTY_RESPONSE")
        assert all(any(name in fault for name in gone) for fault in seen.faults), seen.faults
        seen.faults.clear()


def test_credit_is_written_as_people_read_it(world: LivedIn, browser: Any) -> None:
    amounts = {
        "0": "0",
        "1": "0.000001",
        "136": "0.000136",
        "1000000": "1.0000",
        "1234567": "1.2345",
        "1234567890": "1,234.56",
        "9007199254740993000000": "9,007,199,254,740,993.00",
        "-250": "−0.000250",
    }
    script = "m => import('/web/dashboard/format.js').then(f => m.map(f.credits))"
    with served(world) as url:
        with visit(browser, f"{url}/#/models") as seen:
            assert seen.page.evaluate(script, list(amounts)) == list(amounts.values())
