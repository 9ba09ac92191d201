"""What this machine has to offer: GPUs by NVML, the rest by psutil.

Detection never fails: a machine without NVIDIA's driver, or with a broken one, is a CPU machine.
What the inference engine can really use is the engine's own business (`EngineInfo.device`).
"""

from __future__ import annotations

import importlib
import platform
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

_CPU_INFO: Final = Path("/proc/cpuinfo")
_CGROUP: Final = Path("/sys/fs/cgroup")
_CPU_LABELS: Final = ("model name", "Model", "Hardware", "cpu model")


@dataclass(frozen=True, slots=True)
class Hardware:
    """One machine. `device` is the first GPU's name, or "cpu"; sizes in bytes.

    `vram_bytes` is the sum over all GPUs; `cores` are logical cores this process may use.
    """

    device: str
    gpu_count: int
    vram_bytes: int
    cpu: str
    cores: int
    ram_bytes: int
    disk_free_bytes: int


def detect(directory: Path) -> Hardware:
    """The machine as it is now; `directory` is where models are kept (it need not exist yet)."""
    import psutil

    names, vram_bytes = _nvidia()
    present = next(path for path in (directory, *directory.absolute().parents) if path.exists())
    return Hardware(
        device=names[0] if names else "cpu",
        gpu_count=len(names),
        vram_bytes=vram_bytes,
        cpu=_cpu_model(),
        cores=_cores(psutil),
        ram_bytes=int(psutil.virtual_memory().total),
        disk_free_bytes=shutil.disk_usage(present).free,
    )


def spare_cores() -> int:
    """All cores but one, at least one.

    With every core taken, the engine's spinning threads make the whole machine several times slower
    as soon as anything else runs.
    """
    import psutil

    return max(1, _cores(psutil) - 1)


def free_memory() -> tuple[int, int]:
    """Bytes free now: of RAM, within this container's bound if there is one, and of all VRAM."""
    import psutil

    ram = int(psutil.virtual_memory().available)
    try:
        most, used = (
            int((_CGROUP / name).read_text()) for name in ("memory.max", "memory.current")
        )
        ram = min(ram, max(0, most - used))
    except (OSError, ValueError):  # no version 2 control group, or one without a bound ("max")
        pass
    return ram, _nvidia("free")[1]


def hottest_gpu() -> int | None:
    """Degrees Celsius of the hottest GPU; None where NVML tells none."""
    with open_gpus() as (nvml, gpus):
        if not gpus:
            return None
        try:
            sensor = nvml.NVML_TEMPERATURE_GPU
            return max(int(nvml.nvmlDeviceGetTemperature(gpu, sensor)) for gpu in gpus)
        except nvml.NVMLError:
            return None


@contextmanager
def open_gpus() -> Iterator[tuple[Any, list[Any]]]:
    """NVML and its GPUs while the context lasts; no GPUs where there is no library or driver, or a
    broken one. What is asked of them may raise `nvml.NVMLError`."""
    try:
        nvml: Any = importlib.import_module("pynvml")
        nvml.nvmlInit()
    except Exception:  # no package, no driver, or a broken one: each with an exception of its own
        yield None, []
        return
    try:
        try:
            gpus = [nvml.nvmlDeviceGetHandleByIndex(i) for i in range(nvml.nvmlDeviceGetCount())]
        except nvml.NVMLError:
            gpus = []
        yield nvml, gpus
    finally:
        nvml.nvmlShutdown()


def _nvidia(which: str = "total") -> tuple[list[str], int]:
    """Names of the GPUs and the sum of their memory, total or free; nothing without a well NVML."""
    with open_gpus() as (nvml, gpus):
        if not gpus:
            return [], 0
        try:
            names = [gpu_name(nvml, gpu) for gpu in gpus]
            sizes = [int(getattr(nvml.nvmlDeviceGetMemoryInfo(gpu), which)) for gpu in gpus]
        except nvml.NVMLError:
            return [], 0
        return names, sum(sizes)


def gpu_name(nvml: Any, gpu: Any) -> str:
    """As its driver calls it; versions of NVML differ in whether that is text. May raise
    `nvml.NVMLError`."""
    name = nvml.nvmlDeviceGetName(gpu)
    return name.decode(errors="replace") if isinstance(name, bytes) else name


def _cpu_model() -> str:
    """The CPU's name as its maker writes it; the architecture where no file tells."""
    try:
        lines = _CPU_INFO.read_text(errors="replace").splitlines()
    except OSError:
        lines = []
    for line in lines:
        label, _, value = line.partition(":")
        if label.strip() in _CPU_LABELS and value.strip():
            return value.strip()
    return platform.processor() or platform.machine() or "unknown"


def _cores(psutil: Any) -> int:
    """Cores in the affinity mask where the system has one: a container may own few of many."""
    process = psutil.Process()
    allowed = len(process.cpu_affinity()) if hasattr(process, "cpu_affinity") else 0
    return allowed or psutil.cpu_count() or 1
