"""Steps of one GPU predicted from those of another, as ``predict --on`` does.

    public/steps-on-gpus.csv   MPT models on A100s of 40 and 80 GB and on H100s, eight at a time;
                               ResNets on one V100 and one P100
    each pair of cards, each network   ──▶ results/other-device.json, docs/scaling.md

    python benchmarks/other_device.py        from the repository root

Beside it what the ratio of peak rates says, and that of bandwidths. "After a probe" is what is said
of a network's other sizes once the smallest (or the least context) was measured on the other card.

Times of MPT models are those of a token, in llm-foundry's tables; FLOPs are counted as there (see
``public_llm.py``), bytes are taken to be 216 for each layer and feature of a token (bf16: 36
elements read or written in a layer's forward pass, twice that backward) and 1 MB for the logits.
Those of ResNets are Gavel's steps on one GPU; FLOPs and bytes are of dry runs, of ResNet-18 on
32 × 32 and ResNet-50 on 224 × 224 pixels. The K80s there are left out: no torch of today runs them.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import MISSING, dataclass, fields, replace
from itertools import groupby, permutations
from math import exp, expm1, log
from pathlib import Path
from statistics import fmean, median
from typing import Any

from comparison import report

from epochcast.costmodel.other_device import doubt, weight, work_seconds
from epochcast.costmodel.scatter import Scatter
from epochcast.devices.cards import CATALOGUE, Card
from epochcast.records import Footprint, RunConfig

HERE = Path(__file__).resolve().parent
TABLE, RESULT = HERE / "public" / "steps-on-gpus.csv", HERE / "results" / "other-device.json"
DOCS, MARK = HERE.parent / "docs", "benchmarks/other_device.py"
METHODS = ("epochcast", "ratio of peak FLOPs", "ratio of bandwidths")
P100 = replace(  # "NVIDIA Tesla P100 GPU accelerator" datasheet (2016), PCIe
    CATALOGUE["v100-16gb"],
    device=replace(CATALOGUE["v100-16gb"].device, name="p100"),
    bandwidth=732e9,
    rates={"fp32": 9.3e12, "fp16": 18.7e12},
)
CARDS = {**CATALOGUE, "p100": P100}


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """A step, or a token's share of one, that somebody measured."""

    source: str
    network: str
    size: int
    card: Card
    config: RunConfig
    footprint: Footprint
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """A time on another card: logs of said over measured of each method, and σ of the first."""

    group: str
    errors: tuple[float, float, float]
    sd: float


def read() -> list[Step]:
    """The table."""
    with TABLE.open(encoding="utf-8") as file:
        return [_step(row) for row in csv.DictReader(file)]


def _step(row: dict[str, Any]) -> Step:
    flops, moved = int(float(row["flops"])), int(float(row["bytes"]))
    kind = "matmul" if row["source"] == "llm-foundry" else "convolution"
    others = {f.name: 0 for f in fields(Footprint) if f.default is MISSING}
    counts = others | {"flops": flops, "bytes_moved": moved}
    return Step(
        source=row["source"],
        network=row["network"],
        size=int(row["size"]),
        card=CARDS[row["gpu"]],
        config=RunConfig(batch_size=1, precision=row["precision"]),
        footprint=Footprint(**counts, flops_by_class=((kind, flops),)),
        seconds=float(row["seconds"]),
    )


def pairs(found: Iterable[Step]) -> Iterator[list[tuple[Step, Step]]]:
    """Of each network and two cards, the same steps on both, the smallest first."""
    for _, group in groupby(sorted(found, key=_by_network), key=lambda s: (s.source, s.network)):
        steps = list(group)
        for here, there in permutations({s.card.device.name: s.card for s in steps}.values(), 2):
            of = {s.size: s for s in steps if s.card is there}
            both = [(s, of[s.size]) for s in steps if s.card is here and s.size in of]
            if both:
                yield both


def _by_network(step: Step) -> tuple[str, str, int]:
    return step.source, step.network, step.size


def cases_of(both: Sequence[tuple[Step, Step]]) -> tuple[list[Case], list[Case]]:
    """From data sheets alone, and after the first of them was probed on the other card."""
    blind = [_case(here, there) for here, there in both]
    said = weight(1) * blind[0].errors[0]
    probed = [
        replace(
            case,
            group="after a probe",
            errors=(case.errors[0] - said, *case.errors[1:]),
            sd=doubt(_ratio(*pair), 1),
        )
        for case, pair in zip(blind[1:], both[1:], strict=True)
    ]
    return blind, probed


def _ratio(here: Step, there: Step) -> float:
    before, after = (work_seconds(s.footprint, s.config, s.card) for s in (here, there))
    return after / before


def _case(here: Step, there: Step) -> Case:
    rates = [s.card.rates[s.config.precision] for s in (here, there)]
    ratios = (_ratio(here, there), rates[0] / rates[1], here.card.bandwidth / there.card.bandwidth)
    names = " and ".join(sorted(s.card.device.name for s in (here, there)))
    return Case(
        group=f"{names}",
        errors=tuple(log(ratio * here.seconds / there.seconds) for ratio in ratios),
        sd=doubt(ratios[0]),
    )


def rows(cases: Sequence[Case]) -> list[dict[str, Any]]:
    """A row for each group, and all of those that nothing was probed of."""
    groups: dict[str, list[Case]] = {}
    for case in cases:
        groups.setdefault(case.group, []).append(case)
    blind = [case for case in cases if case.group != "after a probe"]
    probed = groups.pop("after a probe", [])
    named = [("all", blind), *sorted(groups.items()), ("all, after a probe", probed)]
    return [_row(name, group) for name, group in named if group]


def _row(name: str, cases: Sequence[Case]) -> dict[str, Any]:
    reach = Scatter(sd=1.0).quantiles(1.0)
    held = [log(reach.p05) <= -case.errors[0] / case.sd <= log(reach.p95) for case in cases]
    errors = zip(METHODS, zip(*(case.errors for case in cases), strict=True), strict=True)
    return {
        "cases": name,
        "count": len(cases),
        **{method: median(expm1(abs(e)) for e in found) for method, found in errors},
        "in_p05_p95": fmean(held),
        "width": exp(median(case.sd for case in cases) * log(reach.p95 / reach.p05)),
    }


def markdown(found: Sequence[dict[str, Any]]) -> str:
    """A table for docs/scaling.md."""
    head = ["", "steps", *METHODS, "in P5–P95", "P95 / P5"]
    lines = [f"| {' | '.join(head)} |", f"|{' --- |' * len(head)}"]
    for row in found:
        cells = [row["cases"], str(row["count"]), *(report.percent(row[m]) for m in METHODS)]
        cells += [report.percent(row["in_p05_p95"], 0), f"{row['width']:.2g}"]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def evaluate() -> list[dict[str, Any]]:
    """The rows of the table."""
    found = [cases_of(both) for both in pairs(read())]
    return rows([case for blind, probed in found for case in (*blind, *probed)])


if __name__ == "__main__":
    result = evaluate()
    RESULT.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    report.insert(DOCS / "scaling.md", f"\n{markdown(result)}\n", MARK)
