"""What the machine is doing now, for whoever looks at its node: processor, memory, GPUs.

What cannot be read is None, never a guess: a driver tells what it likes, a container hides the
rest. Nothing is decided by it; the owner's limits look for themselves (owner_limits.py).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from assay_node.hardware import gpu_name, open_gpus

GPUS_MAX: Final = 16  # that are told of


@dataclass(frozen=True, slots=True)
class Gpu:
    """One GPU: bytes, percent of time a kernel ran, degrees Celsius, watts."""

    name: str
    memory_used: int | None
    memory: int | None
    busy_percent: int | None
    celsius: int | None
    watts: int | None


@dataclass(frozen=True, slots=True)
class Machine:
    """One moment. `cpu_percent` is of all cores together since the last look; memory in bytes."""

    cpu_percent: float | None = None
    memory_used: int | None = None
    memory: int | None = None
    gpus: tuple[Gpu, ...] = ()


class MachineWatch:
    """Looks now and then, from whichever thread: psutil's own percentages are by thread."""

    def __init__(self) -> None:
        self._before: tuple[float, float] | None = None  # seconds busy, and in all

    def look(self) -> Machine:
        """May take some milliseconds where there are GPUs, so not in a loop that serves."""
        import psutil

        memory, before = psutil.virtual_memory(), self._before
        self._before = now = _cpu_seconds(psutil.cpu_times())
        return Machine(
            cpu_percent=None if before is None else _percent(before, now),
            memory_used=int(memory.total - memory.available),
            memory=int(memory.total),
            gpus=_gpus(),
        )


def _cpu_seconds(times: Any) -> tuple[float, float]:
    """Busy and in all, as htop counts: guests are in their hosts' times, waiting for a disk is not
    work."""
    every = sum(times) - sum(getattr(times, name, 0.0) for name in ("guest", "guest_nice"))
    return every - times.idle - getattr(times, "iowait", 0.0), every


def _percent(before: tuple[float, float], now: tuple[float, float]) -> float | None:
    busy, every = (new - old for new, old in zip(now, before, strict=True))
    return round(min(100.0, max(0.0, 100 * busy / every)), 1) if every > 0 else None


def _gpus() -> tuple[Gpu, ...]:
    with open_gpus() as (nvml, gpus):
        try:
            return tuple(_gpu(nvml, handle) for handle in gpus[:GPUS_MAX])
        except nvml.NVMLError:
            return ()


def _gpu(nvml: Any, handle: Any) -> Gpu:
    def told(read: Callable[[], Any]) -> int | None:
        """Each value by itself: many GPUs have no sensor for one of them."""
        try:
            return int(read())
        except nvml.NVMLError:
            return None

    return Gpu(
        name=gpu_name(nvml, handle),
        memory_used=told(lambda: nvml.nvmlDeviceGetMemoryInfo(handle).used),
        memory=told(lambda: nvml.nvmlDeviceGetMemoryInfo(handle).total),
        busy_percent=told(lambda: nvml.nvmlDeviceGetUtilizationRates(handle).gpu),
        celsius=told(lambda: nvml.nvmlDeviceGetTemperature(handle, nvml.NVML_TEMPERATURE_GPU)),
        watts=told(lambda: nvml.nvmlDeviceGetPowerUsage(handle) / 1000),
    )
