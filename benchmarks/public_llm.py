"""Language models that others trained on eight A100s, a model held out at a time.

    public/llm-foundry-mpt.csv   46 measurements of seven MPT models, 512 to 32,768 tokens of
                                 context, with and without recomputed activations
    evaluate   import some columns, fit on six models,
               predict the seventh                       ──▶ results/mpt.json, docs/accuracy.md

    python benchmarks/public_llm.py        from the repository root

The regressions are given the same numbers, but not whether activations were recomputed, which is a
word. The times are those of ``scripts/train/benchmarking/README.md`` of
github.com/mosaicml/llm-foundry, commit 8c8dd48f72 (bf16, fully sharded): tokens of a micro-batch
over throughput. FLOPs are 6·parameters + 12·layers·width·context a token, as counted there, a third
more where activations are recomputed.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from math import exp, log
from pathlib import Path

import numpy as np
import steps
from comparison import alternatives as other
from comparison import report
from comparison.alternatives import Known
from comparison.cases import EPOCHCAST, STEP, Case, document
from comparison.scoreboard import Score, scores_of

import epochcast as ec
from epochcast.costmodel import features, summary
from epochcast.importers import runs
from epochcast.importers.columns import ImportOptions
from epochcast.records import Measurement
from epochcast.records.documents import to_builtins

HERE = Path(__file__).resolve().parent
TABLE, RESULT = HERE / "public" / "llm-foundry-mpt.csv", HERE / "results" / "mpt.json"
DOCS, MARK = HERE.parent / "docs", "benchmarks/public_llm.py"
OPTIONS = ImportOptions(workload="mpt", device="NVIDIA A100 40GB (cuda)", samples=1_000_000)
LINEAR, LINEAR_FLOPS = "log-linear regression", "log-linear regression on the FLOPs, too"


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """Which columns of the table everybody is given."""

    name: str
    without: tuple[str, ...]


SCENARIOS = (
    Scenario(name="width, context", without=("layers", "parameters", "flops")),
    Scenario(name="width, context, layers", without=("parameters", "flops")),
    Scenario(name="width, context and FLOPs", without=("layers",)),
    Scenario(name="width, context, layers and FLOPs", without=()),
)


def evaluate() -> None:
    """Compare, print, write."""
    cases = list(chain.from_iterable(map(cases_of, SCENARIOS)))
    tables = [scores_of([c for c in cases if c.split == s.name]) for s in SCENARIOS]
    scores = list(chain.from_iterable(tables))
    head = {
        "device": OPTIONS.device,
        "command": f"python {MARK}",
        "source": "scripts/train/benchmarking/README.md of github.com/mosaicml/llm-foundry",
        "tables": to_builtins(scores),
    }
    RESULT.write_text(document(head, cases))
    text = _text(tables)
    print(text)
    report.insert(DOCS / "accuracy.md", text, MARK)


def cases_of(scenario: Scenario) -> list[Case]:
    """Every measurement, predicted from those of the other models."""
    known = measurements(scenario)
    widths = sorted({_width(m) for m in known})
    return [case for width in widths for case in held_out(scenario, known, width)]


def measurements(scenario: Scenario) -> tuple[Measurement, ...]:
    """The table without some of its columns, imported as ``epochcast probes import`` does it."""
    rows = list(csv.DictReader(io.StringIO(TABLE.read_text())))
    names = [name for name in rows[0] if name not in ("model", *scenario.without)]
    text = io.StringIO()
    writer = csv.DictWriter(text, names, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return runs.read(text.getvalue(), OPTIONS).measurements


def _width(m: Measurement) -> int:
    return int(dict(m.config.sizes)["width"])


def held_out(scenario: Scenario, known: Sequence[Measurement], width: int) -> list[Case]:
    """Every measurement of one model, predicted from all others.

    Args:
        scenario: the columns that are known.
        known: all measurements.
        width: of the model held out.
    """
    fitted = [m for m in known if _width(m) != width]
    model = ec.fit(fitted)
    return [_case(scenario, model, fitted, m) for m in known if _width(m) == width]


def _case(
    scenario: Scenario, model: ec.CostModel, fitted: Sequence[Measurement], m: Measurement
) -> Case:
    config, second = m.config, summary.step_seconds(m)
    asked = {"epochs": 1, "batch_size": config.batch_size, **dict(config.sizes)}
    pairs = [Known(f.config, summary.step_seconds(f)) for f in fitted]
    answers = {
        EPOCHCAST: model.predict(**asked, footprint=m.footprint).step_seconds,
        LINEAR: other.log_linear(pairs, config),
        "constant throughput": other.constant_throughput(pairs, config),
        "Gaussian process": other.gaussian_process(pairs, config),
    }
    if m.footprint is not None:
        answers[LINEAR_FLOPS] = log_linear_flops(fitted, m)
    return Case(
        workload="mpt",
        split=scenario.name,
        quantity=STEP,
        config=config,
        measured=second,
        later=(second,),
        answers=answers,
        probing_seconds=0.0,
    )


def log_linear_flops(fitted: Sequence[Measurement], asked: Measurement) -> float:
    """Least squares, log time on the logs of FLOPs, batch size and knobs."""
    x = np.array([_logs(m) for m in fitted])
    y = np.log([summary.step_seconds(m) for m in fitted])
    weights, *_ = np.linalg.lstsq(x, y, rcond=None)
    return exp(float(np.array(_logs(asked)) @ weights))


def _logs(m: Measurement) -> list[float]:
    values = features.variables(m.config, m.footprint)
    knobs = features.numeric_knobs(m.config.sizes)
    return [1.0, *(log(values[name]) for name in ("flops", "batch_size", *knobs))]


def _text(tables: Sequence[Sequence[Score]]) -> str:
    head = "46 measurements of seven models; each model is predicted from the other six."
    ahead = report.ahead_text(list(chain.from_iterable(tables)))
    parts = [f"{head} `python {MARK}`", *map(report.markdown, tables)]
    return "\n\n".join([*parts, "Where epochcast is not ahead:", ahead])


if __name__ == "__main__":
    steps.run(__doc__, evaluate)
