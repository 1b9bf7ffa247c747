"""Predictions beside somebody else's measurements of a real GPU.

    public/a100-cifar-cnn.csv   159 runs of 143 configurations (depth × width × batch size) of a CNN
                                on CIFAR-10, three epochs each, on an A100
    count      dry runs of public_cnn.py, the same network   ──▶ results/a100-counts.json
    evaluate   import, fit on few, predict the others        ──▶ results/a100.json, docs/accuracy.md
    draw       the figure, by what was written               ──▶ docs/a100.png

    python benchmarks/public_a100.py [count|evaluate|draw]   from the repository root

The times are those of ``runs.csv`` of github.com/amacharla15/Hardware-Aware-Training-Time-\
Throughput-Prediction, commit ae4832f (Keras, TensorFlow 2.20, an "NVIDIA A100 80GB PCIe"), rounded
to six digits; ``base_filters`` is called width. A device of its own, quiet: the same configuration
run again differs by 0.5 % in the median. Evaluating needs no torch.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import partial
from itertools import chain
from pathlib import Path
from statistics import fmean, median
from typing import Any

import msgspec
import steps
from comparison import alternatives as other
from comparison import report
from comparison.alternatives import Known
from comparison.cases import EPOCHCAST, NOISE, STEP, WITHOUT, Answer, Case, document
from comparison.scoreboard import Score, score_of, scores_of
from comparison.splits import BATCH_SIZES, BETWEEN, BEYOND, LARGEST, Split

import epochcast as ec
from epochcast.costmodel import features, summary
from epochcast.importers import runs
from epochcast.importers.columns import ImportOptions
from epochcast.profiler.adaptive import spread
from epochcast.records import Footprint, Measurement, Quantiles, RunConfig, Sizes
from epochcast.records.documents import to_builtins

HERE = Path(__file__).resolve().parent
RUNS = HERE / "public" / "a100-cifar-cnn.csv"
COUNTS, RESULT = HERE / "results" / "a100-counts.json", HERE / "results" / "a100.json"
OPTIONS = ImportOptions(workload="cifar-cnn", device="NVIDIA A100 80GB PCIe", samples=50_000)
DOCS = HERE.parent / "docs"
MARK = "benchmarks/public_a100.py"

EVERYWHERE = (32, 96, 192, 384, 768, 1536)  # batch sizes of all 16 model sizes
FITTED = (32, 192, 1536)
FEW, SUBSETS = 8, 40  # configurations to fit on, and how often they are drawn at random
HELD = 0.8  # share of a draw's later values in P5–P95, below which it counts as one that fails
SPREAD, RANDOM = f"from {FEW} that spread", f"from {FEW} at random"
SPLITS = (BATCH_SIZES, LARGEST, BETWEEN, BEYOND, SPREAD, RANDOM)
FIRST = "first epoch (carbontracker, runs it)"

Footprints = Mapping[RunConfig, Footprint]
Trials = Mapping[RunConfig, Sequence[Measurement]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Counted:
    """The dry run of a configuration."""

    config: RunConfig
    footprint: Footprint


def count() -> None:
    """Dry runs of every configuration."""
    from public_cnn import workload

    from epochcast.profiler.footprint.dry_run import simulate

    batch_sizes: dict[Sizes, list[int]] = {}
    for config in dict.fromkeys(m.config for m in measurements({})):
        batch_sizes.setdefault(config.sizes, []).append(config.batch_size)
    lines = []
    for sizes, batches in sorted(batch_sizes.items()):
        for found in simulate(partial(workload, **dict(sizes)), sorted(batches)):
            config = RunConfig(batch_size=found.config.batch_size, sizes=sizes)
            counted = Counted(config=config, footprint=replace(found.footprint, timeline=None))
            lines.append(msgspec.json.encode(counted).decode())
    COUNTS.write_text("[\n" + ",\n".join(lines) + "\n]\n")


def evaluate() -> None:
    """Compare, print, write."""
    counted = counts()
    known = measurements(counted)
    by_division = all_cases(known, counted)
    cases = list(chain.from_iterable(by_division))
    by_split = [scores_of([c for c in cases if c.split == split]) for split in SPLITS]
    scores = list(chain.from_iterable(by_split))
    draws = [draw_of(some) for some in by_division if some[0].split == RANDOM]
    head = {
        "device": known[0].device.label,
        "command": f"python {MARK} evaluate",
        "source": __doc__.rpartition("The times are ")[2].split(",")[0].replace("\n", " "),
        "tables": to_builtins(scores),
        "draws": to_builtins(draws),
    }
    RESULT.write_text(document(head, [c for c in cases if c.split != RANDOM]))
    text = _text(known, by_split, draws)
    print(text)
    report.insert(DOCS / "accuracy.md", text, MARK)


def draw() -> None:
    """The figure of what was evaluated."""
    panels = [(STEP, split) for split in SPLITS]
    scores = report.stored_scores(RESULT)
    (DOCS / "a100.png").write_bytes(report.figure(scores, panels))


def counts() -> Footprints:
    """The footprint of every configuration, as counted once."""
    return {
        c.config: c.footprint for c in msgspec.json.decode(COUNTS.read_bytes(), type=list[Counted])
    }


def measurements(counted: Footprints) -> tuple[Measurement, ...]:
    """The runs, imported as ``epochcast probes import`` does it."""
    return runs.read(RUNS.read_text(), OPTIONS, count=counted.get).measurements


# -- what is fitted, what is held out -----------------------------------------------------------


def splits(configs: Iterable[RunConfig]) -> list[Split]:
    """Every division of the grid; see ``comparison/splits.py`` for the first four kinds."""
    known = tuple(configs)
    found = [
        _split(
            BATCH_SIZES,
            [c for c in known if c.batch_size in FITTED],
            [c for c in known if FITTED[0] < c.batch_size < FITTED[-1] and c.batch_size != 192],
        ),
        _split(
            LARGEST,
            [c for c in known if c.batch_size in EVERYWHERE[:4]],
            [c for c in known if c.batch_size > EVERYWHERE[3] and c.batch_size in EVERYWHERE],
        ),
    ]
    for knob in ("depth", "width"):
        values = sorted({dict(c.sizes)[knob] for c in known})
        for value in values:
            name = BEYOND if value in (values[0], values[-1]) else BETWEEN
            rest = [c for c in known if dict(c.sizes)[knob] != value and c.batch_size in FITTED]
            found.append(_split(name, rest, [c for c in known if dict(c.sizes)[knob] == value]))
    return found


def few(configs: Iterable[RunConfig], counted: Footprints) -> list[Split]:
    """All from eight: those that ``epochcast probe`` would choose first, and any."""
    known = tuple(configs)
    grid = [c for c in known if c.batch_size in EVERYWHERE]
    spreading = spread([features.variables(c, counted[c]) for c in grid], FEW)
    subsets = [random.Random(seed).sample(grid, FEW) for seed in range(SUBSETS)]
    chosen = [(SPREAD, [grid[i] for i in spreading]), *((RANDOM, some) for some in subsets)]
    return [_split(name, fit, [c for c in known if c not in fit]) for name, fit in chosen]


def _split(name: str, fitted: Sequence[RunConfig], held_out: Sequence[RunConfig]) -> Split:
    return Split(name=name, fitted=tuple(fitted), held_out=tuple(held_out))


# -- cases --------------------------------------------------------------------------------------


def all_cases(known: Sequence[Measurement], counted: Footprints) -> list[list[Case]]:
    """Every held-out configuration of every split, split by split, draw by draw."""
    trials = summary.group_by_config(known)
    divisions = (*splits(trials), *few(trials, counted))
    return [cases_of(split, trials, counted) for split in divisions]


def cases_of(split: Split, trials: Trials, counted: Footprints) -> list[Case]:
    """Every held-out configuration of one split.

    Args:
        split: what is fitted on, and what is held out.
        trials: the measurements of each configuration.
        counted: their dry runs.
    """
    model = ec.fit([m for c in split.fitted for m in trials[c]])
    fitted = [Known(c, truth(trials[c])) for c in split.fitted]
    return [_case(split, model, fitted, trials[c], counted) for c in split.held_out]


def _case(
    split: Split,
    model: ec.CostModel,
    fitted: Sequence[Known],
    runs: Sequence[Measurement],
    counted: Footprints,
) -> Case:
    config = runs[0].config
    asked: dict[str, Any] = {"epochs": 1, "batch_size": config.batch_size, **dict(config.sizes)}
    answers: dict[str, Answer] = {
        EPOCHCAST: model.predict(**asked, footprint=counted[config]).step_seconds,
        WITHOUT: model.predict(**asked).step_seconds,
        "constant throughput": other.constant_throughput(fitted, config),
        "line per model (DeepView)": other.line(fitted, config),
        FIRST: other.first_epoch(runs),
        "NNLS on the counts": other.counts_nnls(fitted, config, counted),
        "log-linear regression": other.log_linear(fitted, config),
        "Gaussian process": other.gaussian_process(fitted, config),
    }
    if len(runs) > 1:  # the first one as if it were a prediction of the others
        answers[NOISE] = truth(runs) * summary.step_seconds(runs[0]) / truth(runs[1:])
    return Case(
        workload=model.workload,
        split=split.name,
        quantity=STEP,
        config=config,
        measured=truth(runs),
        later=tuple(map(summary.step_seconds, runs)),
        answers=answers,
        probing_seconds=model.probing_seconds,
    )


def truth(runs: Sequence[Measurement]) -> float:
    """Seconds of a step: the median over all steady epochs, of which a few were disturbed."""
    return median(second for m in runs for second in m.step_seconds)


# -- draws --------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Drawn:
    """One draw of eight, and how epochcast predicted all others from it.

    Attributes:
        mean, median, p90: of the relative errors.
        held: share of single runs in P5–P95.
        width: median of P95 / P5.
    """

    mean: float
    median: float
    p90: float
    held: float
    width: float


def draw_of(cases: Sequence[Case]) -> Drawn:
    """All cases of one draw."""
    found = score_of(cases, EPOCHCAST)
    told = [case.answers[EPOCHCAST] for case in cases]
    widths = [q.p95 / q.p05 for q in told if isinstance(q, Quantiles)]
    assert found is not None
    return Drawn(
        mean=found.mean,
        median=found.median,
        p90=found.p90,
        held=found.p05_p95 or 0.0,
        width=median(widths),
    )


def draws_text(draws: Sequence[Drawn]) -> str:
    """What draws have in common, the one held worst, and the one with the largest errors."""
    failing = sum(draw.held < HELD for draw in draws)
    typical = Drawn(**{f.name: fmean(getattr(d, f.name) for d in draws) for f in fields(Drawn)})
    named = (
        (f"mean of {len(draws)} draws", typical),
        ("draw held worst", min(draws, key=lambda draw: draw.held)),
        ("draw with the largest errors", max(draws, key=lambda draw: draw.mean)),
    )
    lines = [["from 8 at random, draw by draw", "mean", "median", "P90", "in P5–P95", "P95/P5"]]
    lines.append(["---", *["--:"] * 5])
    for name, draw in named:
        errors = (report.percent(v) for v in (draw.mean, draw.median, draw.p90))
        lines.append([name, *errors, report.percent(draw.held, 0), f"{draw.width:.2f}"])
    table = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    return f"{table}\n\nHeld in less than {report.percent(HELD)}: {failing} of {len(draws)} draws."


# -- text ---------------------------------------------------------------------------------------


def _text(
    known: Sequence[Measurement], by_split: Sequence[Sequence[Score]], draws: Sequence[Drawn]
) -> str:
    parts = [
        f"{len(known)} runs of {len({m.config for m in known})} configurations. "
        f"`python {MARK} evaluate` imports the measurements as `epochcast probes import` does."
    ]
    parts += [report.markdown(scores) for scores in by_split]
    parts.append(draws_text(draws))
    ahead = report.ahead_text(list(chain.from_iterable(by_split)))
    return "\n\n".join([*parts, "Where epochcast is not ahead:", ahead])


if __name__ == "__main__":
    steps.run(__doc__, count, evaluate, draw)
