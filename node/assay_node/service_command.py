"""`node service install`: a systemd unit for a configuration, written where systemd looks for it.

Nothing is enabled or started: the commands for that are printed. A unit that is there already and
differs is not overwritten without --replace.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from assay_node.config import Settings, load_settings
from assay_node.core.parameters import SECOND_US, Parameters
from assay_node.service_unit import UNIT_NAME, Scope, Unit, render
from assay_protocol.errors import AssayError

STOP_SPARE_SECONDS: Final = 20  # beyond the longest drain, before systemd kills
VERIFY_SECONDS_MAX: Final = 30
Run = Callable[[argparse.Namespace], int]


def add_service_commands(add: Callable[[str, Run, str], argparse.ArgumentParser]) -> None:
    """Add the commands with their flags; `add(name, run, text)` makes one."""
    install = add("install", _install, "write a systemd unit that starts this node")
    install.add_argument("--config", required=True, type=Path, help="TOML file of the node")
    scope = install.add_mutually_exclusive_group()
    scope.add_argument("--user", dest="scope", action="store_const", const="user", help="default")
    scope.add_argument("--system", dest="scope", action="store_const", const="system")
    install.set_defaults(scope="user")
    install.add_argument("--dry-run", action="store_true", help="print it, write nothing")
    install.add_argument("--replace", action="store_true", help="though there is another")
    install.add_argument("--json", action="store_true", help="print one JSON object")


def make_unit(config: Path, settings: Settings, scope: Scope) -> Unit:
    """The unit for a configuration that was read."""
    bounds = Parameters()
    drain = settings.drain_timeout + (bounds.deliver_us + bounds.prove_us) // SECOND_US
    command = [sys.executable, "-m", "assay_node", "start", "--config", str(config)]
    return Unit(command, str(config.parent), scope, drain + STOP_SPARE_SECONDS)


def _install(given: argparse.Namespace) -> int:
    config = given.config.absolute()
    settings = load_settings(config, {}, {})
    if given.scope == "system" and settings.data_dir:
        raise AssayError(
            "config_invalid", f"{config}: a system unit keeps data_dir in /var/lib; take it out"
        )
    text = render(make_unit(config, settings, given.scope))
    complaint = _verify(text, given.scope)
    path = _place(given.scope)
    if not given.dry_run:
        _write(path, text, given.replace)
    manager = "systemctl --user" if given.scope == "user" else "systemctl"
    then = [f"{manager} daemon-reload", f"{manager} enable --now {UNIT_NAME}"]
    if given.scope == "user":
        then.append("loginctl enable-linger  # so that it runs while you are logged out")
    _tell(given, path, text, complaint, then)
    return 0


def _place(scope: Scope) -> Path:
    if scope == "system":
        return Path("/etc/systemd/system") / UNIT_NAME
    import platformdirs

    return Path(platformdirs.user_config_dir("systemd")) / "user" / UNIT_NAME


def _write(path: Path, text: str, replace: bool) -> None:
    try:
        if path.exists() and path.read_text() != text and not replace:
            raise AssayError("config_invalid", f"{path} is another unit; --replace overwrites it")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    except OSError as error:
        raise AssayError("storage_failed", f"{path}: {error.strerror}") from error


def _verify(text: str, scope: Scope) -> str | None:
    """What systemd-analyze has against the unit; None if there is none to ask."""
    program = shutil.which("systemd-analyze")
    if program is None:
        return None
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / UNIT_NAME
        file.write_text(text)
        argv = [program, "verify", "--man=no", f"--{scope}", str(file)]
        environment = {"XDG_RUNTIME_DIR": folder} | os.environ  # a user's manager wants one
        try:
            done = subprocess.run(
                argv,
                capture_output=True,
                text=True,
                timeout=VERIFY_SECONDS_MAX,
                check=False,
                env=environment,
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            return f"systemd-analyze could not be asked: {error}"
    lines = done.stderr.splitlines()
    of_unit = [line for line in lines if UNIT_NAME in line]
    if done.returncode and not of_unit:
        return f"systemd-analyze could not be asked: {lines[-1] if lines else done.returncode}"
    return "\n".join(of_unit)


def _tell(
    given: argparse.Namespace, path: Path, text: str, complaint: str | None, then: list[str]
) -> None:
    if given.json:
        fields: dict[str, Any] = {"file": str(path), "written": not given.dry_run, "then": then}
        print(json.dumps(fields | {"verified": complaint, "unit": text}))
        return
    print(text if given.dry_run else f"written {path}")
    checked = {None: "not verified: there is no systemd-analyze", "": "systemd-analyze: no fault"}
    print(checked.get(complaint, complaint), file=sys.stderr)
    print("\n".join(["then:", *then]), file=sys.stderr)
