"""Calls of Assay's contracts as bytes and back, read from the committed artefacts.

Rules: structs are tuples, dictionaries of exactly the members, or dataclasses that have the
members' names in snake_case; addresses are 20 bytes both ways; bytesN must have N bytes. What does
not fit the ABI raises AssayError("malformed"), be it ours or a chain's. Nothing here asks a chain.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from functools import cache
from typing import Any, Final

import eth_abi
from eth_abi.exceptions import DecodingError, EncodingError

from assay_contracts.artefact import CONTRACTS, load
from assay_contracts.records import ContractRefused, Log
from assay_protocol.errors import AssayError

DATA_BYTES_MAX: Final = 1 << 20
SELECTOR_BYTES: Final = 4
WORD_BYTES: Final = 32
Parameters = tuple[dict[str, Any], ...]

# What Solidity itself reverts with: Error(string) and Panic(uint256).
_BUILT_IN: Final[dict[bytes, tuple[str, Parameters]]] = {
    bytes.fromhex("08c379a0"): ("Error", ({"name": "message", "type": "string"},)),
    bytes.fromhex("4e487b71"): ("Panic", ({"name": "code", "type": "uint256"},)),
}


@dataclass(frozen=True, slots=True)
class Refusal:
    """A custom error: its name and its arguments by name."""

    name: str
    arguments: Mapping[str, Any]

    def __str__(self) -> str:
        return f"{self.name}({', '.join(f'{k}={shown(v)}' for k, v in self.arguments.items())})"


def encode(contract: str, function: str, *arguments: object) -> bytes:
    """Call data of `function`, by its name or, if there are several, its signature."""
    called = _function(contract, function)
    return called.selector + _pack(called.inputs, arguments, f"{contract}.{function}")


def decode(contract: str, function: str, data: bytes) -> tuple[Any, ...]:
    """What `function` answered, one item a return value."""
    called = _function(contract, function)
    return _unpack(called.outputs, data, f"{contract}.{function}")


def arguments(contract: str, function: str, data: bytes) -> tuple[Any, ...]:
    """What `function` was called with; "malformed" if `data` is no call of it."""
    called = _function(contract, function)
    what = f"{contract}.{function}"
    if data[:SELECTOR_BYTES] != called.selector:
        raise AssayError("malformed", f"not a call of {what}")
    return _unpack(called.inputs, data[SELECTOR_BYTES:], what)


def constructor(contract: str, *arguments: object) -> bytes:
    """Creation code of `contract` with its arguments."""
    inputs = next((_inputs(e) for e in load(contract).abi if e["type"] == "constructor"), ())
    return load(contract).bytecode + _pack(inputs, arguments, contract)


def events(contract: str, log: Log) -> tuple[str, dict[str, Any]]:
    """An event of `contract`: its name and its arguments by name. An indexed argument of a dynamic
    type is its hash: that is all the log holds. "malformed" if the log is not one of them."""
    topic = log.topics[0] if log.topics else b""
    name = load(contract).events.get(topic)
    if name is None:
        raise AssayError("malformed", f"not an event of {contract}")
    inputs = _event(contract, topic)
    indexed = tuple(p if _is_word(p) else {**p, "type": "bytes32"} for p in inputs if p["indexed"])
    plain = tuple(p for p in inputs if not p["indexed"])
    what = f"{contract}.{name}"
    values = _named(indexed, b"".join(log.topics[1:]), what) | _named(plain, log.data, what)
    return name, {parameter["name"]: values[parameter["name"]] for parameter in inputs}


def topic(contract: str, event: str) -> bytes:
    """The first topic of the event called `event`."""
    (found,) = (topic for topic, name in load(contract).events.items() if name == event)
    return found


def refusal(output: bytes) -> Refusal | None:
    """The custom error in a revert's data; None if no contract of ours has it, or it is broken. A
    contract that another one called may have raised it, so all are looked through."""
    found = _errors().get(output[:SELECTOR_BYTES])
    if found is None:
        return None
    name, inputs = found
    try:
        return Refusal(name, _named(inputs, output[SELECTOR_BYTES:], name))
    except AssayError:
        return None


def explained(refused: ContractRefused) -> ContractRefused:
    """The same refusal with words for people: the error's name and arguments."""
    found = refusal(refused.output)
    text = f"reverted with 0x{refused.output[:64].hex()}" if found is None else str(found)
    return ContractRefused(refused.output, f"the contract refused: {text}")


@dataclass(frozen=True, slots=True)
class _Function:
    selector: bytes
    inputs: Parameters
    outputs: Parameters


@cache
def _function(contract: str, function: str) -> _Function:
    artefact = load(contract)
    found = [
        _Function(artefact.selectors[signature], _inputs(entry), tuple(entry["outputs"]))
        for entry in artefact.abi
        if entry["type"] == "function"
        and function in (signature := f"{entry['name']}{_types(_inputs(entry))}", entry["name"])
    ]
    if len(found) != 1:
        raise AssayError("malformed", f"{contract} has {len(found)} functions called {function}")
    return found[0]


@cache
def _event(contract: str, topic: bytes) -> Parameters:
    artefact = load(contract)
    name = artefact.events[topic]
    (entry,) = (e for e in artefact.abi if e["type"] == "event" and e["name"] == name)
    return _inputs(entry)


@cache
def _errors() -> dict[bytes, tuple[str, Parameters]]:
    found = dict(_BUILT_IN)
    for artefact in map(load, CONTRACTS):
        by_name = {e["name"]: _inputs(e) for e in artefact.abi if e["type"] == "error"}
        found |= {code: (name, by_name[name]) for code, name in artefact.errors.items()}
    return found


def _inputs(entry: Mapping[str, Any]) -> Parameters:
    return tuple(entry["inputs"])


def _is_word(parameter: Mapping[str, Any]) -> bool:
    return not re.search(r"\[|^tuple|^string$|^bytes$", parameter["type"])


def _types(parameters: Sequence[Mapping[str, Any]]) -> str:
    return f"({','.join(map(_type, parameters))})"


def _type(parameter: Mapping[str, Any]) -> str:
    kind: str = parameter["type"]
    if kind.startswith("tuple"):
        return _types(parameter["components"]) + kind.removeprefix("tuple")
    return kind


def _pack(parameters: Parameters, arguments: Sequence[object], what: str) -> bytes:
    if len(arguments) != len(parameters):
        raise AssayError("malformed", f"{what} takes {len(parameters)} arguments")
    try:
        values = [_given(p, p["type"], a) for p, a in zip(parameters, arguments, strict=True)]
        return bytes(eth_abi.encode([_type(p) for p in parameters], values))
    except (EncodingError, TypeError, ValueError, OverflowError) as error:
        raise AssayError("malformed", f"an argument of {what} does not fit: {error}") from None


def _given(parameter: Mapping[str, Any], kind: str, value: Any) -> Any:
    """`value` as eth_abi takes it: dataclasses become tuples, all the way down."""
    if kind.endswith("]"):
        return [_given(parameter, kind[: kind.rindex("[")], item) for item in value]
    if kind == "tuple":
        components = parameter["components"]
        items = _fields(components, value) if _has_names(value) else value
        return tuple(_given(c, c["type"], item) for c, item in zip(components, items, strict=True))
    # eth_abi takes less than N bytes and pads, and text as hex: both hide mistakes.
    size = 20 if kind == "address" else int(kind[5:]) if re.fullmatch(r"bytes\d+", kind) else None
    if size is not None and (not isinstance(value, bytes) or len(value) != size):
        raise ValueError(f"{parameter['name']} must be {size} bytes")
    return value


def _has_names(value: object) -> bool:
    return isinstance(value, Mapping) or is_dataclass(value)


def _fields(components: Sequence[Mapping[str, Any]], value: Any) -> list[Any]:
    if isinstance(value, Mapping):
        if value.keys() != {component["name"] for component in components}:
            raise ValueError(f"not the members of the struct: {sorted(value)}")
        return [value[component["name"]] for component in components]
    known = {field.name for field in fields(value)}
    wanted = [re.sub(r"(?<!^)(?=[A-Z])", "_", c["name"]).lower() for c in components]
    if not known.issuperset(wanted):
        raise ValueError(f"{type(value).__name__} lacks {sorted(set(wanted) - known)}")
    return [getattr(value, name) for name in wanted]


def _unpack(parameters: Parameters, data: bytes, what: str) -> tuple[Any, ...]:
    if len(data) > DATA_BYTES_MAX:
        raise AssayError("malformed", f"{what} answered more than 1 MiB")
    try:
        values = eth_abi.decode([_type(p) for p in parameters], data)
    except (DecodingError, ValueError, OverflowError) as error:
        raise AssayError("malformed", f"{what} answered what it cannot: {error}") from None
    return tuple(_taken(p, p["type"], v) for p, v in zip(parameters, values, strict=True))


def _named(parameters: Parameters, data: bytes, what: str) -> dict[str, Any]:
    names = (parameter["name"] for parameter in parameters)
    return dict(zip(names, _unpack(parameters, data, what), strict=True))


def _taken(parameter: Mapping[str, Any], kind: str, value: Any) -> Any:
    if kind.endswith("]"):
        return tuple(_taken(parameter, kind[: kind.rindex("[")], item) for item in value)
    if kind == "tuple":
        components = parameter["components"]
        return tuple(_taken(c, c["type"], v) for c, v in zip(components, value, strict=True))
    return bytes.fromhex(value[2:]) if kind == "address" else value


def shown(value: object) -> str:
    """A decoded value for people."""
    return f"0x{value.hex()}" if isinstance(value, bytes) else str(value)
