"""Every kind of fraud voids its epoch, and nothing voids an honest one."""

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from assay_protocol.credit_tree import PADDING, CreditLeaf, ProofItem, SumTree, encode_proof
from contracts.books import (
    Books,
    Epoch,
    account,
    bent_tree,
    entries_of,
    leaf_text,
    line,
    line_text,
    node_hash,
    node_text,
    tree_of,
)
from contracts.evm import DEPLOYER, GOOD, Evm, Refused

ALICE, CHALLENGER = (bytes([n]) * 20 for n in (0xA1, 0xC4))
LEDGER, REGISTRY = "CreditLedger", "NodeRegistry"
ONE, TWO, THREE = ((account(n), 0) for n in (1, 2, 3))


@pytest.fixture
def evm() -> Evm:
    """The poster's key has a bond of 1,000."""
    made = Evm()
    made.give(ALICE, 10_000, REGISTRY)
    made.send(ALICE, REGISTRY, "register", made.wiring.poster_key, 1_000, GOOD)
    return made


@pytest.fixture
def books(evm: Evm) -> Books:
    """Epoch 1: three leaves, of three, one and two lines. Posted."""
    made = Books()
    made.book({ONE: [5, 6, 7], TWO: [10], THREE: [20, 30]})
    post(evm, made.epochs[1], 1)
    return made


def post(evm: Evm, epoch: Epoch, number: int, leaves: int | None = None) -> None:
    evm.pass_time(1)
    evm.send(DEPLOYER, LEDGER, "post", number, epoch.header(leaves))


def challenge(evm: Evm, kind: str, *arguments: object) -> None:
    """Succeeds, and everybody gets what is theirs."""
    epoch = arguments[0][0] if kind == "DoubleLine" else arguments[0]  # type: ignore[index]
    if kind == "DoubleLine":
        epoch = arguments[1][0]  # type: ignore[index]
    bond = evm.ask(REGISTRY, "bondOf", evm.wiring.poster_key)
    before = evm.balance(CHALLENGER)
    evm.send(CHALLENGER, LEDGER, f"challenge{kind}", *arguments)
    name, event = evm.events(LEDGER)[-1]
    assert (name, event["epoch"], event["slashed"]) == ("EpochVoided", epoch, bond)
    assert evm.ask(LEDGER, "head") == epoch - 1  # type: ignore[operator]
    assert evm.balance(CHALLENGER) - before == bond * evm.wiring.reward_bps // 10_000
    assert evm.ask(REGISTRY, "bondOf", evm.wiring.poster_key) == 0


def refused(evm: Evm, kind: str, *arguments: object) -> str:
    return evm.refused(CHALLENGER, LEDGER, f"challenge{kind}", *arguments)


def forged(before: Epoch, index: int, **change: Any) -> Epoch:
    """`before` carried on by an epoch without credit, one leaf changed."""
    leaves = [replace(leaf, epoch_credit=0, receipts_root=PADDING) for leaf in before.leaves]
    leaves[index] = replace(leaves[index], **change)
    return Epoch(tuple(leaves))


# ---- step ----


@pytest.mark.parametrize(
    "change",
    [
        {"cumulative": 19},
        {"cumulative": 18, "epoch_credit": 1},
        {"cumulative": 17, "epoch_credit": 2**128 - 1},  # would wrap to 17
        {"account": account(9)},
        {"role": 1},
    ],
)
def test_a_leaf_that_does_not_follow_from_the_one_before(
    evm: Evm, books: Books, change: dict[str, Any]
) -> None:
    bad = forged(books.epochs[1], 0, **change)
    header = replace(bad.header(), total_cum=max(78, bad.tree.total))
    evm.pass_time(1)
    if header.total_cum == bad.tree.total:
        post(evm, bad, 2)
    else:  # lowered: the sum must be made up elsewhere, here in another account
        rest = replace(bad.leaves[1], cumulative=bad.leaves[1].cumulative + 1)
        bad = Epoch((bad.leaves[0], rest, bad.leaves[2]))
        post(evm, bad, 2)
    challenge(evm, "Step", 2, books.epochs[1].place(0), bad.place(0))


@pytest.mark.parametrize("credit", [0, 6, 8])
def test_a_new_leaf_that_earned_more_or_less_than_it_says(
    evm: Evm, books: Books, credit: int
) -> None:
    new = CreditLeaf(account(4), 0, 7, credit, bytes(32))
    bad = Epoch((*forged(books.epochs[1], 0).leaves, new))
    post(evm, bad, 2)
    challenge(evm, "Step", 2, bad.place(3), bad.place(3))


def test_a_forged_leaf_in_the_first_epoch(evm: Evm) -> None:
    bad = Epoch((CreditLeaf(account(4), 0, 7, 6, bytes(32)),))
    post(evm, bad, 1)
    challenge(evm, "Step", 1, bad.place(0), bad.place(0))


def test_an_honest_step_is_no_fraud(evm: Evm, books: Books) -> None:
    good = books.book({ONE: [1], (account(4), 0): [2]})
    post(evm, good, 2)
    first = books.epochs[1]
    assert refused(evm, "Step", 2, first.place(0), good.place(0)) == "NoFraud"
    assert refused(evm, "Step", 2, first.place(1), good.place(0)) == "NoFraud"
    assert refused(evm, "Step", 2, first.place(0), good.place(3)) == "NoFraud"
    assert refused(evm, "Step", 2, good.place(0), good.place(0)) == "NotInTree"
    assert refused(evm, "Step", 2, first.place(0), first.place(0)) == "NotInTree"
    assert refused(evm, "Step", 1, first.place(0), first.place(0)) == "NoFraud"
    assert refused(evm, "Step", 3, first.place(0), good.place(0)) == "UnknownEpoch"
    assert refused(evm, "Step", 0, first.place(0), good.place(0)) == "UnknownEpoch"


def test_nothing_is_challenged_once_it_is_final(evm: Evm, books: Books) -> None:
    bad = forged(books.epochs[1], 0, cumulative=19)
    post(evm, bad, 2)
    evm.pass_time(evm.wiring.window)
    places = (books.epochs[1].place(0), bad.place(0))
    assert refused(evm, "Step", 2, *places) == "EpochIsFinal"


def test_a_poster_without_a_bond_loses_the_epoch_alone(evm: Evm, books: Books) -> None:
    bad = forged(books.epochs[1], 0, cumulative=19)
    for _ in range(2):
        post(evm, bad, 2)
        challenge(evm, "Step", 2, books.epochs[1].place(0), bad.place(0))


# ---- omission, beyond ----


def with_entries(epoch: Epoch, entries: list[tuple[bytes, int]]) -> Epoch:
    return replace(epoch, bent=tree_of(entries))


def test_padding_where_a_leaf_must_be(evm: Evm, books: Books) -> None:
    entries = [*entries_of(books.epochs[1])[:2], (PADDING, 0), (account(9), 50)]
    bad = with_entries(books.epochs[1], entries)
    post(evm, bad, 2, leaves=4)
    assert refused(evm, "Omission", 2, 3, bad.proof(3)) == "NotInTree"
    challenge(evm, "Omission", 2, 2, bad.proof(2))


def test_padding_after_the_leaves_is_no_fraud(evm: Evm, books: Books) -> None:
    first = books.epochs[1]
    padded = with_entries(first, [*entries_of(first), (PADDING, 0)])
    assert padded.tree.root == first.tree.root
    assert refused(evm, "Omission", 1, 3, padded.proof(3)) == "NoFraud"
    assert refused(evm, "Omission", 1, 2, padded.proof(3)) == "NotInTree"
    assert refused(evm, "Omission", 1, 2, first.proof(2)) == "NotInTree"


@pytest.mark.parametrize(("count", "hidden"), [(3, 3), (5, 5), (5, 6), (5, 7), (6, 7)])
def test_an_amount_beyond_the_leaves(evm: Evm, count: int, hidden: int) -> None:
    leaves = tuple(CreditLeaf(account(i), 0, 1, 1, bytes(32)) for i in range(count))
    entries = [(leaf.hash, 1) for leaf in leaves] + [(PADDING, 0)] * (hidden - count)
    bad = with_entries(Epoch(leaves), [*entries, (account(77), 1_000)])
    post(evm, bad, 1, leaves=count)
    last = leaves[-1]
    challenge(evm, "Beyond", 1, last.hash, last.cumulative, bad.proof(count - 1))


def test_the_last_leafs_path_has_nothing_to_its_right(evm: Evm, books: Books) -> None:
    first = books.epochs[1]
    last = first.leaves[2]
    assert refused(evm, "Beyond", 1, last.hash, last.cumulative, first.proof(2)) == "NoFraud"
    assert refused(evm, "Beyond", 1, last.hash, 49, first.proof(2)) == "NotInTree"
    assert refused(evm, "Beyond", 1, first.leaves[1].hash, 10, first.proof(1)) == "NotInTree"
    evm.pass_time(evm.wiring.window)
    assert refused(evm, "Beyond", 1, last.hash, 50, first.proof(2)) == "EpochIsFinal"


def test_an_epoch_without_leaves_has_nothing_beyond(evm: Evm) -> None:
    post(evm, Epoch(()), 1)
    assert refused(evm, "Beyond", 1, PADDING, 0, b"") == "NoFraud"
    assert refused(evm, "Omission", 1, 0, b"") == "NoFraud"


# ---- duplicate ----


def test_an_account_twice_in_one_role(evm: Evm, books: Books) -> None:
    twin = replace(books.epochs[1].leaves[0], cumulative=1, epoch_credit=1)
    bad = Epoch((*forged(books.epochs[1], 0).leaves, twin))
    post(evm, bad, 2)
    assert refused(evm, "Duplicate", 2, bad.place(3), bad.place(3)) == "NoFraud"
    assert refused(evm, "Duplicate", 2, bad.place(1), bad.place(3)) == "NoFraud"
    with evm.undone():
        challenge(evm, "Duplicate", 2, bad.place(3), bad.place(0))
    challenge(evm, "Duplicate", 2, bad.place(0), bad.place(3))


def test_an_account_may_have_several_roles(evm: Evm, books: Books) -> None:
    good = books.book({(account(1), 4): [3]})
    post(evm, good, 2)
    assert refused(evm, "Duplicate", 2, good.place(0), good.place(3)) == "NoFraud"


def test_a_twin_is_the_fraud_of_the_epoch_that_brought_it(evm: Evm, books: Books) -> None:
    twin = replace(books.epochs[1].leaves[0], cumulative=1, epoch_credit=1)
    bad = Epoch((*forged(books.epochs[1], 0).leaves, twin))
    post(evm, bad, 2)
    carried = forged(bad, 0)
    post(evm, carried, 3)
    assert refused(evm, "Duplicate", 3, carried.place(0), carried.place(3)) == "NoFraud"
    challenge(evm, "Duplicate", 2, bad.place(0), bad.place(3))


# ---- double line ----


def book_twice(books: Books, first: tuple[bytes, int], second: tuple[bytes, int]) -> Epoch:
    """The next epoch, in which the line that `first` has in epoch 1 is booked for `second`."""
    booked = books.epochs[1].lines[0][1]
    epoch = books.book({second: [1, booked.amount]})
    index = [(leaf.account, leaf.role) for leaf in epoch.leaves].index(second)
    lines = (epoch.lines[index][0], booked)
    tree = tree_of([(each.hash, each.amount) for each in lines])
    leaf = replace(epoch.leaves[index], receipts_root=tree.root)
    leaves = (*epoch.leaves[:index], leaf, *epoch.leaves[index + 1 :])
    all_lines = (*epoch.lines[:index], lines, *epoch.lines[index + 1 :])
    return Epoch(leaves, all_lines)


@pytest.mark.parametrize("second", [ONE, TWO, (account(8), 0)])
def test_a_job_that_is_booked_in_two_epochs(
    evm: Evm, books: Books, second: tuple[bytes, int]
) -> None:
    bad = book_twice(books, ONE, second)
    post(evm, bad, 2)
    index = [(leaf.account, leaf.role) for leaf in bad.leaves].index(second)
    old, new = books.epochs[1].booking(1, 0, 1), bad.booking(2, index, 1)
    assert refused(evm, "DoubleLine", new, old) == "NoFraud"
    assert refused(evm, "DoubleLine", old, bad.booking(2, index, 0)) == "NoFraud"
    challenge(evm, "DoubleLine", old, new)


def test_a_job_of_a_final_epoch_that_is_booked_again(evm: Evm, books: Books) -> None:
    evm.pass_time(evm.wiring.window)
    bad = book_twice(books, ONE, TWO)
    post(evm, bad, 2)
    challenge(evm, "DoubleLine", books.epochs[1].booking(1, 0, 1), bad.booking(2, 1, 1))
    assert evm.ask(LEDGER, "isFinal", 1)


def test_a_job_that_is_booked_twice_in_one_leaf(evm: Evm) -> None:
    lines = (line(1, 5), line(2, 6), line(1, 5))
    tree = tree_of([(each.hash, each.amount) for each in lines])
    bad = Epoch((CreditLeaf(account(1), 0, 16, 16, tree.root),), (lines,))
    post(evm, bad, 1)
    first, second = bad.booking(1, 0, 0), bad.booking(1, 0, 2)
    assert refused(evm, "DoubleLine", first, first) == "NoFraud"
    challenge(evm, "DoubleLine", first, second)


def two_leaves_of_one_job(role: int, second_role: int, kind: str = "job") -> Epoch:
    booked = (line(1, 5, kind),)
    leaves = [
        CreditLeaf(account(n), r, 5, 5, booked[0].hash) for n, r in enumerate((role, second_role))
    ]
    return Epoch(tuple(leaves), (booked, booked))


@pytest.mark.parametrize("role", [0, 4, 5])
def test_a_job_pays_one_account_in_a_role_of_one(evm: Evm, role: int) -> None:
    bad = two_leaves_of_one_job(role, role, "audit" if role == 4 else "job")
    post(evm, bad, 1)
    challenge(evm, "DoubleLine", bad.booking(1, 0, 0), bad.booking(1, 1, 0))


@pytest.mark.parametrize(("role", "second"), [(1, 1), (2, 2), (3, 3), (0, 1), (0, 4)])
def test_a_job_pays_many_in_different_roles_or_a_role_that_is_shared(
    evm: Evm, role: int, second: int
) -> None:
    good = two_leaves_of_one_job(role, second)
    post(evm, good, 1)
    assert refused(evm, "DoubleLine", good.booking(1, 0, 0), good.booking(1, 1, 0)) == "NoFraud"


def test_one_share_in_a_job_is_booked_once(evm: Evm) -> None:
    good = two_leaves_of_one_job(2, 2)
    post(evm, good, 1)
    leaves = tuple(replace(leaf, cumulative=10) for leaf in good.leaves)
    again = Epoch(leaves, good.lines)
    post(evm, again, 2)
    assert refused(evm, "DoubleLine", good.booking(1, 0, 0), again.booking(2, 1, 0)) == "NoFraud"
    challenge(evm, "DoubleLine", good.booking(1, 1, 0), again.booking(2, 1, 0))


def test_a_line_must_stand_in_the_leaf(evm: Evm, books: Books) -> None:
    epoch, place, booked, index, path = books.epochs[1].booking(1, 0, 1)
    good = books.epochs[1].booking(1, 0, 0)
    raised = (*booked[:3], booked[3] + 1)
    for changed in (
        (epoch, place, raised, index, path),
        (epoch, place, booked, index + 1, path),
        (epoch, place, booked, index + 4, path),
        (epoch, place, booked, index, path[:-1]),
        (epoch, books.epochs[1].place(1), booked, index, path),
    ):
        assert refused(evm, "DoubleLine", changed, good) == "LineNotInLeaf"
        assert refused(evm, "DoubleLine", good, changed) == "LineNotInLeaf"


# ---- sums ----


def leaf_of(tree: SumTree, credit: int) -> Epoch:
    return Epoch((CreditLeaf(account(1), 0, credit, credit, tree.root),))


LINES = [line(n, 10 * n) for n in range(1, 6)]
ENTRIES = [(each.hash, each.amount) for each in LINES]  # 10 + 20 + 30 + 40 + 50


def path(tree: SumTree, level: int, index: int) -> bytes:
    """From the node at (level, index) to the root."""
    return encode_proof(tree.proof(index << level)[level:])


def test_lines_that_add_up_to_another_sum_than_the_leafs(evm: Evm) -> None:
    tree = tree_of(ENTRIES)
    bad = leaf_of(tree, 151)
    post(evm, bad, 1)
    place = bad.place(0)
    pieces = [(line_text(LINES[i]), LINES[i].amount, i, path(tree, 0, i)) for i in range(5)]
    left = node_text(ENTRIES[0], ENTRIES[1])
    pieces.append((left, 30, 0, path(tree, 1, 0)))
    for piece in pieces:
        with evm.undone():
            challenge(evm, "LineSum", 1, place, piece)
    whole = [(node_hash(*ENTRIES[:2]), 30), (node_hash(*ENTRIES[2:4]), 70)]
    right = [(node_hash(ENTRIES[4], (PADDING, 0)), 50), (node_hash((PADDING, 0), (PADDING, 0)), 0)]
    top = node_text((node_hash(*whole), 100), (node_hash(*right), 50))
    challenge(evm, "LineSum", 1, place, (top, 9, 0, b""))


@pytest.mark.parametrize(("level", "index"), [(0, 0), (0, 4), (1, 0), (1, 2), (2, 1)])
def test_a_node_that_says_another_sum_than_it_has(evm: Evm, level: int, index: int) -> None:
    """No line below it leads home, so it is the piece itself that is shown."""
    tree = bent_tree(ENTRIES, {(level, index): 1_000})
    bad = leaf_of(tree, tree.total)
    post(evm, bad, 1)
    width = 2**level
    below = [*LINES, None, None, None][index * width : (index + 1) * width]
    text = line_text(LINES[index]) if level == 0 else _text(below)
    challenge(evm, "LineSum", 1, bad.place(0), (text, 1_000, index, path(tree, level, index)))


def _text(lines: list[Any]) -> bytes:
    """What the node above these lines hashes."""
    entries = [(PADDING, 0) if each is None else (each.hash, each.amount) for each in lines]
    while len(entries) > 2:
        pairs = zip(entries[::2], entries[1::2], strict=True)
        entries = [(node_hash(a, b), a[1] + b[1]) for a, b in pairs]
    return node_text(*entries)


def test_sums_of_more_than_128_bits(evm: Evm) -> None:
    big = [line(1, 2**128 - 1), line(2, 1)]
    entries = [(each.hash, each.amount) for each in big]
    wraps = leaf_of(bent_tree(entries, {(1, 0): 0}), 0)
    post(evm, wraps, 1)
    challenge(evm, "LineSum", 1, wraps.place(0), (node_text(*entries), 0, 0, b""))
    tree = bent_tree([*entries, *entries], {(1, 0): 0, (1, 1): 0})
    inner = leaf_of(tree, 0)
    post(evm, inner, 1)
    first = (line_text(big[0]), 2**128 - 1, 0, path(tree, 0, 0))
    assert refused(evm, "LineSum", 1, inner.place(0), first) == "NotAPiece"
    piece = (node_text(*entries), 0, 0, path(tree, 1, 0))
    challenge(evm, "LineSum", 1, inner.place(0), piece)


def test_credit_without_lines(evm: Evm) -> None:
    bad = Epoch((CreditLeaf(account(1), 0, 5, 5, PADDING),))
    post(evm, bad, 1)
    challenge(evm, "LineSum", 1, bad.place(0), (b"\x03", 5, 0, b""))


def test_an_account_tree_that_does_not_add_up(evm: Evm) -> None:
    leaves = tuple(CreditLeaf(account(i), 0, 1, 1, bytes(32)) for i in range(4))
    entries = [(leaf.hash, 1) for leaf in leaves]
    tree = bent_tree(entries, {(1, 1): 50})
    bad = Epoch(leaves, bent=tree)
    post(evm, bad, 1)
    assert refused(evm, "NodeSum", 1, (leaf_text(leaves[0]), 1, 0, path(tree, 0, 0))) == "NoFraud"
    with evm.undone():
        piece = (node_text(entries[2], entries[3]), 50, 1, path(tree, 1, 1))
        challenge(evm, "NodeSum", 1, piece)
    left, right = node_hash(*entries[:2]), node_hash(*entries[2:])
    top = node_text((left, 2), (right, 50))
    assert refused(evm, "NodeSum", 1, (top, 0, 0, b"")) == "NoFraud", "the root says what it has"


def test_a_leaf_that_is_worth_another_sum_than_its_parent_says(evm: Evm) -> None:
    leaves = tuple(CreditLeaf(account(i), 0, 1, 1, bytes(32)) for i in range(2))
    tree = tree_of([(leaves[0].hash, 1), (leaves[1].hash, 900)])
    post(evm, Epoch(leaves, bent=tree), 1)
    challenge(evm, "NodeSum", 1, (leaf_text(leaves[1]), 900, 1, path(tree, 0, 1)))


def test_a_root_of_another_total(evm: Evm, books: Books) -> None:
    first = books.epochs[1]
    evm.pass_time(1)
    evm.send(DEPLOYER, LEDGER, "post", 2, replace(first.header(), total_cum=1_000))
    leaf = first.leaves[0]
    challenge(evm, "NodeSum", 2, (leaf_text(leaf), leaf.cumulative, 0, first.proof(0)))


@pytest.mark.parametrize(
    "text", [b"", b"\x03\x00", b"\x04", b"\x00" * 97, b"\x01" * 98, b"\x02" * 65]
)
def test_what_no_tree_hashes_is_no_piece(evm: Evm, books: Books, text: bytes) -> None:
    assert refused(evm, "NodeSum", 1, (text, 0, 0, b"")) == "NotAPiece"
    place = books.epochs[1].place(0)
    assert refused(evm, "LineSum", 1, place, (text, 0, 0, b"")) == "NotAPiece"


def test_another_trees_piece_is_no_piece(evm: Evm, books: Books) -> None:
    first = books.epochs[1]
    piece = (leaf_text(first.leaves[0]), 18, 1, first.proof(0))
    assert refused(evm, "NodeSum", 1, piece) == "NotAPiece"
    assert refused(evm, "LineSum", 1, first.place(0), piece) == "NotAPiece"


# ---- honest epochs ----

HONEST = Books()
HONEST.book({ONE: [5, 6, 7], TWO: [10], THREE: [20, 30]})
HONEST.book({TWO: [1, 2], (account(1), 4): [3], (account(1), 2): [4, 4]})
HONEST.book({})
HONEST.book({(account(n), 0): [n] for n in range(3, 8)})
COUNT = len(HONEST.epochs) - 1
numbers = st.integers(0, COUNT + 1)
small = st.integers(0, 9)


def pieces(epoch: Epoch) -> list[tuple[bytes, int, int, bytes]]:
    """Every leaf, line and padding of an epoch's trees as a challenger could show them."""
    tree = epoch.tree
    found = [(b"\x03", 0, 0, b"")]
    for index, leaf in enumerate(epoch.leaves):
        found.append((leaf_text(leaf), leaf.cumulative, index, encode_proof(tree.proof(index))))
        lines = tree_of([(each.hash, each.amount) for each in epoch.lines[index]])
        for i, each in enumerate(epoch.lines[index]):
            found.append((line_text(each), each.amount, i, encode_proof(lines.proof(i))))
    return found


@st.composite
def places(draw: st.DrawFn) -> tuple[object, ...]:
    epoch = HONEST.epochs[draw(st.integers(1, COUNT))]
    leaf, index, proof = epoch.place(draw(st.integers(0, len(epoch.leaves) - 1)))
    return (draw(bent_leaf(leaf)), draw(st.just(index) | small), draw(bent_proof(proof)))


@st.composite
def bent_leaf(draw: st.DrawFn, leaf: CreditLeaf) -> CreditLeaf:
    if draw(st.integers(0, 3)):
        return leaf
    change = {"role": draw(st.integers(0, 5)), "cumulative": draw(st.integers(0, 99))}
    return replace(leaf, **change)


@st.composite
def bent_proof(draw: st.DrawFn, proof: bytes) -> bytes:
    how = draw(st.integers(0, 7))
    if how == 0:
        return proof + encode_proof([ProofItem(PADDING, draw(small))])
    if how == 1:
        return proof[48:]
    if how == 2 and proof:
        at = draw(st.integers(0, len(proof) - 1))
        return proof[:at] + bytes([proof[at] ^ 1]) + proof[at + 1 :]
    return proof


@st.composite
def bookings(draw: st.DrawFn) -> tuple[object, ...]:
    number = draw(st.integers(1, COUNT))
    epoch = HONEST.epochs[number]
    booked = [i for i, lines in enumerate(epoch.lines) if lines] or [0]
    index = draw(st.sampled_from(booked))
    if not epoch.lines[index]:
        leaf = epoch.leaves[index]
        return number, epoch.place(index), (0, bytes(16), leaf.account, 0), 0, b""
    which = draw(st.integers(0, len(epoch.lines[index]) - 1))
    own, place, booked_line, at, proof = epoch.booking(number, index, which)
    other = draw(st.just(own) | numbers), draw(st.just(place) | places())
    return (*other, booked_line, draw(st.just(at) | small), draw(bent_proof(proof)))


@st.composite
def bent_piece(draw: st.DrawFn) -> tuple[object, ...]:
    epoch = HONEST.epochs[draw(st.integers(1, COUNT))]
    text, claimed, index, proof = draw(st.sampled_from(pieces(epoch)))
    sums = st.just(claimed) | st.integers(0, 2**128 - 1)
    return text, draw(sums), draw(st.just(index) | small), draw(bent_proof(proof))


challenges = st.one_of(
    st.tuples(st.just("Step"), numbers, places(), places()),
    st.tuples(st.just("Duplicate"), numbers, places(), places()),
    st.tuples(st.just("DoubleLine"), bookings(), bookings()),
    st.tuples(st.just("LineSum"), numbers, places(), bent_piece()),
    st.tuples(st.just("NodeSum"), numbers, bent_piece()),
    st.tuples(numbers, places()).map(
        lambda drawn: ("Omission", drawn[0], drawn[1][1], drawn[1][2])
    ),
    st.tuples(numbers, places(), small).map(
        lambda drawn: ("Beyond", drawn[0], drawn[1][0].hash, drawn[2], drawn[1][2])
    ),
)


@pytest.fixture(scope="module")
def honest() -> Evm:
    made = Evm()
    for number, epoch in enumerate(HONEST.epochs[1:], 1):
        post(made, epoch, number)
    return made


@settings(max_examples=600, deadline=None)
@given(challenge=challenges)
def test_an_honest_epoch_cannot_be_voided(honest: Evm, challenge: tuple[Any, ...]) -> None:
    kind, *arguments = challenge
    with pytest.raises(Refused):
        honest.send(CHALLENGER, LEDGER, f"challenge{kind}", *arguments)
    assert honest.ask(LEDGER, "head") == COUNT
