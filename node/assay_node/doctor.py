"""`node doctor`: would `node start` work here? Each check does the real thing, and names its mend.

Checks are made in the order of faults.EXIT_CODES. What a check rests on failing leaves it undone,
and it says so: it is neither good nor a fault. The network is used under a key of the moment, so a
running node is left alone; nothing is fetched and nothing of the owner's is changed.
"""

from __future__ import annotations

import secrets
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

import trio

from assay_network.keystore import load_key
from assay_node.app import KEY_FILE
from assay_node.config import Settings
from assay_node.faults import EXIT_CODES, DoctorFault
from assay_node.findings import Finding, Findings
from assay_node.hardware import detect
from assay_node.loading import (
    MODELS_FOLDER,
    Prepared,
    fitted_settings,
    open_engine,
    prepare_model,
    read_card,
)
from assay_node.models.store import ModelStore
from assay_node.network_checks import check_network
from assay_node.owner_limits import unkept
from assay_node.start_checks import DISK_BYTES_MIN, existing, require_disk
from assay_protocol.errors import AssayError
from assay_protocol.messages import Sampler
from assay_protocol.signing import Identity

if TYPE_CHECKING:
    from assay_protocol.cards import ModelCard

ENGINE_SECONDS_MAX: Final = 600.0  # the first start with a model tries several ways of computing
_MIB: Final = 1 << 20
_PROJECTOR_FAULTS: Final = {
    "model_missing": "projector_missing",
    "model_corrupt": "projector_wrong",
    "gguf_invalid": "projector_wrong",
}
_ARGMAX: Final = Sampler(temperature=0.0, top_k=0, top_p=1.0, min_p=0.0)


def examine(settings: Settings, *, load_engine: bool = True) -> list[Finding]:
    """Every check, each on its own. Without `load_engine` no model is loaded to try it."""
    findings = Findings()
    key_file = settings.directory / KEY_FILE
    with findings.of("key", path=key_file):
        findings.good("key", _key(key_file))
    _disk(findings, settings)
    for one in settings.each():
        _model(findings, one, load_engine)
    trio.run(check_network, settings, findings, _readable_cards(settings))
    with findings.of("limits"):
        if (limit := unkept(settings)) is not None:
            raise DoctorFault("limit_not_enforced", f"{limit[0]}: {limit[1]}", limit=limit[0])
        findings.good("limits", "all that are set can be kept")
    return findings.found


def exit_code(found: list[Finding]) -> int:
    """Of the first check that failed, in the order they are made; 0 if none did."""
    codes = [EXIT_CODES[one.check] for one in found if one.state == "fault"]
    return min(codes, default=0)


def _readable_cards(settings: Settings) -> dict[str, bytes]:
    """The model of each card that can be read, by the card's file."""
    found = {}
    for one in settings.each():
        try:
            card = read_card(one)
        except AssayError:
            continue  # told where the model is looked at
        if card is not None:
            found[one.card] = card.model
    return found


def _key(path: Path) -> str:
    try:
        return Identity(load_key(path)).public_key.hex()
    except FileNotFoundError:
        return "none yet; the first start makes one"


def _disk(findings: Findings, settings: Settings) -> None:
    wanted = sum(_bytes_to_fetch(one) for one in settings.each())
    place = existing(settings.directory)
    with findings.of("disk", path=place, mib=(DISK_BYTES_MIN + wanted) // _MIB):
        findings.good("disk", require_disk(settings.directory, wanted))


def _bytes_to_fetch(settings: Settings) -> int:
    """Of the model's file, where the start would have to fetch it."""
    try:
        card = read_card(settings)
        return card.size_bytes if card and _is_to_fetch(settings, card) else 0
    except AssayError:
        return 0  # whatever is wrong with the card is told where the model is looked at


def _is_to_fetch(settings: Settings, card: ModelCard) -> bool:
    if settings.engine != "llama" or settings.model or card.adapter is not None:
        return False
    try:
        ModelStore(settings.directory / MODELS_FOLDER).find(card)
    except AssayError as error:
        return error.code == "model_missing"
    return False


def _model(findings: Findings, settings: Settings, load_engine: bool) -> None:
    """Card and file, then whether it fits, then whether it answers."""
    if settings.fetch_card and not settings.card:
        findings.skipped("model", "the card comes from the coordinator")
        return
    file = settings.model or str(settings.directory / MODELS_FOLDER)
    prepared: Prepared | None = None
    with findings.of("model", file=file, card=settings.card or "CARD"):
        card = read_card(settings)
        if card is not None and _is_to_fetch(settings, card):
            size = f"{card.size_bytes // _MIB} MiB"
            findings.skipped("model", f"{card.name} is not here yet, the start fetches its {size}")
            return
        prepared = _prepared(settings, card)
        findings.good("model", _in_words(settings, prepared))
    if prepared is None:
        findings.skipped("engine", "there is no model to load")
        return
    if prepared.card is not None and prepared.card.adapter is not None:
        return  # it is loaded with its model's engine
    if prepared.path is not None:
        with findings.of("memory"):
            findings.good("memory", _memory(settings, prepared.path, prepared.projector))
        if findings.has_fault("memory"):
            findings.skipped("engine", "the model does not fit")
            return
    if not load_engine:
        findings.skipped("engine", "as you said")
        return
    with findings.of("engine", file=prepared.path or settings.engine_url):
        findings.good("engine", trio.run(_try_engine, settings, prepared))


def _prepared(settings: Settings, card: ModelCard | None) -> Prepared:
    """As the start prepares it; what is wrong with the projector alone is a fault of its own."""
    try:
        return prepare_model(settings, card)
    except AssayError as error:
        if card is None or card.vision is None or not _has_model(settings, card):
            raise
        code = _PROJECTOR_FAULTS.get(error.code)
        if code is None:
            raise
        file = settings.projector or settings.directory / MODELS_FOLDER
        raise DoctorFault(code, error.message, file=file, card=settings.card) from error


def _has_model(settings: Settings, card: ModelCard) -> bool:
    """Whether everything but its projector is there."""
    try:
        prepare_model(replace(settings, projector=""), replace(card, vision=None))
    except AssayError:
        return False
    return True


def _in_words(settings: Settings, prepared: Prepared) -> str:
    if prepared.card is None:
        return "scripted (simulated): no model file"
    where = prepared.path or f"the file of {settings.engine_url}, which is not looked at"
    return f"{prepared.card.model.hex()} at {where}"


def _memory(settings: Settings, path: Path, projector: Path | None) -> str:
    found = fitted_settings(settings, path, projector)
    text = f"{found.slots} slots of {found.context} tokens"
    asked = replace(found, slots=settings.slots, context=settings.context)
    if found != asked:
        text += f", not {asked.slots} of {asked.context}: memory has no room for more"
    if found.gpu_layers is not None:
        text += f", {found.gpu_layers} layers on the GPU"
    return text


def device_in_use(settings: Settings, used: str) -> str:
    """What computes, as the engine says, held against the GPU that the driver tells of.

    The exact roads may be the processor's by their nature; whoever asks for speed wants the GPU.
    """
    gpu = detect(settings.directory).device
    if settings.engine != "llama" or used != "cpu" or gpu == "cpu":
        return used
    if settings.profile == "fast":
        raise DoctorFault("gpu_unused", f"{gpu} is there, and this llama.cpp was built without it")
    return f"{used}; {gpu} is there, and profile {settings.profile} does not use it"


async def _try_engine(settings: Settings, prepared: Prepared) -> str:
    """Load the engine and draw one token. Another server was asked for one as it was opened."""
    from assay_node.engine.interface import Generate

    with trio.move_on_after(ENGINE_SECONDS_MAX):
        async with open_engine(settings, prepared) as engine:
            if settings.engine != "openai":
                seed = secrets.token_bytes(32)
                one = Generate(prompt=(0,), start=0, max_tokens=1, sampler=_ARGMAX, seed=seed)
                async with engine.generate(one) as chunks:
                    async for _ in chunks:
                        pass
            return f"{engine.info.class_id} on {device_in_use(settings, engine.info.device)}"
    raise AssayError("timeout", f"the engine gave no token within {ENGINE_SECONDS_MAX:.0f} s")
