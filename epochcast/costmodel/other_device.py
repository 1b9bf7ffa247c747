"""What was measured on one GPU, as it would be on another: by rooflines of both data sheets.

    step on A = wait for data + G        G·ratio + wait for data = step on B

    work(d) = Σ_c FLOPs_c / reached_d(c) + bytes / bandwidth_d        ratio = work(B) / work(A)
    reached_d(c) = peak_d(c)^(1 − η) · (ρ · bandwidth_d)^η

c are classes of operators: the peak is that of the precision in which a class computes. A chip with
more FLOPs for each byte of bandwidth reaches less of its peak: η says how much less. No step gets
shorter than starting its operators takes, which is the host's to do; loading and the wait for it
are the host's, too (Williams, Waterman & Patterson 2009, "Roofline"; the same idea kernel by kernel
is Habitat's: Yu et al., USENIX ATC'21). Only what one device took alone is transferred: steps of
several have the averaging of gradients in them, which goes by their links.

What this misses is shared by most configurations of a pair of devices. So a few measurements on B
correct all: of the log of the error, with variance σ², a share s is taken to be common. After n
measurements with mean log error ē (a normal random effect, its posterior):

    correction  exp(w·ē),  w = n·s/(n·s + 1 − s)        variance  σ²·(1 − s·w)
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from math import exp, hypot, log, sqrt
from statistics import fmean, median

from epochcast.costmodel.fitting import fit
from epochcast.costmodel.model import CostModel
from epochcast.costmodel.prediction import predict
from epochcast.costmodel.question import Question
from epochcast.costmodel.scatter import Calibration, Scatter
from epochcast.devices.cards import Card
from epochcast.errors import PredictionError
from epochcast.records import Device, Footprint, Measurement, RunConfig
from epochcast.records.measurement import IMPORTED

PEAK_LOST = 0.3  # η: chosen on the pairs of benchmarks/other_device.py
BALANCED = 100.0  # ρ: FLOPs a byte at which a chip is taken to reach its peak
LAUNCH_SECONDS = 20e-6  # of an operator: six layers of a GPT took 10.8 ms for 500 (results/h200)
REACHED = 0.5  # of what a roofline allows, where starting operators hides how much it is
BASE_SD, SD_OF_LOG = 0.1, 0.3  # σ = hypot of the two, the second times |log ratio|: same pairs
COMMON = 0.65  # s


def work_seconds(footprint: Footprint, config: RunConfig, card: Card) -> float:
    """What a roofline says a micro-step takes on a card, up to a factor that cards share.

    Args:
        footprint: its counts.
        config: whose precision decides at which of its rates a card computes.
        card: with its data sheet.

    Raises:
        PredictionError: the card's data sheet has no rate for the precision.
    """
    classes = footprint.flops_by_class or (("matmul", footprint.flops),)
    computing = sum(flops / _reached(card, kind, config.precision) for kind, flops in classes)
    return computing + footprint.bytes_moved / card.bandwidth


def doubt(ratio: float, probes: int = 0) -> float:
    """σ of the log of a transferred time, the more the devices differ.

    Args:
        ratio: of the work on both.
        probes: on the other device, that have corrected it.
    """
    return hypot(BASE_SD, SD_OF_LOG * log(ratio)) * sqrt(1 - COMMON * weight(probes))


def weight(probes: int) -> float:
    """Of the mean error of so many probes on the other device: w."""
    return COMMON * probes / (COMMON * probes + 1 - COMMON)


def _reached(card: Card, kind: str, precision: str) -> float:
    """FLOPs a second, of operators of a class."""
    # torch lets cuDNN take TF32 for float32, and matrix products not
    fast = "tf32" if precision == "fp32" and kind in ("convolution", "recurrent") else precision
    rate = card.rates.get(fast) or (card.rates.get("fp32") if fast == "tf32" else None)
    if rate is None:
        raise PredictionError(
            f"the data sheet of {card.device.name} has no rate for {precision}, "
            f"only for {', '.join(card.rates)}"
        )
    return float(rate ** (1 - PEAK_LOST) * (BALANCED * card.bandwidth) ** PEAK_LOST)


def model_on(
    measurements: Iterable[Measurement],
    footprints: Mapping[RunConfig, Footprint],
    cards: tuple[Card, Card],
    seen: Sequence[Measurement] = (),
) -> CostModel:
    """The cost model of another device: wide, and corrected by what was seen of it.

    Args:
        measurements: of one workload on one device.
        footprints: what dry runs counted, for measurements without counts.
        cards: of that device, and of the other.
        seen: measurements of the same workload on the other device.

    Raises:
        PredictionError: nothing was counted, or not on one device alone, or a data sheet lacks a
            rate.
        FitError: the measurements do not determine a model.
    """
    succeeded = [m for m in measurements if m.status == "ok"]
    good, seen = ([m for m in ms if m.config.world_size == 1] for ms in (succeeded, seen))
    if succeeded and not good:
        raise PredictionError(
            f"{succeeded[0].workload} was measured on several devices together only, and how long "
            f"those of {cards[1].device.name} average gradients does not follow: measure it on one"
        )
    counted = [(m, f) for m in good if (f := m.footprint or footprints.get(m.config))]
    if not counted:
        raise PredictionError(_uncounted(good))
    device = _device(counted[0][0].device, cards[1], seen)
    works = [tuple(work_seconds(f, m.config, card) for card in cards) for m, f in counted]

    def fitted(factor: float) -> CostModel:
        pairs = zip(counted, works, strict=True)
        moved = [_moved(m, f, (old, new * factor), device) for (m, f), (old, new) in pairs]
        return fit(moved, footprints)

    model = fitted(1.0)
    errors = [e for m in seen if m.status == "ok" and (e := _log_error(model, m)) is not None]
    if errors:
        model = fitted(exp(weight(len(errors)) * fmean(errors)))
    wide = Scatter(sd=max(doubt(new / old, len(errors)) for old, new in works))
    parts = Calibration(elsewhere=wide)
    return replace(
        model,
        measured_on=counted[0][0].device,
        calibration=replace(model.calibration, epoch=parts, evaluation=parts),
    )


def _uncounted(good: Sequence[Measurement]) -> str:
    """That a transfer needs counts, and where they come from."""
    name = good[0].workload if good else "the workload"
    what = (
        f"no FLOPs and bytes of {name} were counted, which its time on another device follows from"
    )
    if good and good[0].data == IMPORTED:
        return f"{what}; import the runs again with a column flops, or --workload and --footprints"
    target = good[0].target if good else name
    return f"{what}; probe it there, or run: epochcast dry-run {target}"


def _device(source: Device, card: Card, seen: Sequence[Measurement]) -> Device:
    """The other device, as it was seen or else as its data sheet has it."""
    if seen:
        return seen[-1].device
    chip = card.device
    return replace(source, name=chip.name, memory_bytes=chip.memory_bytes, clock_mhz=None)


def _log_error(model: CostModel, m: Measurement) -> float | None:
    """Of what computing a micro-step takes, as it was measured on the other device."""
    c = m.config
    question = Question(
        steps=1,
        batch_size=c.batch_size,
        sizes=dict(c.sizes),
        precision=c.precision,
        compiled=c.compiled,
        workers=c.workers,
        accumulation=c.accumulation,
        samples=m.samples,
    )
    try:
        said = predict(model, question)
    except PredictionError:  # nothing like it was measured on the first device
        return None
    waited = median(m.data_wait_seconds) if m.data_wait_seconds else 0.0
    computed = said.compute_seconds if m.data_wait_seconds else None
    return log((median(m.step_seconds) - waited) / (computed or said.step_seconds.p50))


def _moved(
    m: Measurement, footprint: Footprint, works: tuple[float, float], device: Device
) -> Measurement:
    """A measurement as it would be on another device; what the host does takes as long.

    Args:
        m: as it was made.
        footprint: its counts.
        works: what rooflines say of its device, and of the other.
        device: the other.
    """
    waits = m.data_wait_seconds or (0.0,) * len(m.step_seconds)
    computed = [max(0.0, s - wait) for s, wait in zip(m.step_seconds, waits, strict=True)]
    typical = median(computed) or min(m.step_seconds)
    launching = 0.0 if m.config.compiled else min(typical, footprint.operators * LAUNCH_SECONDS)
    # where starting operators takes as long as all, how long the chip is busy is not seen
    busy = typical if launching < typical else min(typical, works[0] / REACHED)
    ratio = max(launching, busy * works[1] / works[0]) / typical
    loading = median(m.loader_seconds) if m.loader_seconds else 0.0
    steps, new_waits = [], []
    for seconds, wait in zip(computed, waits, strict=True):
        new = seconds * ratio
        # workers load while the device computes: the less that takes, the longer is the wait
        new_wait = (
            max(0.0, wait + min(0.0, seconds - new), loading / m.config.workers - new)
            if (m.config.workers)
            else wait
        )
        steps.append(new + new_wait)
        new_waits.append(new_wait)
    return replace(
        m,
        device=device,
        step_seconds=tuple(steps),
        data_wait_seconds=tuple(new_waits) if m.data_wait_seconds else (),
        update_seconds=tuple(s * ratio for s in m.update_seconds),
        eval_batch_seconds=tuple(
            min(s, loading) + (s - min(s, loading)) * ratio for s in m.eval_batch_seconds
        ),
    )
