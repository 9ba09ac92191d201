"""What a dishonest poster could post after an epoch, and the challenge that proves it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from assay_protocol.credit_tree import PADDING, CreditLeaf, encode_proof, receipts_root
from contracts.books import (
    Books,
    Epoch,
    account,
    bent_tree,
    entries_of,
    leads_home,
    line,
    line_text,
    node_text,
    tree_of,
)

Challenge = Callable[[int], tuple[object, ...]]


@dataclass(frozen=True)
class Fraud:
    """An epoch with one fault. `challenge(number)` are the function and arguments that void it when
    it was posted as epoch `number`; `leaves` is what its header says."""

    epoch: Epoch
    leaves: int
    challenge: Challenge


def inflated(books: Books) -> Fraud:
    """A leaf of the epoch before has one micro-credit too much."""
    before, good, _ = _next(books)
    index = _provable(before)
    leaves = list(good.leaves)
    leaves[index] = replace(leaves[index], cumulative=leaves[index].cumulative + 1)
    bad = replace(good, leaves=tuple(leaves))
    return _fraud(bad, lambda n: ("challengeStep", n, before.place(index), bad.place(index)))


def moved(books: Books) -> Fraud:
    """An index has another account than before."""
    before, good, new = _next(books)
    index = _provable(before)
    leaves = list(good.leaves)
    leaves[index] = replace(leaves[index], account=account(new + 1_000_000))
    bad = replace(good, leaves=tuple(leaves))
    return _fraud(bad, lambda n: ("challengeStep", n, before.place(index), bad.place(index)))


def forged(books: Books) -> Fraud:
    """A new leaf begins with more than it earned."""
    bad = _last_changed(books, cumulative=1_000)
    place = bad.place(len(bad.leaves) - 1)
    return _fraud(bad, lambda n: ("challengeStep", n, place, place))


def omitted(books: Books) -> Fraud:
    """Padding stands where the first leaf was; a new one makes up for its sum."""
    before = books.epochs[-1]
    lost = before.leaves[0].cumulative if before.leaves else 0
    _, good, _ = _next(books, lost + 1)
    bad = replace(good, bent=tree_of([(PADDING, 0), *entries_of(good)[1:]]))
    return _fraud(bad, lambda n: ("challengeOmission", n, 0, bad.proof(0)))


def beyond(books: Books) -> Fraud:
    """Seven micro-credits stand after the last leaf."""
    _, good, _ = _next(books, spare_place=True)
    bad = replace(good, bent=tree_of([*entries_of(good), (account(7), 7)]))
    last = good.leaves[-1]
    proof = bad.proof(len(good.leaves) - 1)
    return _fraud(bad, lambda n: ("challengeBeyond", n, last.hash, last.cumulative, proof))


def twin(books: Books) -> Fraud:
    """An account stands at two indices in one role."""
    bad = _last_changed(books, account=books.epochs[-1].leaves[0].account, role=0)
    first, last = bad.place(0), bad.place(len(bad.leaves) - 1)
    return _fraud(bad, lambda n: ("challengeDuplicate", n, first, last))


def double(books: Books) -> Fraud:
    """A job is booked twice in a new leaf."""
    _, good, new = _next(books)
    lines = (line(new, 3), line(new, 4))
    root, credit = receipts_root(lines)
    leaf = CreditLeaf(account(new), 0, credit, credit, root)
    bad = Epoch((*good.leaves[:-1], leaf), (*good.lines[:-1], lines))
    last = len(bad.leaves) - 1
    return _fraud(
        bad, lambda n: ("challengeDoubleLine", bad.booking(n, last, 0), bad.booking(n, last, 1))
    )


def again(books: Books) -> Fraud:
    """A job of the epoch before is booked again."""
    before, good, new = _next(books)
    index = _booked(before)[0]
    lines = (before.lines[index][0],)
    root, credit = receipts_root(lines)
    leaf = CreditLeaf(account(new), before.leaves[index].role, credit, credit, root)
    bad = Epoch((*good.leaves[:-1], leaf), (*good.lines[:-1], lines))
    last = len(bad.leaves) - 1
    return _fraud(
        bad,
        lambda n: (
            "challengeDoubleLine",
            before.booking(n - 1, index, 0),
            bad.booking(n, last, 0),
        ),
    )


def unearned(books: Books) -> Fraud:
    """A new leaf's credit is more than its lines."""
    bad = _last_changed(books, cumulative=8, epoch_credit=8)
    last = len(bad.leaves) - 1
    (booked,) = bad.lines[last]
    piece = (line_text(booked), booked.amount, 0, b"")
    return _fraud(bad, lambda n: ("challengeLineSum", n, bad.place(last), piece))


def bent(books: Books) -> Fraud:
    """A node of the account tree says more than its two leaves have."""
    _, good, _ = _next(books)
    entries = entries_of(good)
    pair = [*entries[:2], (PADDING, 0)][:2]
    claimed = pair[0][1] + pair[1][1] + 9
    tree = bent_tree(entries, {(1, 0): claimed})
    path = encode_proof(tree.proof(0)[1:])
    bad = replace(good, bent=tree)
    return _fraud(bad, lambda n: ("challengeNodeSum", n, (node_text(*pair), claimed, 0, path)))


FRAUDS: dict[str, Callable[[Books], Fraud]] = {
    "inflated": inflated,
    "moved": moved,
    "forged": forged,
    "omitted": omitted,
    "beyond": beyond,
    "twin": twin,
    "double": double,
    "again": again,
    "unearned": unearned,
    "bent": bent,
}


def possible(books: Books) -> list[str]:
    """The frauds that can be built on the last epoch."""
    before = books.epochs[-1]
    provable = any(leads_home(before, i) for i in range(len(before.leaves)))
    impossible = {
        "inflated": not provable,
        "moved": not provable,
        "again": not _booked(before),
        "twin": not before.leaves or before.leaves[0].role != 0,
        # With two leaves the node that lies would be the root, which says what the header says.
        "bent": len(before.leaves) < 2,
    }
    return [kind for kind in FRAUDS if not impossible.get(kind)]


def _fraud(epoch: Epoch, challenge: Challenge) -> Fraud:
    return Fraud(epoch, len(epoch.leaves), challenge)


def _next(books: Books, amount: int = 5, *, spare_place: bool = False) -> tuple[Epoch, Epoch, int]:
    """The epoch before, an honest one after it with a new account that earned `amount`, and that
    account's number. With `spare_place` its tree has room for another leaf."""
    before = books.epochs[-1]
    new = 1_000 + books.next_line
    earned = {(account(new), 0): [amount]}
    count = len(before.leaves) + 1
    if spare_place and count & (count - 1) == 0:
        earned[account(new + 1), 0] = [1]
        if count == 1:
            earned[account(new + 2), 0] = [1]
    good = books.book(earned)
    books.epochs.pop()
    return before, good, new


def _last_changed(books: Books, **change: object) -> Epoch:
    """An honest epoch but for its last leaf, which is new."""
    _, good, _ = _next(books)
    leaf = replace(good.leaves[-1], **change)  # type: ignore[arg-type]
    return replace(good, leaves=(*good.leaves[:-1], leaf))


def _booked(epoch: Epoch) -> list[int]:
    """Where there are lines, in roles that nobody shares, and the leaf can be proven."""
    whole = [i for i, lines in enumerate(epoch.lines) if lines and epoch.leaves[i].role in (0, 4)]
    return [i for i in whole if leads_home(epoch, i)]


def _provable(epoch: Epoch) -> int:
    return next(i for i in range(len(epoch.leaves)) if leads_home(epoch, i))
