"""What is said of the machine and of the last error is what was seen, and nothing else."""

from __future__ import annotations

import sys
from collections import namedtuple
from types import SimpleNamespace
from typing import Any

import pytest

from assay_node.config import Settings
from assay_node.core import effects as do
from assay_node.core import events as on
from assay_node.last_error import LastError
from assay_node.machine import MachineWatch
from assay_node.status import limits_told


class NvmlError(Exception):
    pass


class Nvml:
    """Two GPUs; `without` names the one function that no driver here knows."""

    NVMLError = NvmlError
    NVML_TEMPERATURE_GPU = 0

    def __init__(self, without: str = "") -> None:
        self.without, self.open = without, 0

    def __getattr__(self, name: str) -> Any:
        if name == self.without:

            def missing(*arguments: object) -> None:
                raise NvmlError(name)

            return missing
        calls: dict[str, Any] = {
            "nvmlInit": lambda: self._count(1),
            "nvmlShutdown": lambda: self._count(-1),
            "nvmlDeviceGetCount": lambda: 2,
            "nvmlDeviceGetHandleByIndex": lambda index: index,
            "nvmlDeviceGetName": lambda handle: b"NVIDIA L4",
            "nvmlDeviceGetMemoryInfo": lambda handle: SimpleNamespace(used=1 << 30, total=2 << 30),
            "nvmlDeviceGetUtilizationRates": lambda handle: SimpleNamespace(gpu=70 + handle),
            "nvmlDeviceGetTemperature": lambda handle, sensor: 60,
            "nvmlDeviceGetPowerUsage": lambda handle: 71_900,
        }
        if name not in calls:
            raise AttributeError(name)
        return calls[name]

    def _count(self, by: int) -> None:
        self.open += by


@pytest.mark.parametrize("without", ["", "nvmlDeviceGetPowerUsage", "nvmlDeviceGetMemoryInfo"])
def test_each_gpu_tells_what_its_driver_knows(
    without: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    nvml = Nvml(without)
    monkeypatch.setitem(sys.modules, "pynvml", nvml)
    seen = MachineWatch().look()
    assert [gpu.busy_percent for gpu in seen.gpus] == [70, 71]
    assert seen.gpus[0].name == "NVIDIA L4"
    assert seen.gpus[0].watts == (None if without == "nvmlDeviceGetPowerUsage" else 71)
    assert seen.gpus[1].memory == (None if without == "nvmlDeviceGetMemoryInfo" else 2 << 30)
    assert nvml.open == 0


@pytest.mark.parametrize("without", ["nvmlInit", "nvmlDeviceGetCount"])
def test_a_broken_driver_is_no_gpu(without: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", Nvml(without))
    seen = MachineWatch().look()
    assert seen.gpus == ()
    assert seen.memory is not None
    assert 0 < (seen.memory_used or 0) <= seen.memory


def test_the_processor_s_share_is_of_the_time_between_two_looks(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    Times = namedtuple("Times", ("user", "system", "idle", "iowait", "guest"))
    told = iter([Times(10, 0, 10, 0, 5), Times(11, 1, 14, 2, 6), Times(11, 1, 14, 2, 6)])
    monkeypatch.setattr("psutil.cpu_times", lambda: next(told))
    watch = MachineWatch()
    assert watch.look().cpu_percent is None, "there is nothing to compare with"
    assert watch.look().cpu_percent == 25, "2 s of 8; the guest's are in the user's"
    assert watch.look().cpu_percent is None, "no time has passed"


def test_the_last_error_is_the_last_with_a_code() -> None:
    last = LastError()
    last.observe(1, on.Tick(), [do.Log("job_finished", (("finish", "stop"),))])
    assert (last.code, last.at) == ("", 0)
    last.observe(2, on.EngineStopped(1, "engine_failed"), [])
    last.observe(3, on.Tick(), [do.Log("lease_refused", (("code", "class_refused"),))])
    assert (last.code, last.at) == ("class_refused", 3)
    last.observe(4, on.Tick(), [])
    assert last.at == 3


def test_limits_are_told_without_naming_a_client() -> None:
    key = "ab" * 32
    told = limits_told(Settings(hours=("22:00-07:00",), max_celsius=80, clients=(key,)))
    assert told == {"hours": ("22:00-07:00",), "max_celsius": 80, "clients": 1}
