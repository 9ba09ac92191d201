"""What everybody was charged and credited in a run, from the coordinator's ledger: accounts.csv.gz.

    client    charged     what left its purse for good, less a faucet's gift
    node      ROLE        lifetime credit in that role; escrow: what is not decided yet
    others    ROLE        credit of accounts that are no node's: publishers, the treasury's account
    network   treasury, granted

Amounts are whole micro-credits. Two runs of one scenario are compared line by line (compare.py).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from assay_protocol.splits import ROLES
from assay_simnet.record import Table
from assay_simnet.seen import Seen
from assay_simnet.setting import GRANT

COLUMNS: Final = ("who", "number", "what", "amount")
Row = tuple[str, int, str, int]


def write_accounts(world: Seen, folder: Path) -> None:
    """The table, closed."""
    table = Table(folder, "accounts", COLUMNS)
    for row in account_rows(world):
        table.add(row)
    table.close()


def account_rows(world: Seen) -> Iterator[Row]:
    """A row for each client, for each role a node earned in, and for the network."""
    ledger = world.coordinator.core.ledger
    for client in world.clients:
        left = ledger.balance("available", client.key) + ledger.balance("reserved", client.key)
        yield "client", client.number, "charged", GRANT - left
    names = {role: name for name, role in ROLES.items()}
    others: Counter[str] = Counter()
    earned: dict[bytes, list[tuple[str, int]]] = {}
    for (account, role), row in ledger.credit.items():
        if account in world.by_key:
            earned.setdefault(account, []).append((names[role], row.cumulative))
        else:
            others[names[role]] += row.cumulative
    for node in world.nodes:
        for name, amount in sorted(earned.get(node.key, ())):
            yield "node", node.number, name, amount
        escrow = ledger.balance("escrow", node.key)
        if escrow:
            yield "node", node.number, "escrow", escrow
    for name, amount in sorted(others.items()):
        yield "others", 0, name, amount
    yield "network", 0, "treasury", ledger.balance("treasury")
    yield "network", 0, "granted", -ledger.balance("mint")
