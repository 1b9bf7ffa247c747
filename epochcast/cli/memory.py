"""The part of ``epochcast dry-run`` about a device: what it needs, what fits, what would help."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import click

from epochcast.cli.completing import of_cards
from epochcast.cli.options import (
    BYTES,
    KNOB,
    PICTURE,
    SHARE,
    Command,
    console,
    print_json,
    whole_number,
)
from epochcast.errors import UsageError

if TYPE_CHECKING:
    from epochcast.api.following import MemoryQuestion
    from epochcast.profiler.request import SweepRequest
    from epochcast.records import DeviceNeed, Share

    Answer = tuple[Sequence[DeviceNeed], dict[str, Any]]  # needs, and the document's contents

ASSUMED = "24GiB"  # where a what-if names no device
ASSUMED_REMARK = f"no --device was given: a card of {ASSUMED} is assumed"
OPTIONS: tuple[Callable[[Command], Command], ...] = (
    click.option(
        "--device",
        metavar="CARD|SIZE",
        shell_complete=of_cards,
        help="Say what it needs on this card, e.g. a100-40gb, or on any of this memory, e.g. "
        "24GiB; it need not be here.",
    ),
    click.option(
        "--fit",
        metavar="CARD|SIZE",
        shell_complete=of_cards,
        help="Find the largest batch that fits there, and the largest value of each knob.",
    ),
    click.option(
        "--what-if",
        "what_ifs",
        type=KNOB,
        multiple=True,
        help="Show what it needs with this changed: precision, accumulation, optimizer, "
        "checkpointing=on, batch_size or a knob; repeatable.",
    ),
    click.option(
        "--confidence",
        type=SHARE,
        default="95%",
        show_default=True,
        help="It must fit with this probability.",
    ),
    click.option(
        "--used",
        type=BYTES,
        default="0 B",
        show_default=True,
        help="Leave so much of the device to others.",
    ),
    click.option(
        "--world-size",
        type=whole_number(2),
        help="Show what each of so many devices needs by the formulas of DDP, ZeRO and FSDP.",
    ),
    click.option(
        "--allocator",
        metavar="SETTINGS",
        help="Take torch's allocator to have these settings, as in PYTORCH_CUDA_ALLOC_CONF. "
        "Default: those of the environment.",
    ),
    click.option(
        "--plot", type=PICTURE, help="Draw memory along a step into this file, a .png or .svg."
    ),
)


def memory_options(command: Command) -> Command:
    """Add the options of this part to a command."""
    for option in reversed(OPTIONS):
        command = option(command)
    return command


def is_about_a_device(options: dict[str, Any]) -> bool:
    """Whether one of the options asks for what is answered here.

    Raises:
        UsageError: the options contradict one another, or need a device that is not named.
    """
    if options["device"] and options["fit"]:
        raise UsageError("give either --device or --fit: both name a device")
    for name in ("device", "fit"):
        if options[name] is not None and not options[name].strip():
            raise UsageError(f"--{name} is a card or a size, e.g. a100-40gb or 24GiB, but is empty")
    asked = bool(options["device"] or options["fit"] or options["what_ifs"])
    for name in ("plot", "used", "allocator", "world_size"):
        if options[name] and not asked:
            raise UsageError(
                f"--{name.replace('_', '-')} is about a device: name one with --device"
            )
    return asked


def answer(workload: str, request: SweepRequest, options: dict[str, Any], as_json: bool) -> None:
    """Print what was asked of a device.

    Args:
        workload: as it was typed.
        request: names configurations.
        options: as of ``OPTIONS``, by name.
        as_json: whether to print a document.
    """
    from epochcast.api.memory import question_of

    device = options["device"] or options["fit"] or ASSUMED
    question = question_of(device, options["confidence"], options["used"], options["allocator"])
    if options["what_ifs"]:
        needs, contents = _compare(workload, request, question, options, as_json)
    elif options["fit"]:
        needs, contents = _fit(workload, request, question, as_json)
    else:
        needs, contents = _need(workload, request, question, as_json)
    if options["world_size"]:
        contents["each_of_several_devices"] = _share(needs, options["world_size"], as_json)
    if as_json:
        print_json(**contents)
    if options["plot"]:
        _draw(workload, needs, options["plot"])


def _need(workload: str, request: SweepRequest, question: MemoryQuestion, as_json: bool) -> Answer:
    from epochcast.api.memory import device_needs
    from epochcast.report.text.memory import print_needs

    needs = device_needs(request, question)
    if not as_json:
        print_needs(console(), workload, needs)
    return needs, {"needs": needs}


def _fit(workload: str, request: SweepRequest, question: MemoryQuestion, as_json: bool) -> Answer:
    from epochcast.api.largest import largest_values
    from epochcast.report.text.memory import print_largest, print_needs

    found = []
    for value in largest_values(request, question):
        found.append(value)
        if not as_json:
            print_largest(console(), [value])
    needs = [value.need for value in found[:1] if value.need is not None]
    if needs and not as_json:
        console().print()
        print_needs(console(), workload, needs)
    return needs, {"largest": found}


def _compare(
    workload: str,
    request: SweepRequest,
    question: MemoryQuestion,
    options: dict[str, Any],
    as_json: bool,
) -> Answer:
    from epochcast.api.memory import alternatives
    from epochcast.report.text.layout import say
    from epochcast.report.text.memory import device_heading, print_alternatives

    found = alternatives(request, question, options["what_ifs"])
    needs = [a.need for a in found[:1] if a.need is not None]
    if as_json:
        return needs, {"alternatives": found}
    if not (options["device"] or options["fit"]):
        say(console(), f"note: {ASSUMED_REMARK}", "yellow")
    console().print(device_heading(workload, needs[0]), soft_wrap=True)
    print_alternatives(console(), found)
    return needs, {"alternatives": found}


def _share(needs: Sequence[DeviceNeed], devices: int, as_json: bool) -> Sequence[Sequence[Share]]:
    """By formulas, for each configuration that was answered."""
    from epochcast.devices.sharding import by_formulas
    from epochcast.report.text.memory import print_shared

    shared = [by_formulas(need, devices) for need in needs]
    if not as_json:
        for need, shares in zip(needs, shared, strict=True):
            print_shared(console(), need, devices, shares)
    return shared


def _draw(workload: str, needs: Sequence[DeviceNeed], path: str) -> None:
    from epochcast.report.plots.memory import draw_memory
    from epochcast.report.plots.pictures import save_picture

    if not needs:
        raise UsageError("nothing fits, so there is nothing to draw; --device draws what does not")
    save_picture(draw_memory(needs[0], f"{workload}: {needs[0].config.label}"), path)
