"""What `node doctor` can find, by stable code: what it means and what mends it.

A finding that comes from an operating error keeps that error's code (assay_protocol/errors.py);
those of DoctorFault are its own. `mend` is a command or a setting; `{name}` stands for what the
check knows of the case. docs/run-a-node.md has this table; a test compares the two.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

EXIT_CODES: Final = {
    "key": 10,
    "disk": 11,
    "model": 12,
    "memory": 13,
    "engine": 14,
    "port": 15,
    "coordinator": 16,
    "protocol": 17,
    "clock": 18,
    "reach": 19,
    "limits": 20,
    "catalogue": 21,
}
"""Of `node doctor`, by check, in the order they are made: the first that failed decides."""


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that can be wrong, in a sentence, and its mend."""

    means: str
    mend: str


FAULTS: Final[dict[str, Fault]] = {
    "key_permissions": Fault(
        "others can read or write the key file, or it is another user's", "chmod 600 {path}"
    ),
    "key_invalid": Fault(
        "the key file is not one", "put your backup at {path}, or move it away for a new identity"
    ),
    "disk_full": Fault(
        "too little room for receipts, or for the models still to be fetched",
        "free {mib} MiB at {path}, or set data_dir to a folder of another disk",
    ),
    "storage_failed": Fault(
        "the data folder cannot be written", "chown and chmod {path}, or set data_dir"
    ),
    "config_invalid": Fault(
        "a setting is missing or contradicts another", "set it as the line above says"
    ),
    "card_invalid": Fault("the model card cannot be read", "node models card MODEL.gguf -o {card}"),
    "model_unknown": Fault(
        "the coordinator has no such model in its catalogue, and would refuse the node",
        "ask its operator to add {card}, or serve a model of its catalogue",
    ),
    "model_missing": Fault(
        "there is no such file, and it cannot be fetched", "node models pull {card}, or set model"
    ),
    "model_corrupt": Fault(
        "the file's sha256 is not the card's", "rm {file} && node models pull {card}"
    ),
    "gguf_invalid": Fault(
        "the file is cut off or not GGUF", "rm {file} && node models pull {card}"
    ),
    "projector_missing": Fault(
        "the file that reads images for the model is not there",
        "set projector to the file that the card was made with, or copy it into the models folder",
    ),
    "projector_wrong": Fault(
        "the file that reads images is not the card's, or not one of this model",
        "set projector to the file that the card was made with, not {file}",
    ),
    "adapter_unknown": Fault(
        "the adapter is for another model", "take the model out of models, or its own adapter"
    ),
    "model_too_large": Fault(
        "the model does not fit into the memory of the engine's device",
        "set slots and context as the line above says, or memory_gib higher, or a smaller quant",
    ),
    "engine_missing": Fault("the engine is not installed", "pip install 'assay-network[llama]'"),
    "engine_failed": Fault(
        "the engine died or refused to load the model",
        "node selfcheck --model {file}; if it fails, too: scripts/build_engine.sh, or new drivers",
    ),
    "gpu_unused": Fault(
        "there is a GPU, and the engine's library cannot use it",
        "CMAKE_ARGS=-DGGML_CUDA=on pip install --force-reinstall --no-binary :all: --no-deps "
        "llama-cpp-python==0.3.36",
    ),
    "timeout": Fault("no answer in time", "try again; if it stays, see who else loads the machine"),
    "port_in_use": Fault(
        "another process has the port, or the address is not this machine's",
        "ss -ltnp 'sport = :{port}' shows whose it is; or set listen to another port",
    ),
    "no_coordinator": Fault(
        "no coordinator with that key answers there",
        "compare coordinator with what its operator publishes; nc -vz HOST PORT tells of the way",
    ),
    "old_protocol": Fault(
        "the coordinator speaks another version of the protocol",
        "pip install -U assay-network here, or ask its operator to",
    ),
    "clock_skew": Fault(
        "this clock is wrong, so tickets look expired or not yet given", "timedatectl set-ntp true"
    ),
    "port_blocked": Fault(
        "clients cannot reach an address that would be announced",
        "open TCP {port} in firewall and router, then set announce to /ip4/{seen}/tcp/{port}",
    ),
    "limit_not_enforced": Fault(
        "a limit is set that cannot be kept on this machine", "take {limit} out of the settings"
    ),
}


class DoctorFault(Exception):
    """A fault of FAULTS that no operating error stands for; `known` fills its mend."""

    def __init__(self, code: str, message: str, **known: object) -> None:
        assert code in FAULTS, code
        super().__init__(message)
        self.code, self.message, self.known = code, message, known


def mend_of(code: str, known: dict[str, object]) -> str:
    """The mend with what is known filled in; what is not known stays as its name in capitals."""
    fault = FAULTS.get(code)
    if fault is None:
        return f"docs/errors.md says what {code} asks for"
    return fault.mend.format_map(_Capitals(known))


class _Capitals(dict[str, object]):
    def __missing__(self, name: str) -> str:
        return name.upper()
