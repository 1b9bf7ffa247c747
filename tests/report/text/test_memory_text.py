"""What a training needs on a device, as text."""

from dataclasses import replace

import pytest
from rich.console import Console
from sequences import CONFIG, T4, training

from epochcast.devices.need import device_need
from epochcast.devices.sharding import by_formulas
from epochcast.records import Alternative, LargestValue
from epochcast.report.text.memory import (
    print_alternatives,
    print_largest,
    print_needs,
    print_shared,
    verdict,
)

NEED = device_need(training(unknown=True), CONFIG, flops=10**9, seconds=1.5)
NONE = device_need(replace(training(), device=replace(T4, memory_bytes=2**20)), CONFIG)


def said(print_it, *arguments) -> str:
    console = Console(width=160, no_color=True, force_terminal=False)
    with console.capture() as capture:
        print_it(console, *arguments)
    return capture.get()


def test_one_configuration_is_told_in_full() -> None:
    text = said(print_needs, "train.py:workload", [NEED])
    assert "train.py:workload on t4, 14.6 GiB as CUDA reports it" in text
    assert "yes: of 14.6 GiB" in text
    assert "forward of step 2" in text
    rows = "activations", "optimizer states", "cached or fragmented", "context and libraries"
    for row in (*rows, "known to the device alone"):
        assert row in text
    assert "aten.convolution_backward takes 0 B to 64 MiB, 2 times: cuDNN chooses" in text


def test_several_have_a_row_each() -> None:
    other = replace(NEED, config=replace(CONFIG, batch_size=32))
    text = said(print_needs, "w", [NEED, other])
    assert [line.split()[:2] for line in text.splitlines()[2:4]] == [["16", "512"], ["32", "512"]]
    assert "with 95 %" in text


def test_what_does_not_fit_says_so() -> None:
    assert verdict(NONE) == "no"
    text = said(print_needs, "w", [NONE])
    assert "not with 95 %" in text
    assert "runs out of memory in a replay" in text
    squeezed = replace(NONE, retries=2)
    assert "releases its cache 2 times" in said(print_needs, "w", [squeezed])


def test_remarks_are_said_once() -> None:
    need = replace(NEED, remarks=("the CPU's operators were counted",))
    assert said(print_needs, "w", [need, need]).count("the CPU's operators") == 1


def test_the_largest_values() -> None:
    found = LargestValue(name="batch_size", value=112, step=1, need=NEED, above=NONE)
    none = LargestValue(name="width", value=None, step=64, why_ended="heads do not divide it")
    text = said(print_largest, [found, none])
    assert "largest batch size: 112, which needs " in text
    assert "; 113 would need " in text
    assert "largest width: none fits; 64 was not followed: heads do not divide it" in text


def test_alternatives_stand_side_by_side() -> None:
    less = replace(
        NEED, device_bytes=NEED.device_bytes.scaled(0.5), flops=13 * 10**8, needed_bytes=10**6
    )
    rows = [
        Alternative(changes=(), need=NEED, largest_batch=100),
        Alternative(changes=(("checkpointing", "on"),), need=less, largest_batch=250),
        Alternative(changes=(("optimizer", "lion"),), problem="it is not known"),
    ]
    text = said(print_alternatives, rows)
    row = next(line for line in text.splitlines() if line.startswith("checkpointing=on"))
    assert "+30 %" in row
    assert row.split()[-1] == "250"
    assert "optimizer=lion cannot be counted: it is not known" in text


@pytest.mark.parametrize("retries", [0, 3])
def test_it_may_fit(retries) -> None:
    assert verdict(replace(NONE, retries=retries, probability=0.4)) == "perhaps (40 %)"


def test_several_devices_are_formulas_and_said_to_be() -> None:
    text = said(print_shared, NEED, 8, by_formulas(NEED, 8))
    assert "each of 8 devices, by formulas" in text
    assert "ZeRO-3 or FSDP" in text
    assert "nothing of this was followed" in text
