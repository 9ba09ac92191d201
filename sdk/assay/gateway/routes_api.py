"""GET /v1/routes: who answered what, newest first; without a word of what was asked."""

from __future__ import annotations

from dataclasses import asdict

from assay.gateway.exchange import Exchange


async def decisions(exchange: Exchange) -> None:
    """Those of the caller's own key; all of them for the owner's keys, and where no key is asked
    for."""
    name, owner = exchange.caller.name, exchange.caller.owner
    found = [
        asdict(one)
        for one in reversed(exchange.service.router.decisions)
        if owner or not name or one.caller == name
    ]
    await exchange.reply({"object": "list", "data": found})
