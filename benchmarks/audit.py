"""Questions to cost model, planner and guard that were once answered wrongly, and surely.

    each question   its truth by an equation, what was said before 0.2.0, what is said now
                                                       ──▶ docs/accuracy.md

    python benchmarks/audit.py        from the repository root; a minute

Unless said otherwise 50,000 samples on an accelerator, batch sizes 32, 64 and 256, two rounds. What
was said before is quoted from the audit that found it. Coverage is that of P5–P95.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from math import exp, expm1
from pathlib import Path
from random import Random
from statistics import median

from comparison import report

import epochcast as ec
from epochcast.errors import PredictionError
from epochcast.guard.forecast import Level
from epochcast.planning.cadence import save_epochs
from epochcast.records import Quantiles

DOCS, MARK = Path(__file__).resolve().parent.parent / "docs", "benchmarks/audit.py"
SAMPLES, BATCHES = 50_000, (32, 64, 256)
PLANNED = Quantiles(p05=0.95, p10=0.96, p50=1.0, p90=1.04, p95=1.05)  # of an epoch's level
Row = tuple[str, str, str]  # what is asked and true, before, now


def fitted(
    seconds: Callable[[int, float], float],
    sizes: Mapping[str, Sequence[float]] | None = None,
    *,
    batches: Sequence[int] = BATCHES,
    noise: float = 0.0,
    rounds: int = 2,
    device: str = "A100 (cuda)",
    seed: int = 0,
) -> ec.CostModel:
    """A cost model of a step's time t(B, size), from whole epochs.

    Args:
        seconds: of a step, by batch size and the value of the knob.
        sizes: one knob and its values; without, one model.
        batches: measured.
        noise: standard deviation of log time, from run to run; half of it from epoch to epoch.
        rounds: of each.
        device: that measured.
        seed: of the noise.
    """
    chance = Random(seed)
    knob, values = next(iter((sizes or {"": (1.0,)}).items()))
    measured = []
    for run in range(rounds):
        for batch in batches:
            for value in values:
                whole = seconds(batch, value) * SAMPLES / batch * exp(chance.gauss(0, noise))
                measured.append(
                    ec.Measurement.from_epochs(
                        "truth",
                        batch,
                        [whole * exp(chance.gauss(0, noise / 2)) for _ in range(4)],
                        samples=SAMPLES,
                        device=device,
                        sizes={knob: value} if knob else None,
                        includes_first=False,
                        run=run,
                    )
                )
    return ec.fit(measured)


# -- model sizes -----------------------------------------------------------------------------------


def fourth_power() -> Iterator[Row]:
    def seconds(batch: int, side: float) -> float:
        return 2e-3 + batch * (side / 16) ** 2 * 2e-6 + batch * (side / 16) ** 4 * 40e-9

    model = fitted(seconds, {"side": (128, 224, 384)})
    before = {384: "1,833", 512: "2,040 (P95 half of the truth)", 768: "1,869 (P95 a fifth)"}
    for side, said in before.items():
        step = model.predict(1, 128, side=side).step_seconds
        now = f"{1e3 * step.p50:,.0f} ({1e3 * step.p05:,.0f} to {1e3 * step.p95:,.0f})"
        truth = 1e3 * seconds(128, side)
        yield (
            f"2 ms + B·r² + B·r⁴, r = 128, 224, 384: a step at r = {side}, ms: {truth:,.0f}",
            said,
            now,
        )


def cheaper() -> Iterator[Row]:
    errors, held = [], []
    for seed in range(10):
        chance = Random(seed)
        mixing = chance.uniform(1e-4, 3e-3)

        def seconds(batch: int, patch: float, mixing: float = mixing) -> float:
            tokens = (224 / patch) ** 2
            return 2e-3 + 2e-7 * batch * (tokens + mixing * tokens**2)

        model = fitted(seconds, {"patch": (8, 16, 32)}, noise=0.02, seed=seed)
        for patch in (4, 64):
            for batch in BATCHES:
                step, truth = (
                    model.predict(1, batch, patch=patch).step_seconds,
                    seconds(batch, patch),
                )
                errors.append(abs(step.p50 / truth - 1))
                held.append(step.p05 <= truth <= step.p95)
    yield (
        "a patch of 8, 16, 32, asked at 4 and 64: median error, held",
        "96 %, 25 %",
        f"{100 * median(errors):.0f} %, {_share(held)}",
    )


def zero_and_one() -> Iterator[Row]:
    model = fitted(lambda b, n: 2e-3 + b * (1 + n) * 1e-5, {"added": (0, 1)})
    try:
        step = model.predict(1, 64, added=2).step_seconds
        now = f"{1e3 * step.p50:.2f} ms ({1e3 * step.p05:.2f} to {1e3 * step.p95:.2f})"
    except PredictionError as error:
        now = f"refused: {error}"
    yield "a knob of 0 and 1, asked at 2: 3.92 ms", "refused", now


# -- noise -----------------------------------------------------------------------------------------


def one_round() -> Iterator[Row]:
    for rounds, before in ((1, "11 %"), (2, "94 %")):
        held = []
        for seed in range(60):
            model = fitted(_line, noise=0.08, rounds=rounds, seed=seed)
            for batch in BATCHES:
                later = _line(batch, 1) * exp(Random(f"{seed} {batch}").gauss(0, 0.08))
                step = model.predict(1, batch).step_seconds
                held.append(step.p05 <= later <= step.p95)
        yield (
            f"8 % of noise, rounds: {rounds}; a later run of what was measured is held in",
            before,
            _share(held),
        )
    widths = [
        _width(fitted(_line, noise=0.005, rounds=1, device="EPYC (cpu)", seed=i)) for i in range(20)
    ]
    yield "one round on a CPU, 0.5 % of noise: P95/P5", "2.0", f"{median(widths):.2f}"


def beyond() -> Iterator[Row]:
    for batches, times, before in (
        (BATCHES, 2, "half"),
        (BATCHES, 4, "–"),
        ((16, *BATCHES), 2, "–"),
    ):
        widths = [
            _width(fitted(_line, batches=batches, noise=0.02, seed=i), times * 256)
            for i in range(20)
        ]
        wide = _share([width > 2 for width in widths])
        yield (
            f"{len(batches)} batch sizes, 2 % of noise, {times} × the largest: P95/P5 above 2 in",
            before,
            f"{wide}, median {median(widths):.2f}",
        )
    widths = [_width(fitted(_line, noise=0.005, seed=i), 128) for i in range(20)]
    yield (
        "three batch sizes of one model, 0.5 % of noise, inside the range: P95/P5",
        "1.4",
        f"{median(widths):.2f}",
    )


def _line(batch: int, _: float) -> float:
    return 2e-3 + batch * 2e-5


def _width(model: ec.CostModel, batch: int = 64) -> float:
    step = model.predict(1, batch).step_seconds
    return step.p95 / step.p05


# -- the guard's forecast, failures ----------------------------------------------------------------


def next_epochs() -> Iterator[Row]:
    for noise, before in ((0.005, "–"), (0.02, "–"), (0.1, "25, 42, 48, 64 %"), (0.3, "–")):
        chance, runs = Random(0), 400
        held: dict[int, list[bool]] = {}
        for _ in range(runs):
            level = Level.of_plan(PLANNED, 0.02)
            for epoch in range(2, 11):
                level = level.update(exp(chance.gauss(0, noise)))
                low, high = level.quantile(1, 0.1), level.quantile(1, 0.9)
                held.setdefault(epoch, []).append(low <= exp(chance.gauss(0, noise)) <= high)
        shares = ", ".join(f"{100 * sum(held[epoch]) / runs:.0f}" for epoch in (2, 3, 4, 10))
        yield (
            f"epochs of {100 * noise:g} % noise, 2 % planned: P10–P90 of the 2nd, 3rd, 4th, "
            "10th hold",
            before,
            f"{shares} %",
        )


def failures() -> Iterator[Row]:
    for save, mtbf, epoch, before in (
        (300.0, 900.0, 300.0, "6,218 h"),
        (60.0, 3600.0, 600.0, "13.6 h"),
    ):
        epochs = [epoch] * (40 if epoch == 300 else 60)
        chosen = _expected(save_epochs(epochs, save, mtbf), epochs, save, mtbf)
        yield (
            f"saves of {save:.0f} s, failures every {mtbf / 60:.0f} min, {len(epochs)} epochs of "
            f"{epoch:.0f} s: the mean (before: P50 of the plan)",
            before,
            f"{chosen / 3600:.1f} h",
        )


def _expected(cuts: Sequence[int], epochs: Sequence[float], save: float, mtbf: float) -> float:
    """Seconds to get through all segments, each begun again after a failure."""
    total, began = 0.0, 0
    for cut in cuts:
        total += mtbf * expm1((sum(epochs[began:cut]) + save) / mtbf)
        began = cut
    return total


def _share(held: Sequence[bool]) -> str:
    return f"{100 * sum(held) / len(held):.0f} %"


AUDITS = (
    fourth_power,
    cheaper,
    zero_and_one,
    one_round,
    beyond,
    next_epochs,
    failures,
)


def main() -> None:
    """Ask everything, print it, and write it into the docs."""
    started = time.monotonic()
    lines = ["| asked, and true | before | now |", "| --- | --- | --- |"]
    for audit in AUDITS:
        for row in audit():
            lines.append(f"| {' | '.join(row)} |")
            print(lines[-1], flush=True)
    report.insert(DOCS / "accuracy.md", "\n".join(lines), MARK)
    print(f"{time.monotonic() - started:.0f} s")


if __name__ == "__main__":
    main()
