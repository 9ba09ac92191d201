"""The most power a GPU may draw: set in NVIDIA's driver while the node runs, put back at its end.

The driver keeps a limit per GPU for whoever uses it, not for one program, and lets only root change
it. A node that is killed leaves it set, until the machine starts anew or a node ends in order.
Watts are whole; NVML's own unit is the milliwatt.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from assay_node.hardware import open_gpus
from assay_protocol.errors import AssayError


def power_fault(watts: int) -> str:
    """Why no GPU here could be held to `watts`; "" if nothing that can be read speaks against it.

    Whether this program may set limits is known only when it tries.
    """
    with open_gpus() as (nvml, gpus):
        if not gpus:
            return "no GPU here tells its limits of power (NVML)"
        try:
            for gpu in gpus:
                low, high = nvml.nvmlDeviceGetPowerManagementLimitConstraints(gpu)
                if not low <= 1000 * watts <= high:
                    return f"a GPU here takes limits of {-(-low // 1000)} to {high // 1000} watts"
        except nvml.NVMLError as error:
            return f"a GPU here tells no limits of power: {error}"
    return ""


@contextmanager
def power_limit(watts: int) -> Iterator[None]:
    """Hold every GPU to `watts` while the context lasts; 0: nothing is touched.

    Raises AssayError("config_invalid") where the driver refuses; what was set is put back then.
    """
    before: list[int] = []
    try:
        if watts:
            _set_all(watts, before)
        yield
    finally:
        _put_back(before)


def _set_all(watts: int, before: list[int]) -> None:
    """`before` gets each GPU's limit, in milliwatts, as soon as it is replaced."""
    with open_gpus() as (nvml, gpus):
        try:
            for gpu in gpus:
                limit = int(nvml.nvmlDeviceGetPowerManagementLimit(gpu))
                nvml.nvmlDeviceSetPowerManagementLimit(gpu, 1000 * watts)
                before.append(limit)
        except nvml.NVMLError as error:
            text = f"max_watts cannot be kept here: the driver refuses ({error}); it lets root only"
            raise AssayError("config_invalid", text) from error


def _put_back(before: list[int]) -> None:
    """A driver that refuses now has been asked: there is nobody left to tell."""
    if not before:
        return
    with open_gpus() as (nvml, gpus):
        for gpu, limit in zip(gpus, before, strict=False):
            try:
                nvml.nvmlDeviceSetPowerManagementLimit(gpu, limit)
            except nvml.NVMLError:
                continue
