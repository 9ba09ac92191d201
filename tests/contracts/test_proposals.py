"""Plain words become calls, and calls words: what is not said stays as it is."""

from __future__ import annotations

import pytest

from assay_contracts.govern.proposals import ACTIONS_MAX, Entry, Wish, actions_of, parse_split
from assay_protocol.errors import AssayError
from assay_protocol.messages import Share
from assay_protocol.splits import DATA, PUBLISHER

MODEL, OTHER, ACCOUNT = b"m" * 32, b"o" * 32, b"a" * 32
SHARE = Share(account=ACCOUNT, role=PUBLISHER, bps=500)
PLAIN = (ACCOUNT, PUBLISHER, 500)


def test_what_is_not_said_of_a_model_stays() -> None:
    entries = {MODEL: Entry(True, (SHARE,)), OTHER: Entry(False)}
    [deny] = actions_of(Wish(deny=(MODEL,)), entries, is_open=False)
    assert deny.arguments == (MODEL, False, (PLAIN,))
    [split] = actions_of(Wish(splits={OTHER: (SHARE,)}), entries, is_open=True)
    assert split.arguments == (OTHER, False, (PLAIN,))
    [none] = actions_of(Wish(splits={MODEL: ()}), entries, is_open=True)
    assert none.arguments == (MODEL, True, ())


@pytest.mark.parametrize(
    ("wish", "is_open", "allowed"),
    [
        (Wish(splits={MODEL: (SHARE,)}), True, True),  # of a model not listed yet
        (Wish(splits={MODEL: (SHARE,)}), False, False),
        (Wish(splits={MODEL: (SHARE,)}, open=False), True, False),
        (Wish(splits={MODEL: (SHARE,)}, allow=(MODEL,)), False, True),
    ],
)
def test_a_split_alone_neither_allows_nor_denies(wish: Wish, is_open: bool, allowed: bool) -> None:
    first = actions_of(wish, {}, is_open=is_open)[0]
    assert first.arguments == (MODEL, allowed, (PLAIN,))


def test_all_that_can_be_wished() -> None:
    wish = Wish(
        allow=(MODEL,),
        deny=(OTHER,),
        unlist=(ACCOUNT,),
        open=False,
        moderation=(b"h" * 32, 3),
        min_bond=7,
        holders=2,
        minter=b"l" * 20,
    )
    found = actions_of(wish, {}, is_open=True)
    assert [str(one) for one in found] == [
        f"allow model {MODEL.hex()}",
        f"deny model {OTHER.hex()}",
        f"unlist model {ACCOUNT.hex()}",
        "deny models that are not listed",
        f"moderation policy {(b'h' * 32).hex()} version 3",
        "least bond 7 micro-credits",
        "2 holders of an epoch's data",
        f"ledger 0x{(b'l' * 20).hex()}",
    ]


@pytest.mark.parametrize(
    "wish",
    [
        Wish(),
        Wish(allow=(MODEL,), deny=(MODEL,)),
        Wish(allow=(MODEL, MODEL)),
        Wish(unlist=(MODEL,), splits={MODEL: (SHARE,)}),
        Wish(splits={MODEL: (Share(account=ACCOUNT, role=DATA, bps=4_001),)}),
        Wish(splits={MODEL: (SHARE, SHARE)}),
        Wish(deny=tuple(bytes([n]) * 32 for n in range(ACTIONS_MAX + 1))),
    ],
)
def test_a_wish_that_cannot_be_is_refused(wish: Wish) -> None:
    with pytest.raises(AssayError, match="config_invalid"):
        actions_of(wish, {}, is_open=True)


def test_a_split_is_written_in_one_word() -> None:
    text = f"{MODEL.hex()}={ACCOUNT.hex()}:publisher:500"
    assert parse_split(text) == (MODEL, SHARE)


@pytest.mark.parametrize(
    "rest",
    ["", "publisher:500:1", "compute:5", "publisher:0", "publisher:x", "nobody:5", "data:10001"],
)
def test_another_word_is_refused(rest: str) -> None:
    with pytest.raises(AssayError, match="config_invalid"):
        parse_split(f"{MODEL.hex()}={ACCOUNT.hex()}:{rest}")
    with pytest.raises(AssayError, match="config_invalid"):
        parse_split(f"zz={ACCOUNT.hex()}:publisher:5")
