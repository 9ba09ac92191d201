import contextlib
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from assay_contracts import calls
from assay_contracts.adapters.backend import Fees
from assay_contracts.adapters.embedded_chain import EmbeddedChain
from assay_contracts.adapters.wallet import Wallet
from assay_contracts.artefact import CONTRACTS, load
from assay_contracts.credit.ledger_abi import Header
from assay_contracts.deploy.deployment import OFFERS_MAX, create, deploy, verify
from assay_contracts.deploy.deployment_record import Record, read_record
from assay_contracts.deploy.ledger import CreditLedgerClient
from assay_contracts.deploy.ledger_upgrade import newest_final, upgrade
from assay_contracts.deploy.plan import LOCAL, PUBLIC, Creation, Parameters, Plan, immutables_differ
from assay_contracts.local.chain import LocalChain
from assay_contracts.local.genesis import Genesis, poster_key
from assay_contracts.records import SendRefused
from assay_protocol.errors import AssayError

SEED = bytes(range(32))
KEY = poster_key(SEED)
WALLET = Wallet(KEY)
ACCOUNT = bytes([0xAC]) * 32
PLAN = Plan(WALLET.address, ACCOUNT, WALLET.address)
CODE_BYTES_MAX, CREATION_BYTES_MAX = 24_576, 49_152  # EIP-170, EIP-3860


class Killed(BaseException):
    """The process ended here."""


class Dying(EmbeddedChain):
    """Ends the process at its `last`-th transaction, before or after it is mined."""

    def __init__(self, chain: LocalChain, last: int, *, mined: bool) -> None:
        super().__init__(chain)
        self._left, self._mined = last, mined

    async def send_raw(self, raw: bytes) -> bytes:
        self._left -= 1
        if self._left == 0:
            if self._mined:
                await super().send_raw(raw)
            raise Killed
        return await super().send_raw(raw)


@pytest.fixture
def local(tmp_path: Path) -> Iterator[LocalChain]:
    genesis = Genesis(WALLET.address)
    with LocalChain.open(tmp_path / "chain", genesis=genesis, durable=False) as chain:
        yield chain


def silent(text: str) -> None:
    assert text


async def deployed(local: LocalChain, plan: Plan = PLAN) -> Record:
    return await deploy(EmbeddedChain(local), WALLET, Record(plan), lambda record: None, silent)


def test_what_ships_fits_the_chain_s_limits() -> None:
    for creation in PLAN.creations():
        assert len(creation.code) <= CREATION_BYTES_MAX, creation.contract
        assert len(load(creation.contract).runtime_bytecode) <= CODE_BYTES_MAX, creation.contract


def test_a_plan_names_every_immutable() -> None:
    for contract, config in PLAN.configs().items():
        assert load(contract).immutables.keys() <= config.keys(), contract


def test_unbonding_outlasts_what_a_bond_answers_for() -> None:
    with pytest.raises(AssayError, match="unbonding"):
        replace(LOCAL, unbonding=LOCAL.window)
    assert PUBLIC.window > LOCAL.window


async def test_deploying_twice_creates_once(local: LocalChain) -> None:
    record = await deployed(local)
    assert local.nonce(WALLET.address) == len(CONTRACTS)
    assert await deployed(local) != Record(PLAN)
    assert local.nonce(WALLET.address) == len(CONTRACTS)
    report = await verify(EmbeddedChain(local), record)
    assert report.ok, report.failed
    # Without the transactions' hashes they are found in the first blocks.
    assert (await verify(EmbeddedChain(local), Record(PLAN))).ok


@pytest.mark.parametrize("mined", [False, True])
async def test_killed_at_any_transaction_it_goes_on(
    local: LocalChain, tmp_path: Path, *, mined: bool
) -> None:
    path = tmp_path / "record.json"
    for last in range(1, 2 * len(CONTRACTS)):
        chain = Dying(local, 1 if mined else 1 + last % 2, mined=mined)
        record = read_record(path) or Record(PLAN)
        try:
            await deploy(chain, WALLET, record, lambda r: _write(path, r), silent)
        except Killed:
            continue
        break
    else:
        pytest.fail("it never ends")
    assert local.nonce(WALLET.address) == len(CONTRACTS)
    found = read_record(path)
    assert found is not None
    assert all(made.transaction and made.code_sha256 for _, made in found.contracts)
    assert (await verify(EmbeddedChain(local), found)).ok


async def test_a_nonce_that_another_transaction_used_ends_it(local: LocalChain) -> None:
    local.send(KEY, WALLET.address, b"")
    with pytest.raises(AssayError, match="next nonce is 1, not 0") as caught:
        await deployed(local)
    assert caught.value.code == "chain_mismatch"


async def test_another_chain_or_wallet_is_refused(local: LocalChain) -> None:
    with pytest.raises(AssayError, match="of chain 7"):
        await deployed(local, replace(PLAN, chain_id=7))
    with pytest.raises(AssayError, match="deployer"):
        await deployed(local, replace(PLAN, deployer=bytes(20)))
    assert local.nonce(WALLET.address) == 0


@pytest.mark.parametrize(
    ("other", "step"),
    [
        (replace(PLAN, poster=bytes([1]) * 20), "CreditLedger: immutables"),
        (replace(PLAN, poster_key=bytes(32)), "CreditLedger: immutables"),
        (replace(PLAN, first_nonce=1), "Ed25519Verifier: code"),
        (replace(PLAN, parameters=replace(LOCAL, span=7)), "Governance: immutables"),
        (replace(PLAN, parameters=replace(LOCAL, probation=7)), "NodeRegistry: immutables"),
        (replace(PLAN, parameters=replace(LOCAL, juror_bps=7)), "SlashCourt: immutables"),
        (replace(PLAN, parameters=replace(LOCAL, timelock_delay=7)), "TimelockController: delay"),
        (replace(PLAN, chain_id=7), "chain"),
    ],
)
async def test_what_differs_from_the_record_is_named(
    local: LocalChain, other: Plan, step: str
) -> None:
    await deployed(local)
    report = await verify(EmbeddedChain(local), Record(other))
    assert not report.ok
    assert step in report.failed


class Sly(Plan):
    """A deployer who gives himself what no immutable shows."""

    def arguments(self) -> dict[str, tuple[Any, ...]]:
        told = super().arguments()
        delay, proposers, executors, _ = told["TimelockController"]
        told["TimelockController"] = (delay, [*proposers, self.deployer], executors, self.deployer)
        config, targets = told["Governance"]
        told["Governance"] = (config, [*targets, self.addresses["SlashCourt"]])
        return told


async def test_hidden_roles_and_targets_are_found(local: LocalChain) -> None:
    record = await deployed(local, Sly(WALLET.address, ACCOUNT, WALLET.address))
    report = await verify(EmbeddedChain(local), replace(record, plan=PLAN))
    assert report.failed == ("TimelockController: RoleGranted", "Governance: TargetListed")


def test_an_immutable_that_the_config_lacks_differs() -> None:
    code = load("CreditToken").runtime_bytecode
    assert immutables_differ("CreditToken", code, {}) == ["timelock"]
    assert immutables_differ("CreditToken", code, {"timelock": bytes(20)}) == []


# ---- the coordinator's own ----


def test_the_coordinator_deploys_all_and_goes_on_where_it_was_killed(local: LocalChain) -> None:
    client = CreditLedgerClient(local, KEY, ACCOUNT)
    for creation in client.plan.creations()[:3]:
        local.send(KEY, None, creation.code)
    deployment = client.deploy()
    assert list(deployment.contracts) == list(CONTRACTS)
    assert deployment.address == deployment.contracts["CreditLedger"]
    assert local.nonce(WALLET.address) == len(CONTRACTS)
    assert client.deploy() == deployment
    with pytest.raises(AssayError, match="posterKey"):
        CreditLedgerClient(local, KEY).deploy()


# ---- a new ledger ----


async def test_a_ledger_goes_on_from_the_newest_final_epoch(tmp_path: Path) -> None:
    now = [1_800_000_000]
    genesis = Genesis(WALLET.address)
    with LocalChain.open(tmp_path / "c", genesis=genesis, clock=lambda: now[0]) as local:
        record, chain = await deployed(local), EmbeddedChain(local)
        ledger = CreditLedgerClient(local, KEY, ACCOUNT)
        with pytest.raises(AssayError) as caught:
            await upgrade(chain, WALLET, record, lambda r: None, silent)
        assert caught.value.code == "epoch_out_of_order"
        for epoch in range(1, 4):
            ledger.post(epoch, Header(bytes([7]) * 32, epoch, 1, 1, bytes(32), bytes(32)))
        now[0] += LOCAL.window + 60
        for epoch in range(4, 6):
            ledger.post(epoch, Header(bytes([7]) * 32, epoch, 1, 1, bytes(32), bytes(32)))
        assert await newest_final(chain, ledger.address) == 3
        kept: list[Record] = []
        record, handover = await upgrade(chain, WALLET, record, kept.append, silent)
        assert record.successors[0].base_epoch == 3
        assert Record.decode(record.encode()) == record == kept[-1]
        assert (await verify(chain, record)).ok
        told = calls.decode("CreditLedger", "totalOf", local.call(
            handover.ledger, calls.encode("CreditLedger", "totalOf", 3)))  # fmt: skip
        assert told == (3,)
        # Again: nothing new while governance has not passed it.
        sent = local.nonce(WALLET.address)
        assert await upgrade(chain, WALLET, record, kept.append, silent) == (record, handover)
        assert local.nonce(WALLET.address) == sent


async def test_a_successor_whose_nonce_was_used_is_planned_again(tmp_path: Path) -> None:
    now = [1_800_000_000]
    genesis = Genesis(WALLET.address)
    with LocalChain.open(tmp_path / "c", genesis=genesis, clock=lambda: now[0]) as local:
        record = await deployed(local)
        ledger = CreditLedgerClient(local, KEY, ACCOUNT)
        ledger.post(1, Header(bytes([7]) * 32, 1, 1, 1, bytes(32), bytes(32)))
        now[0] += LOCAL.window + 60
        ledger.chain.send_raw(ledger.chain.sign(KEY, WALLET.address, b"", nonce=9)[0])
        kept: list[Record] = [record]
        with pytest.raises(Killed):
            await upgrade(Dying(local, 1, mined=False), WALLET, record, kept.append, silent)
        local.send(KEY, WALLET.address, b"")
        record, _ = await upgrade(EmbeddedChain(local), WALLET, kept[-1], kept.append, silent)
        assert len(record.successors) == 1
        assert record.successors[0].nonce == 11


# ---- the record ----


async def test_a_record_survives_its_file(local: LocalChain, tmp_path: Path) -> None:
    record = await deployed(local)
    path = tmp_path / "42330.json"
    assert read_record(path) is None
    _write(path, record)
    assert read_record(path) == record


def _write(path: Path, record: Record) -> None:
    path.write_text(record.encode())


@given(
    st.sampled_from([*json.loads(Record(PLAN).encode())]),
    st.none() | st.integers() | st.text() | st.lists(st.integers()),
)
def test_a_changed_record_is_refused_or_read_as_it_stands(name: str, value: object) -> None:
    told = json.loads(Record(PLAN).encode()) | {name: value}
    with contextlib.suppress(AssayError):
        read = Record.decode(json.dumps(told))
        assert Record.decode(read.encode()) == read


@pytest.mark.parametrize("text", ["", "[]", "{}", "null", "[" * 50_000, "x" * ((1 << 20) + 1)])
def test_what_is_no_record_is_refused(text: str) -> None:
    with pytest.raises(AssayError) as caught:
        Record.decode(text)
    assert caught.value.code == "config_invalid"


def test_an_address_that_does_not_follow_from_the_plan_is_refused() -> None:
    told = json.loads(Record(PLAN).encode())
    told["contracts"]["CreditToken"]["address"] = "0x" + "11" * 20
    with pytest.raises(AssayError, match="not where the plan puts it"):
        Record.decode(json.dumps(told))


# ---- chains that others mine ----


class Slow:
    """Mines nothing until what is offered is enough; each offer must be higher than the last."""

    def __init__(self, enough: int) -> None:
        self.offers: list[bytes] = []
        self._enough = enough

    async def chain_id(self) -> int:
        return 1

    async def estimate(self, sender: bytes, to: bytes | None, data: bytes) -> int:
        return 1_000_000

    async def fees(self) -> Fees:
        return Fees(base=10**9, tip=10**9)

    async def send_raw(self, raw: bytes) -> bytes:
        self.offers.append(raw)
        if len(self.offers) == 2:
            raise SendRefused("underpriced", "replacement transaction underpriced")
        return b""

    async def code(self, address: bytes) -> bytes:
        return b"code" if len(self.offers) >= self._enough else b""

    async def receipt(self, name: bytes) -> None:
        return None


CREATION = Creation("CreditToken", bytes(20), 3, b"code")


async def test_more_is_offered_until_it_is_mined(autojump_clock: trio.testing.MockClock) -> None:
    chain, sent = Slow(4), list[bytes]()
    await create(chain, WALLET, CREATION, sent.append)  # type: ignore[arg-type]
    assert len(chain.offers) == 4 == len(set(sent))


async def test_offers_end(autojump_clock: trio.testing.MockClock) -> None:
    chain = Slow(1_000)
    with pytest.raises(AssayError) as caught:
        await create(chain, WALLET, CREATION, lambda name: None)  # type: ignore[arg-type]
    assert caught.value.code == "timeout"
    assert len(chain.offers) == OFFERS_MAX


async def test_a_chain_that_asks_too_much_is_told() -> None:
    class Dear(Slow):
        async def fees(self) -> Fees:
            return Fees(base=10**15, tip=0)

    with pytest.raises(AssayError) as caught:
        await create(Dear(1), WALLET, CREATION, lambda name: None)  # type: ignore[arg-type]
    assert caught.value.code == "gas_too_low"


def test_parameters_are_numbers() -> None:
    assert all(isinstance(getattr(LOCAL, name), int) for name in Parameters.__dataclass_fields__)
