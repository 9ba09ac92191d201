"""What the checks of `node doctor` found, and what turns a raised error into a finding."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from assay_node.faults import EXIT_CODES, DoctorFault, mend_of
from assay_protocol.errors import AssayError

State = Literal["ok", "fault", "skipped"]


@dataclass(frozen=True, slots=True)
class Finding:
    """The outcome of one check. `code` and `mend` are of a fault; else they are empty."""

    check: str
    state: State
    detail: str
    code: str = ""
    mend: str = ""


class Findings:
    """Collects what the checks find, whatever they raise."""

    def __init__(self) -> None:
        self.found: list[Finding] = []

    def good(self, check: str, detail: str) -> None:
        """It holds."""
        self.found.append(Finding(check, "ok", detail))

    def skipped(self, check: str, why: str) -> None:
        """It was not looked at."""
        self.found.append(Finding(check, "skipped", f"not checked: {why}"))

    def of(self, check: str, **known: object) -> Check:
        """Run a check under this: what it raises is its fault, mended with what is `known`."""
        return Check(self, check, known)

    def has_fault(self, check: str) -> bool:
        """Whether this check failed, now or for an earlier model."""
        return any(one.check == check and one.state == "fault" for one in self.found)

    def fault(self, check: str, code: str, message: str, known: Mapping[str, object]) -> None:
        """It does not hold."""
        self.found.append(Finding(check, "fault", message, code, mend_of(code, dict(known))))


class Check:
    """One check under way; operating errors and faults end it and go no further."""

    def __init__(self, findings: Findings, name: str, known: Mapping[str, object]) -> None:
        assert name in EXIT_CODES, name
        self._findings, self._name, self._known = findings, name, dict(known)

    def __enter__(self) -> None:
        return None

    def __exit__(self, _kind: object, error: BaseException | None, _trace: object) -> bool:
        known = self._known
        match error:
            case DoctorFault():
                self._findings.fault(self._name, error.code, error.message, known | error.known)
            case AssayError():
                self._findings.fault(self._name, error.code, error.message, known)
            case OSError():
                self._findings.fault(self._name, "storage_failed", str(error), known)
            case _:
                return False
        return True
