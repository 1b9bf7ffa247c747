"""The forms that each quantity may take; selection.py weighs them.

Features of work come before constants: where one configuration cannot tell them apart, non-negative
least squares takes the first, and a time in proportion to the work is the better guess.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from math import inf

from epochcast.costmodel import features as f
from epochcast.costmodel.selection import Form
from epochcast.records import DeviceKind

SOFT_EXPONENTS = (2.0, 4.0)  # between a sum (1) and a maximum (∞)
UNLIKELY = 0.3  # prior of a form that the kind of device speaks against
DOUBTED = 0.1  # of one that is asked for the sake of its disagreement


def time_forms(
    knobs: Sequence[str], kind: DeviceKind, *, has_counts: bool, aligned: bool = True
) -> list[Form]:
    """Seconds of a micro-step or of an evaluation batch.

    A CPU finishes what it is told before it is told more, so times add up; an accelerator works
    while the host prepares the next operator, so the slower of the two rules.

    Args:
        has_counts: whether operators were counted; otherwise only knobs and batch size are known.
        aligned: whether FLOPs were also counted as kernels work through them.
    """
    scales = f.knob_monomials(knobs)
    if not has_counts:
        lines = f.times_batch(scales) + scales
        floor = (scales, lines)
        hard = Form(name="floor", groups=floor, exponent=inf)
        return [Form(name="line", groups=(lines,)), *_soft_floors(floor), hard]
    work = f.WORK if aligned else f.UNALIGNED_WORK
    sums = [
        Form(name="sum", groups=(work + f.LAUNCH,)),
        Form(name="sum by class", groups=(f.WORK_BY_CLASS + f.LAUNCH,), prior=UNLIKELY),
    ]
    floors = _soft_floors((f.LAUNCH, work + f.DISPATCHED))
    likely, other = (sums, floors) if kind == "cpu" else (floors, sums)
    return [*likely, *(replace(form, prior=UNLIKELY) for form in other)]


def _soft_floors(groups: tuple[tuple[f.Feature, ...], ...]) -> list[Form]:
    return [
        Form(name=f"soft floor p={exponent:.0f}", groups=groups, exponent=exponent)
        for exponent in SOFT_EXPONENTS
    ]


def update_forms(knobs: Sequence[str]) -> list[Form]:
    """Seconds of one optimizer update."""
    by_size = (f.CONSTANT, (("parameters", 1.0),), (("static_bytes", 1.0),))
    return [
        Form(name="sum", groups=(by_size,)),
        Form(name="by knobs", groups=(f.knob_monomials(knobs),)),
    ]


def count_forms(knobs: Sequence[str]) -> list[Form]:
    """Counts and peaks, which are the same on every device.

    Two values of a knob do not tell a straight line from a square. Both are asked: where they
    disagree, less is known.
    """
    scales = f.knob_monomials(knobs)
    lines = f.times_batch(scales) + scales
    return [
        Form(name="polynomial", groups=(lines,)),
        *(
            Form(name=name, groups=(f.times_batch(some) + some,), prior=DOUBTED)
            for name, powers in (("straight", (0, 1)), ("square", (0, 2)))
            if (some := f.knob_monomials(knobs, powers)) != scales
        ),
        Form(name="maximum of lines", groups=(lines, lines), exponent=inf),
        Form(name="padded", groups=(lines + f.times_padding(scales),)),
    ]


def static_forms(knobs: Sequence[str]) -> list[Form]:
    """What does not depend on the batch size: building, saving."""
    by_size = (f.CONSTANT, (("static_bytes", 1.0),))
    return [
        Form(name="line", groups=(by_size,)),
        Form(name="by knobs", groups=(f.knob_monomials(knobs),)),
    ]


def beyond_peak_forms(kind: DeviceKind, *, shared: bool = True) -> list[Form]:
    """What a layer of memory needs beyond the live tensors: a constant, and a share of the peak.

    An accelerator's caching allocator rounds and fragments in proportion to what it holds
    (benchmarks/public_memory.py). A CPU's memory goes back to the system.

    Args:
        shared: whether peaks differ enough to tell a share of them.
    """
    share = (("peak_bytes", 1.0),)
    prior = UNLIKELY if kind == "cpu" else 1.0
    constant = Form(name="constant", groups=((f.CONSTANT,),))
    both = Form(name="constant and share", groups=((f.CONSTANT, share),), prior=prior)
    return [constant, both] if shared else [constant]


def untracked_forms(knobs: Sequence[str]) -> list[Form]:
    """All that a layer of memory needs, where no tensors were tracked."""
    scales = f.knob_monomials(knobs)
    lines = f.times_batch(scales) + scales
    return [
        Form(name="line", groups=(lines,)),
        Form(name="maximum of lines", groups=(lines, lines), exponent=inf),
    ]


def loader_forms(knobs: Sequence[str]) -> list[Form]:
    """Seconds in which the loader alone delivers a batch."""
    samples = (f.CONSTANT, (("batch_size", 1.0),))
    scales = f.knob_monomials(knobs)
    return [
        Form(name="line", groups=(samples,)),
        Form(name="by knobs", groups=((f.CONSTANT, *f.times_batch(scales)),)),
    ]


def sample_forms(knobs: Sequence[str]) -> list[Form]:
    """Samples of an epoch: a longer context makes fewer windows of the same text."""
    powers = tuple(((knob, power),) for knob in knobs for power in (-1.0, 1.0))
    return [
        Form(name="constant", groups=((f.CONSTANT,),)),
        Form(name="by knobs", groups=((f.CONSTANT, *powers),)),
    ]


def only_known(forms: Sequence[Form], known: set[str]) -> list[Form]:
    """The forms without features of variables that were not measured."""
    usable = []
    for form in forms:
        groups = tuple(
            tuple(x for x in group if all(name in known for name, _ in x)) for group in form.groups
        )
        if all(groups):
            usable.append(replace(form, groups=groups))
    return usable
