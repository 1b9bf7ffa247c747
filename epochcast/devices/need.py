"""What a device must have for a sequence of allocations, as quantiles, and what fills it.

    reserved    replays in which what is not known comes out differently ×  e^(σ·t)
    outside     the context, kernels and libraries: measured on the card, or as seen elsewhere
    device      reserved + outside, over all combinations of both

σ is how far real reserves were from replays of the sequence followed here (``REPLAY_SD``): a
training has more in it than two steps of one shape. Where the CPU's operators were followed
instead of the device's, other kernels keep other tensors, and it is much more.

Outside the allocator: what a process has on the device beside it, in proportion to the
multiprocessors (the driver keeps room for each one's threads), and cuBLAS' handles, of which the
forward and the backward pass have one each. Measured on a T4, an H200 and an H100; of others from
public messages of exhausted memory: "this process has X in use" less "allocated by PyTorch" and
"reserved but unallocated". 3.0 to 4.9 MiB for each multiprocessor, and on compute capability 9
handles of 64 MiB. Drivers and versions differ: all of it is spread by ``OUTSIDE_SD``. Where kernels
are loaded eagerly (before CUDA 11.7, or by CUDA_MODULE_LOADING=EAGER), a gigabyte more.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from math import exp, inf, isqrt
from statistics import NormalDist

from epochcast.devices.allocator_settings import MIB, AllocatorSettings
from epochcast.devices.cards import contexts_of
from epochcast.devices.later_steps import growth, with_third_step
from epochcast.devices.replay import (
    Replayed,
    Variation,
    blocks_in_use,
    replay,
    runs_in,
    unknown_groups,
)
from epochcast.records import (
    DeviceNeed,
    DeviceSequence,
    DeviceSpec,
    LiveTensor,
    MemoryCurve,
    Quantiles,
    RunConfig,
    Share,
    StepMark,
    Unseen,
)
from epochcast.records.estimate import LEVELS
from epochcast.units import format_bytes

VARIATIONS = 16  # replays, with unknown bytes at as many levels
REPLAY_SD = 0.02  # of log(real reserve / replayed): eight peaks on a T4, −3.1 to +3.7 %
CPU_SD = 0.25  # where the CPU's operators were followed: dropout and attention keep other tensors
NORMAL_LEVELS = 39  # points of the normal distribution that stand for it
LARGEST = 20  # tensors that are listed
POINTS = 240  # of the curve
# MiB that processes had outside the allocator, and multiprocessors; threads are on GitHub
OUTSIDE_SEEN = {
    "highwaterlabs/torch-preflight 774b839, measured_cuda.json (T4)": (135, 40),
    "ESRSchao/EdgeRegNet#2 (RTX 4060)": (116, 24),
    "DengKaiCQ/VGGT-Long#6 (RTX A4000)": (190, 48),
    "DINGYANB/MTVCrafter#21 (RTX 6000 Ada)": (428, 142),
    "Soul-AILab/SoulX-FlashTalk#5 (RTX 4090)": (450, 128),
    "TianheWu/CoSeR#10 (A100)": (501, 108),
    "3DTopia/Phidias-Diffusion#8 (RTX 4090)": (504, 128),
    "NVlabs/Eagle#68 (L40)": (507, 142),
    "Wan-Video/Wan2.1#465 (RTX 5090)": (595, 170),
    "benchmarks/results/h200, all libraries (H200), without its handles": (641, 132),
}
HANDLES = 2 * 64 * MIB  # of cuBLAS on compute capability 9: 66 and 64 MiB on that H200
OUTSIDE_SD = 0.08  # of its logarithm between installations: two messages of RTX 4090 are 11 % apart
OUTSIDE_LEVELS = 5  # points of the normal distribution that stand for it
# MiB more with modules loaded eagerly: public_memory.py's A100 less CoSeR's; the H200, once cuBLAS
# was used, and once cuDNN was, too
EAGER_SEEN = (928, 1054, 1332)
EAGER = (
    "CUDA_MODULE_LOADING is EAGER here: all kernels are loaded, "
    f"{min(EAGER_SEEN):,} to {max(EAGER_SEEN):,} MiB more; unset it to load those that are used"
)
NOT_IN_USE = "cached or fragmented"  # reserved, but in no use at the peak
UNKNOWN = "known to the device alone"  # what is unseen reserves in the median, fragments included
ROUNDING = "rounding"
CONTEXT = "context and libraries"


def device_need(
    sequence: DeviceSequence,
    config: RunConfig,
    *,
    settings: AllocatorSettings | None = None,
    used_bytes: int = 0,
    confidence: float = 0.95,
    eager: bool = False,
    flops: int = 0,
    seconds: float = 0.0,
) -> DeviceNeed:
    """Everything that is told of one configuration.

    Args:
        sequence: its allocations on the device.
        config: that was followed.
        settings: of the allocator; torch's own if not given.
        used_bytes: of the device, by other processes.
        confidence: with which it shall fit.
        eager: kernels are loaded before they are used.
        flops: of its forward and backward pass.
        seconds: that following it took.

    Raises:
        OutOfDeviceMemory: never; the device of a replay has no end.
    """
    followed, sequence = sequence, with_third_step(sequence)
    plain = replay(sequence, settings, history=True)
    reserves, allocated = _varied(sequence, settings)
    outside = outside_bytes(sequence.device, eager)
    draws = sorted(r + o for r in _scattered(reserves, _sd(sequence)) for o in outside)
    free = sequence.device.memory_bytes - used_bytes
    fitting = sum(draw <= free for draw in draws) / len(draws)
    need = DeviceNeed(
        config=config,
        device=sequence.device,
        used_bytes=used_bytes,
        confidence=confidence,
        allocated_bytes=_quantiles(_scattered(allocated, _sd(sequence) / 4)),
        reserved_bytes=_quantiles(_scattered(reserves, _sd(sequence))),
        outside_bytes=_quantiles(outside),
        device_bytes=_quantiles(draws),
        needed_bytes=round(quantile(draws, confidence)),
        probability=fitting,
        source=sequence.source,
        remarks=(*sequence.remarks, *growth(followed), *([EAGER] if eager else [])),
        flops=flops,
        seconds=seconds,
        unseen=_unseen(followed),
    )
    if not need.fits:
        room = max(0, free - round(need.outside_bytes.p50))
        need = replace(need, retries=runs_in(sequence, room, settings))
    return _filled(need, sequence, plain)


def needed_bytes(
    sequence: DeviceSequence,
    settings: AllocatorSettings | None = None,
    confidence: float = 0.95,
    *,
    eager: bool = False,
) -> int:
    """What must be there with a confidence, and nothing else of ``device_need``.

    Args:
        sequence: of allocations.
        settings: of the allocator.
        confidence: with which it shall fit.
        eager: kernels are loaded before they are used.
    """
    sequence = with_third_step(sequence)
    reserves, _ = _varied(sequence, settings)
    scattered = _scattered(reserves, _sd(sequence))
    outside = outside_bytes(sequence.device, eager)
    return round(quantile(sorted(r + o for r in scattered for o in outside), confidence))


def outside_bytes(device: DeviceSpec, eager: bool = False) -> list[int]:
    """Bytes that a process takes beside the allocator, equally likely ones.

    As seen on this chip, or in proportion to its multiprocessors; of a device of which only the
    memory is known, as on any.

    Args:
        device: that is asked about.
        eager: kernels are loaded before they are used.
    """
    spread = _scattered(_seen(device), OUTSIDE_SD, OUTSIDE_LEVELS)
    more = [mib * MIB for mib in EAGER_SEEN] if eager else [0]
    return sorted(round(taken) + extra for taken in spread for extra in more)


def _seen(device: DeviceSpec) -> list[float]:
    if device.name == format_bytes(device.memory_bytes):
        return [mib * MIB for mib, _ in OUTSIDE_SEEN.values()]
    if contexts := contexts_of(device):
        return [*contexts]
    handles = {9: (HANDLES,), 10: (0, HANDLES)}.get(device.capability[0], (0,))  # 10: not known
    each = [mib / multiprocessors for mib, multiprocessors in OUTSIDE_SEEN.values()]
    return [mib * device.multiprocessors * MIB + taken for mib in each for taken in handles]


def quantile(ordered: Sequence[float], level: float) -> float:
    """The least of sorted, equally likely values that is not below a level of them."""
    position = min(len(ordered) - 1, int(level * len(ordered)))
    return ordered[position]


def _sd(sequence: DeviceSequence) -> float:
    return REPLAY_SD if sequence.source == "device" else CPU_SD


def _varied(
    sequence: DeviceSequence, settings: AllocatorSettings | None
) -> tuple[list[int], list[int]]:
    """Reserved and allocated bytes of replays that differ in what is not known."""
    ways = [Variation(levels=at, seed=k + 1) for k, at in enumerate(_levels(sequence))]
    if not sequence.unknown:
        ways.append(Variation())
    found = [replay(sequence, settings, variation=way) for way in ways]
    return [r.reserved_bytes for r in found], [r.allocated_bytes for r in found]


def _levels(sequence: DeviceSequence) -> list[tuple[float, ...]]:
    """Where what is not known lies in each replay: a Latin hypercube (McKay et al. 1979).

    Groups come out independently of each other: workspaces of layers that hardly differ fragment
    what workspaces of one size share.
    """
    if not sequence.unknown:
        return [(0.0,)]
    rng = random.Random(1)
    strata = [(k + 0.5) / VARIATIONS for k in range(VARIATIONS)]
    groups = max(unknown_groups(sequence)) + 1
    return [*zip(*(rng.sample(strata, VARIATIONS) for _ in range(groups)), strict=True)]


def _scattered(values: Sequence[float], sd: float, points: int = NORMAL_LEVELS) -> list[float]:
    """Each of some values times points of a lognormal distribution with median 1.

    Args:
        values: equally likely.
        sd: of the logarithm.
        points: that stand for the distribution.
    """
    normal = NormalDist()
    levels = [(k + 0.5) / points for k in range(points)]
    factors = [exp(sd * normal.inv_cdf(level)) for level in levels]
    return sorted(value * factor for value in values for factor in factors)


def _quantiles(values: Sequence[float]) -> Quantiles:
    ordered = sorted(values)
    return Quantiles.of(quantile(ordered, level) for level in LEVELS)


def _unseen(sequence: DeviceSequence) -> tuple[Unseen, ...]:
    """The unknown bytes by what takes them and why, the largest first."""
    groups: dict[tuple[str, str], list[tuple[int, int]]] = {}
    for u in sequence.unknown:
        groups.setdefault((u.operator, u.reason), []).append((u.high_bytes, u.low_bytes))
    found = [
        Unseen(
            name=operator,
            times=len(bounds),
            low_bytes=max(bounds)[1],
            high_bytes=max(bounds)[0],
            reason=reason,
        )
        for (operator, reason), bounds in groups.items()
    ]
    return tuple(sorted(found, key=lambda u: -u.high_bytes))


# -- what fills it --------------------------------------------------------------------------------


def _filled(need: DeviceNeed, sequence: DeviceSequence, plain: Replayed) -> DeviceNeed:
    """With what is in use at the peak, and the curve of the last step."""
    alive = blocks_in_use(sequence, plain.peak)
    kinds: Counter[str] = Counter()
    for block in alive:
        kinds[kind_name(sequence.block_kinds[block])] += sequence.block_bytes[block]
    unused = {
        ROUNDING: plain.allocated_bytes - plain.requested_bytes,
        NOT_IN_USE: plain.reserved_bytes - plain.allocated_bytes,
        **_unknown_share(need, plain),
        CONTEXT: round(need.outside_bytes.p50),
    }
    return replace(
        need,
        moment=_moment(sequence, plain.peak),
        kinds=(*_shares(kinds), *(Share(name=n, bytes=b) for n, b in unused.items())),
        modules=_shares(_by(sequence, alive, sequence.block_modules, sequence.modules)),
        operators=_shares(_by(sequence, alive, sequence.block_operators, sequence.operators)),
        tensors=_largest(sequence, alive),
        curve=_curve(sequence, plain),
    )


def _unknown_share(need: DeviceNeed, plain: Replayed) -> dict[str, int]:
    """What is reserved beyond the replay in which all that is unseen is as small as it can be."""
    more = round(need.reserved_bytes.p50) - plain.reserved_bytes
    return {UNKNOWN: more} if need.unseen and more > 0 else {}


def kind_name(kind: str) -> str:
    """A kind of block as people call many of them."""
    return {
        "parameter": "parameters",
        "buffer": "buffers",
        "optimizer": "optimizer states",
        "input": "inputs",
        "activation": "activations",
        "gradient": "gradients",
        "workspace": "workspaces",
        "temporary": "temporaries",
        "other": "temporaries",
        "kept": "kept between steps",
    }.get(kind, kind)


def _shares(bytes_by_name: Counter[str]) -> tuple[Share, ...]:
    return tuple(Share(name=name, bytes=size) for name, size in bytes_by_name.most_common())


def _by(
    sequence: DeviceSequence, alive: Sequence[int], column: Sequence[int], names: Sequence[str]
) -> Counter[str]:
    found: Counter[str] = Counter()
    for block in alive:
        found[_name(column[block], names)] += sequence.block_bytes[block]
    return found


def _name(position: int, names: Sequence[str]) -> str:
    return names[position] if position >= 0 else ""


def _largest(sequence: DeviceSequence, alive: Sequence[int]) -> tuple[LiveTensor, ...]:
    """The largest blocks; equal ones are one row."""
    alike: Counter[tuple[int, str, str, str, str]] = Counter()
    for b in alive:
        alike[
            sequence.block_bytes[b],
            kind_name(sequence.block_kinds[b]),
            _name(sequence.block_operators[b], sequence.operators),
            _name(sequence.block_modules[b], sequence.modules),
            _name(sequence.block_lines[b], sequence.lines),
        ] += 1
    ordered = sorted(alike.items(), key=lambda item: (-item[0][0], -item[1], item[0][1:]))
    return tuple(
        LiveTensor(bytes=size, count=count, kind=kind, operator=operator, module=module, line=line)
        for (size, kind, operator, module, line), count in ordered[:LARGEST]
    )


def _moment(sequence: DeviceSequence, peak: int) -> str:
    """``"backward, at aten.mm of blocks.3"``."""
    passed = [mark for mark in sequence.marks if mark.position < peak]
    moment = f"{passed[-1].moment} of step {passed[-1].step}" if passed else "build"
    block = abs(sequence.events[peak - 1]) - 1 if peak else -1
    if block < 0:
        return moment
    operator = _name(sequence.block_operators[block], sequence.operators)
    module = _name(sequence.block_modules[block], sequence.modules)
    at = f", at {operator}" if operator else ""
    return f"{moment}{at}{f' of {module}' if at and module else ''}"


def _curve(sequence: DeviceSequence, plain: Replayed) -> MemoryCurve:
    """The last step, in at most ``POINTS`` points."""
    kinds = tuple(dict.fromkeys(map(kind_name, sequence.block_kinds)))
    column = {kind: n for n, kind in enumerate(kinds)}
    marks = _last_step(sequence.marks)
    start = marks[0].position if marks else 0
    stretch = max(1, -(-(len(sequence.events) - start) // POINTS))
    live, best = [0] * len(kinds), (0, [0] * len(kinds), 0)
    rows: list[tuple[int, ...]] = []
    reserved: list[int] = []
    for position, event in enumerate(sequence.events):
        block = abs(event) - 1
        size = plain.sizes[block]
        live[column[kind_name(sequence.block_kinds[block])]] += size if event > 0 else -size
        if position < start:
            continue
        if sum(live) >= best[0]:
            best = sum(live), [*live], plain.reserved[position]
        if (position - start) % stretch == stretch - 1 or position == len(sequence.events) - 1:
            rows.append(tuple(best[1]))
            reserved.append(plain.reserved[position])
            best = 0, [0] * len(kinds), 0
    moments = tuple((m.moment, (m.position - start) // stretch) for m in marks)
    return MemoryCurve(kinds=kinds, live=tuple(rows), reserved=tuple(reserved), moments=moments)


def _last_step(marks: Sequence[StepMark]) -> list[StepMark]:
    last = max((mark.step for mark in marks), default=0)
    return [mark for mark in marks if mark.step == last]


# -- the largest that fits ------------------------------------------------------------------------


def largest_fitting(
    needed: Callable[[int], float], free: float, low: int, high: int, first: int
) -> int | None:
    """The largest whole number that fits, where all below one that fits do.

    The next trial is where the line through the last two needs meets what is free (the secant
    method), between what fits and what does not; every third is the geometric middle of those, so
    that a need that rises in stairs is enclosed all the same.

    Args:
        needed: by a number; infinite where it cannot be.
        free: that it must not exceed.
        low, high: the least and the most there is, from 1 on.
        first: a guess between them, from which few steps lead to the answer if it is good.

    Returns:
        None where not even the least fits.
    """
    good, bad = low - 1, high + 1
    last, trial, trials = (0, 0.0), min(max(first, low), high), 0
    while good + 1 < bad:
        here = trial, needed(trial)
        good, bad = (trial, bad) if here[1] <= free else (good, trial)
        trials += 1
        led = _meeting(last, here, free) if trials % 3 else None
        trial = isqrt(max(1, good) * bad) if led is None else led
        trial, last = min(max(trial, good + 1), bad - 1), here
    return good if good >= low else None


def _meeting(a: tuple[int, float], b: tuple[int, float], height: float) -> int | None:
    """Where the line through two points reaches a height; None where it does not rise, or has no
    end."""
    rise = (b[1] - a[1]) / (b[0] - a[0])
    return int(b[0] + (height - b[1]) / rise) if 0 < rise < inf else None
