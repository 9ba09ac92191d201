from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest

from assay_node import hardware
from assay_node.gpu_power import power_fault, power_limit
from assay_protocol.errors import AssayError

GPUS = ("NVIDIA GeForce RTX 4090", "NVIDIA L4")


class FakeError(Exception):
    pass


class FakeNvml:
    """Two GPUs, or the failure asked for."""

    NVMLError = FakeError

    def __init__(self, fail_at: str = "", names: tuple[str | bytes, ...] = ()) -> None:
        self.fail_at = fail_at
        self.names = names
        self.open = 0
        self.milliwatts = [450_000, 72_000]

    def nvmlInit(self) -> None:  # noqa: N802  # the library's own names
        self._fail("init")
        self.open += 1

    def nvmlShutdown(self) -> None:  # noqa: N802
        self.open -= 1

    def nvmlDeviceGetCount(self) -> int:  # noqa: N802
        return len(self.names)

    def nvmlDeviceGetHandleByIndex(self, index: int) -> int:  # noqa: N802
        return index

    def nvmlDeviceGetName(self, handle: int) -> str | bytes:  # noqa: N802
        return self.names[handle]

    def nvmlDeviceGetMemoryInfo(self, handle: int) -> Any:  # noqa: N802
        self._fail("memory")
        return SimpleNamespace(total=(handle + 1) << 30, free=(handle + 1) << 20)

    def nvmlDeviceGetPowerManagementLimitConstraints(  # noqa: N802
        self, handle: int
    ) -> list[int]:
        self._fail("constraints")
        return [[150_000, 600_000], [40_500, 200_000]][handle]

    def nvmlDeviceGetPowerManagementLimit(self, handle: int) -> int:  # noqa: N802
        return self.milliwatts[handle]

    def nvmlDeviceSetPowerManagementLimit(self, handle: int, milliwatts: int) -> None:  # noqa: N802
        self._fail(f"set {handle}")
        self.milliwatts[handle] = milliwatts

    def _fail(self, where: str) -> None:
        if self.fail_at == where:
            raise FakeError(where)


def detect_with(nvml: object, directory: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setitem(sys.modules, "pynvml", nvml)
    return hardware.detect(directory)


def test_gpus_are_named_counted_and_summed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nvml = FakeNvml(names=(b"NVIDIA GeForce RTX 4090", "NVIDIA L4"))
    found = detect_with(nvml, tmp_path, monkeypatch)
    assert (found.device, found.gpu_count) == ("NVIDIA GeForce RTX 4090", 2)
    assert found.vram_bytes == 3 << 30
    assert nvml.open == 0


@pytest.mark.parametrize("fail_at", ["init", "memory"])
def test_a_broken_driver_means_cpu(
    fail_at: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    nvml = FakeNvml(fail_at, names=("NVIDIA L4",))
    found = detect_with(nvml, tmp_path, monkeypatch)
    assert (found.device, found.gpu_count, found.vram_bytes) == ("cpu", 0, 0)
    assert nvml.open == 0


@pytest.mark.parametrize("nvml", [None, FakeNvml()])
def test_no_library_or_no_gpu_means_cpu(
    nvml: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = detect_with(nvml, tmp_path / "not" / "there", monkeypatch)
    assert (found.device, found.gpu_count, found.vram_bytes) == ("cpu", 0, 0)
    assert found.ram_bytes == psutil.virtual_memory().total
    assert 1 <= found.cores <= (psutil.cpu_count() or 1)
    assert found.disk_free_bytes > 0
    assert found.cpu


def test_the_cpus_name_is_read_or_guessed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    info = tmp_path / "cpuinfo"
    info.write_text("processor\t: 0\nmodel name\t: Abacus 9000 @ 3 Hz\n")
    monkeypatch.setattr(hardware, "_CPU_INFO", info)
    assert detect_with(None, tmp_path, monkeypatch).cpu == "Abacus 9000 @ 3 Hz"
    info.unlink()
    assert detect_with(None, tmp_path, monkeypatch).cpu != ""


def test_free_memory_heeds_the_container(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", FakeNvml(names=("NVIDIA L4", "NVIDIA L4")))
    monkeypatch.setattr(hardware, "_CGROUP", tmp_path)
    assert hardware.free_memory()[0] > 1 << 20
    (tmp_path / "memory.current").write_text("400\n")
    for bound, ram in (("1000\n", 600), ("300\n", 0)):
        (tmp_path / "memory.max").write_text(bound)
        assert hardware.free_memory() == (ram, 3 << 20)
    (tmp_path / "memory.max").write_text("max\n")
    assert hardware.free_memory()[0] > 1 << 20


def test_power_is_limited_while_the_node_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    nvml = FakeNvml(names=GPUS)
    monkeypatch.setitem(sys.modules, "pynvml", nvml)
    assert power_fault(160) == ""
    with pytest.raises(KeyError), power_limit(160):
        assert nvml.milliwatts == [160_000, 160_000]
        raise KeyError
    assert (nvml.milliwatts, nvml.open) == ([450_000, 72_000], 0)
    with power_limit(0):
        assert nvml.milliwatts == [450_000, 72_000]


def test_a_driver_that_refuses_leaves_all_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    nvml = FakeNvml("set 1", names=GPUS)
    monkeypatch.setitem(sys.modules, "pynvml", nvml)
    with pytest.raises(AssayError, match="max_watts") as refused, power_limit(160):
        raise AssertionError("not reached")
    assert refused.value.code == "config_invalid"
    assert (nvml.milliwatts, nvml.open) == ([450_000, 72_000], 0)


@pytest.mark.parametrize(
    ("nvml", "watts", "said"),
    [
        (None, 200, "no GPU"),
        (FakeNvml("init", names=GPUS), 200, "no GPU"),
        (FakeNvml("constraints", names=GPUS), 200, "no limits"),
        (FakeNvml(names=GPUS), 149, "150 to 600"),
        (FakeNvml(names=GPUS), 201, "41 to 200"),
    ],
)
def test_what_speaks_against_a_limit_is_said(
    nvml: object, watts: int, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", nvml)
    assert said in power_fault(watts)
