"""No spelling of a time, a rate or a memory loses its unit, or becomes a knob, in silence."""

from itertools import product

import pytest

from epochcast.importers.roles import Meaning, meaning_of
from epochcast.units import size_unit, time_unit

TIMES = (
    "{T} Time ({u})|{t}_time_{u}|{t}_{u}|{u}/{t}|{u} per {t}|time/{t} ({u})|{t} time [{u}]|{u}_{t}"
    "|avg_{t}_time_{u}|{T} Time, {u}|{t}-time-{u}|time_per_{t}_{u}|time per {t} in {u}"
    "|{T} latency ({u})|{t}_{u}_avg|{t}_time_{u}_mean|t_{t}_{u}|{t}time_{u}|time ({u}/{t})"
    "|train_{u}_per_{t}|{t}_{u}_p50|perf/{t}_time_{u}|Mean time per {t} ({u})"
)
RATES = (
    "{t}s/{u}|{t}s per {u}|{t}_per_{u}|throughput ({t}s/{u})|Throughput [{t}/{u}]"
    "|{t}s_per_{u}_per_gpu|{t}s/{u}/GPU|avg {t}s/{u}|{T}sPer{U}|{t}s_{u}|k{t}s/{u}"
    "|eval_{t}s_per_{u}"
)
MEMORIES = (
    "peak_memory_{u}|Peak Memory ({u})|gpu_mem_{u}|max_mem_{u}|{u}_peak|memory [{u}]|VRAM ({u})"
    "|max_memory_allocated_{u}|memory_in_{u}|cuda_peak_{u}|max_reserved_{u}|mem_{u}_max"
    "|gpu_memory_usage_{u}|host_mem_{u}|peak_{u}_per_gpu|mem_{u}_mean"
)
OF = {
    "epoch": "epoch_seconds",
    "step": "step_seconds",
    "batch": "step_seconds",
    "iteration": "step_seconds",
    "sample": "sample_seconds",
    "token": "token_seconds",
}
LONG_UNITS = ("ns", "us", "ms", "msec", "sec", "seconds", "minutes", "hours")


def spelled(form: str, thing: str, unit: str) -> tuple[str, Meaning]:
    name = form.format(t=thing, T=thing.capitalize(), u=unit, U=unit.capitalize())
    return name, meaning_of(name)


@pytest.mark.parametrize("form", TIMES.split("|"))
def test_times(form: str) -> None:
    for thing, unit in product(OF, LONG_UNITS):
        name, found = spelled(form, thing, unit)
        if name in OF.values():  # our own name
            continue
        assert found.left_out or (found.role, found.inverse) == (OF[thing], False), name
        assert found.left_out or time_unit(found.unit or "") == time_unit(unit), name


@pytest.mark.parametrize("form", RATES.split("|"))
def test_rates(form: str) -> None:
    for thing, unit in product(OF, ("s", "sec", "second", "min", "hour", "day")):
        if thing in ("epoch", "batch"):  # batchs
            continue
        name, found = spelled(form, thing, unit)
        of = {OF[thing], "update_seconds"} if thing == "step" else {OF[thing]}
        assert found.left_out or (found.role in of and found.inverse), name
        assert found.left_out or time_unit(found.unit or "") == time_unit(unit), name
        assert found.left_out or (found.each == "device") == ("gpu" in name.lower()), name


@pytest.mark.parametrize("form", MEMORIES.split("|"))
def test_memories(form: str) -> None:
    letters = {"G": 2**30, "M": 2**20}
    for unit in ("MB", "GB", "MiB", "gib", "KB", "bytes", *letters):
        name, found = spelled(form, "", unit)
        assert found.left_out or found.role in ("peak_bytes", "device_bytes"), name
        expected = letters.get(unit) or size_unit(unit.lower())
        assert found.left_out or size_unit(found.unit or "") == expected, name
