"""`assay gateway`: serve, and `assay gateway keys`: who may ask.

Every setting can stand in a TOML file, in an ASSAY_GATEWAY_* variable, or be a flag. Ready is said
by one JSON line on standard output; the log goes to standard error, without prompts or keys.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import signal
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final

import trio

from assay.gateway.api_keys import add_key, read_keys, revoke_key
from assay.gateway.app import run_gateway
from assay.gateway.settings import Settings, load_from_process, load_settings
from assay_network.descriptors import raise_descriptor_limit
from assay_network.logs import configure_logs
from assay_network.scopes import single_errors
from assay_protocol.errors import AssayError

OK, FAILED, USAGE = 0, 1, 2
_WRONG_COMMAND: Final = frozenset({"config_invalid", "key_permissions", "key_invalid"})


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code."""
    words = list(sys.argv[1:] if argv is None else argv)
    try:
        if words[:1] == ["init"]:
            return _init(words[1:])
        if words[:1] == ["keys"]:
            return _keys(keys_parser().parse_args(words[1:]))
        file, given = _given(parser(), words)
        settings = load_from_process(file, given)
        configure_logs()
        raise_descriptor_limit()  # each connection takes one
        trio.run(_serve, settings)
    except AssayError as error:
        print(f"assay gateway: {error}", file=sys.stderr)
        return USAGE if error.code in _WRONG_COMMAND else FAILED
    except KeyboardInterrupt:
        return OK
    return OK


def _given(from_flags: argparse.ArgumentParser, words: list[str]) -> tuple[str | None, Any]:
    """The configuration file, and the settings that flags give."""
    options = vars(from_flags.parse_args(words))
    file = options.pop("config")
    del options["json"]
    return file, {name: value for name, value in options.items() if value is not None}


def _init(words: list[str]) -> int:
    """Write a configuration of these flags, and the account's key unless it is there."""
    from assay_network.config_files import as_toml, config_path, write_new
    from assay_network.keystore import load_or_create_key
    from assay_network.typed_settings import data_folder, defaults_of

    file, given = _given(parser(), words)
    settings = load_settings(None, {}, given)  # refuses what the gateway would
    path = config_path(Path(file) if file else None, "gateway")
    head = "A gateway to the Assay network. What each key means: docs/call-the-network.md"
    write_new(path, as_toml(defaults_of(Settings), given, head))
    key = Path(settings.key).expanduser() if settings.key else data_folder("", "client.key")
    load_or_create_key(key)
    print(json.dumps({"config": str(path), "key_file": str(key)}))
    return OK


async def _serve(settings: Settings) -> None:
    with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals, single_errors():
        async with trio.open_nursery() as nursery:
            serve = partial(run_gateway, settings, stop=partial(anext, signals))
            url = await nursery.start(serve)
            print(json.dumps({"ready": url, "api": f"{url}/v1"}), flush=True)


def parser() -> argparse.ArgumentParser:
    """The flags of a gateway: one for each of its settings."""
    top = argparse.ArgumentParser(
        prog="assay gateway",
        description="Serve OpenAI's and Anthropic's APIs from the network.",
        epilog="also: assay gateway keys add|list|revoke, assay gateway init. Exit codes: 0 ended "
        "as told, 1 it failed, 2 wrong command line or settings.",
    )
    top.add_argument("--config", metavar="FILE", help="TOML; the same names with '_'")
    top.add_argument("--json", action="store_true", help="what it prints always is")
    for field in dataclasses.fields(Settings):
        flag = "--" + field.name.replace("_", "-")
        if isinstance(field.default, bool):
            top.add_argument(flag, action="store_true", default=None)
        elif isinstance(field.default, tuple):
            top.add_argument(flag, action="append", default=None)
        else:
            top.add_argument(flag, type=type(field.default), default=None)
    return top


def keys_parser() -> argparse.ArgumentParser:
    """The command line of `assay gateway keys`."""
    parser = argparse.ArgumentParser(prog="assay gateway keys")
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    made = verbs.add_parser("add", help="make a key and print it, once")
    made.add_argument("--budget", type=int, default=0, help="micro-credits; 0: no bound")
    made.add_argument("--requests-per-minute", type=int, default=0, help="0: no bound")
    made.add_argument("--at-once", type=int, default=0, help="requests; 0: no bound")
    made.add_argument(
        "--upstream-budget",
        type=_upstream_budget,
        action="append",
        default=[],
        metavar="NAME=MICRO",
        help="what it may spend at that upstream, in micro-units of its currency; 0: no bound; "
        "where it is not given, the upstream's key_budget",
    )
    made.add_argument("--owner", action="store_true", help="may read every key's /v1/routes")
    revoked = verbs.add_parser("revoke", help="take a key out of the file")
    listed = verbs.add_parser("list", help="names and bounds")
    for verb in (made, revoked, listed):
        verb.add_argument("--json", action="store_true")
        verb.add_argument("--keys", type=Path, required=True, metavar="FILE")
    for verb in (made, revoked):
        verb.add_argument("name")
    return parser


def _upstream_budget(text: str) -> tuple[str, int]:
    name, equals, micro = text.rpartition("=")
    if not (name and equals and micro.isascii() and micro.isdecimal() and len(micro) < 20):
        raise argparse.ArgumentTypeError(f"must be NAME=MICRO, not {text[:64]!r}")
    return name, int(micro)


def _keys(options: argparse.Namespace) -> int:
    if options.verb == "add":
        bounds = {name: getattr(options, name) for name in ("requests_per_minute", "at_once")}
        bounds |= {"budget": options.budget, "owner": options.owner}
        budgets = dict(options.upstream_budget)
        if len(budgets) < len(options.upstream_budget):
            raise AssayError("config_invalid", "--upstream-budget names an upstream twice")
        made = add_key(options.keys, options.name, upstream_budgets=budgets, **bounds)
        print(json.dumps({"name": options.name, "key": made}) if options.json else made)
    elif options.verb == "revoke":
        revoke_key(options.keys, options.name)
        if options.json:
            print(json.dumps({"name": options.name, "revoked": True}))
    else:
        _list(read_keys(options.keys), options.json)
    return OK


def _list(keys: Sequence[Any], as_json: bool) -> None:
    for key in keys:
        told = dataclasses.asdict(key)
        del told["sha256"]
        if as_json:
            print(json.dumps(told))
        else:
            mark = ", owner" if told.pop("owner") else ""
            for name, micro in told.pop("upstream_budgets").items():
                mark += f", at {name} {micro or 'any'}"
            bounds = ", ".join(f"{name} {value or 'any'}" for name, value in told.items()) + mark
            print(bounds)


if __name__ == "__main__":
    sys.exit(main())
