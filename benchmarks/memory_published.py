"""Memory that others published of their trainings on a V100 and an A100, beside dry runs of them.

RUNS     what they measured, with its source       published_models.py   what they trained
count    dry runs of all                           ──▶ results/memory-published.json
show     the table of it                           ──▶ docs/memory.md

python benchmarks/memory_published.py [count|show]          from the repository root
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any

import torch

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

import steps  # noqa: E402
from comparison import report  # noqa: E402

from epochcast.api.following import follow, kept_workers  # noqa: E402
from epochcast.api.memory import question_of  # noqa: E402
from epochcast.profiler.process import Workers  # noqa: E402
from epochcast.profiler.request import SweepRequest  # noqa: E402
from epochcast.records import SizeValue  # noqa: E402

RESULT = HERE / "results" / "memory-published.json"
MARK = "benchmarks/memory_published.py"
WHAT = {"allocated": ", allocated", "reserved": "", "device": ", by nvidia-smi"}
MODELS = {"course": "course_models.py"}
GIB, GB, MIB = 2**30, 10**9, 2**20
BOOK = "rasbt/LLMs-from-scratch 0636158, ch05/10_llm-training-speed/README.md"
VIT = "rasbt/pytorch-memory-optim 2d1ae1e, logs.md"
A800 = "EnzoDing-rgb/cs336-assignment2-systems 9cb4efb, reports/memory-profiling.md"
PRO = "duoan/cs336-assignment2-systems e26922c, writeup.tex and benchmark_results"
NAMELESS = "VictorHuu/assignment2-systems 65aeb35, memory_profiles_2p7b/peak_memory_summary.csv"
GUIDE = "huggingface/transformers 0016acf, docs/source/en/perf_train_gpu_one.mdx"


@dataclass(frozen=True, kw_only=True)
class Run:
    """A measurement.

    Attributes:
        model: of published_models.py or course_models.py, with ``sizes`` as its arguments.
        quantity: ``"allocated"`` or ``"reserved"`` of the allocator, or ``"device"``, what
            nvidia-smi showed.
        eager: whether all kernels were loaded at once, as before CUDA 11.7.
    """

    name: str
    model: str
    sizes: Mapping[str, SizeValue]
    batch_size: int
    card: str
    quantity: str
    measured: int
    source: str
    eager: bool = False


def _gpt(name: str, gib: float, **sizes: SizeValue) -> Run:
    return Run(
        name=f"GPT-2 124M, {name}",
        model="gpt",
        sizes=sizes,
        batch_size=8,
        card="a100-40gb",
        quantity="reserved",
        measured=round(gib * GIB),
        source=BOOK,
    )


def _vit(name: str, batch_size: int, gb: float, **sizes: SizeValue) -> Run:
    return Run(
        name=f"ViT-L/16, {name}",
        model="vit",
        sizes=sizes,
        batch_size=batch_size,
        card="a100-40gb",
        quantity="reserved",
        measured=round(gb * GB),
        source=VIT,
    )


def _bert(name: str, batch_size: int, mib: int, **sizes: SizeValue) -> Run:
    return Run(
        name=f"BERT-large, {name}",
        model="bert",
        sizes=sizes,
        batch_size=batch_size,
        card="v100-16gb",
        quantity="device",
        measured=mib * MIB,
        source=GUIDE,
        eager=True,
    )


def _course(name: str, card: str, gib: float, source: str, **sizes: SizeValue) -> Run:
    batch_size = sizes.pop("samples", 4)
    return Run(
        name=f"course's GPT, {name}",
        model="course",
        sizes=sizes,
        batch_size=int(batch_size),
        card=card,
        quantity="allocated",
        measured=round(gib * GIB),
        source=source,
    )


def _nameless(name: str, mib: float, **sizes: SizeValue) -> Run:
    of_2025: dict[str, SizeValue] = {"size": "xl", "samples": 8, "vocabulary": 50_257, "year": 2025}
    return _course(name, "80GiB", mib / 1024, NAMELESS, **of_2025, **sizes)


XL = {"size": "xl"}
HALVED = {"bfloat16": True}
MADE = {"mask": "made"}
HALF = {**MADE, "half": True}
BFLOAT16 = {"precision": "bfloat16"}
RUNS = (
    _gpt("float32, as in the book", 26.2617),
    _gpt("masks when needed", 26.2422, **MADE),
    _gpt("bfloat16", 13.7871, **HALF),
    _gpt("torch's norms", 11.5645, **HALF, native=True),
    _gpt("torch's attention", 5.9004, **HALF, native=True, flash=True),
    _vit("float32, 64 images", 64, 26.79),
    _vit("autocast to float16, 64 images", 64, 18.21, precision="mixed"),
    _vit("bfloat16, 64 images", 64, 13.82, **BFLOAT16),
    _vit("bfloat16, 16 images", 16, 5.69, **BFLOAT16),
    _vit("bfloat16, 4 images × 4", 4, 3.91, **BFLOAT16, accumulated=True),
    _vit("bfloat16, 4 images × 4, SGD", 4, 2.02, **BFLOAT16, accumulated=True, optimizer="sgd"),
    _bert("4 samples", 4, 14_949),
    _bert("1 sample × 4", 1, 8_681, micro_batches=4),
    _bert("1 sample × 4, checkpoints", 1, 6_775, micro_batches=4, checkpointing=True),
    _course("3.4 B, 128 tokens", "a100-80gb", 51.416, A800, **XL, tokens=128),
    _course("3.4 B, 128 tokens, autocast", "a100-80gb", 51.406, A800, **XL, tokens=128, **HALVED),
    _course("3.4 B, 512 tokens", "a100-80gb", 65.538, A800, **XL),
    _course("3.4 B, 512 tokens, autocast", "a100-80gb", 62.674, A800, **XL, **HALVED),
    _course("129 M", "rtx-pro-6000", 5.04, PRO),
    _course("423 M", "rtx-pro-6000", 13.72, PRO, size="medium"),
    _course("969 M", "rtx-pro-6000", 27.49, PRO, size="large"),
    _course("3.4 B, 1 × 2048", "rtx-pro-6000", 91.16, PRO, **XL, samples=1, tokens=2048),
    _course(
        "3.4 B, 1 × 2048, autocast",
        "rtx-pro-6000",
        82.49,
        PRO,
        **XL,
        **HALVED,
        samples=1,
        tokens=2048,
    ),
    _nameless("3.4 B, 8 × 128", 57_926.444, tokens=128),
    _nameless("3.4 B, 8 × 256", 66_449.050, tokens=256),
    _nameless("3.4 B, 8 × 128, autocast", 57_827.286, tokens=128, **HALVED),
    _nameless("3.4 B, 8 × 256, autocast", 64_068.917, tokens=256, **HALVED),
)


def count() -> None:
    """Dry runs on this machine."""
    with kept_workers() as workers:
        found = [{**asdict(run), "said": said(run, workers)} for run in RUNS]
    document = {"torch": torch.__version__, "runs": found}
    RESULT.write_text(json.dumps(document, indent=1) + "\n")


def said(run: Run, workers: Workers) -> dict[str, Any]:
    """Quantiles of what was measured, remarks and seconds."""
    question = replace(question_of(run.card, 0.95, 0, ""), eager=run.eager)
    request = SweepRequest(
        target=f"{HERE / MODELS.get(run.model, 'published_models.py')}:{run.model}",
        batch_sizes=(run.batch_size,),
        sizes={name: (value,) for name, value in run.sizes.items()},
        device="cpu",
    )
    need = question.need(follow(request, question.device, workers)[0])
    quantiles = asdict(getattr(need, f"{run.quantity}_bytes"))
    print(f"{run.name}: {need.seconds:.1f} s", file=sys.stderr, flush=True)
    return {**quantiles, "remarks": need.remarks, "seconds": need.seconds, "source": need.source}


def show() -> None:
    """Print, write."""
    written = table(json.loads(RESULT.read_text("utf-8")))
    print(written)
    report.insert(HERE.parent / "docs" / "memory.md", written, MARK)


def table(document: Mapping[str, Any]) -> str:
    """What was measured, and how far P50 and P95 of what was said are from it."""
    lines = ["| run | card | MiB | P50 | P95 |", "| --- | --- | ---: | ---: | ---: |"]
    for run in document["runs"]:
        middle, high = (100 * (run["said"][q] / run["measured"] - 1) for q in ("p50", "p95"))
        what = WHAT[run["quantity"]]
        below = " **below**" if high < 0 else ""
        cells = f"{run['measured'] / MIB:,.0f}{what} | {middle:+.1f} % | {high:+.1f} %{below}"
        lines.append(f"| {run['name']} | {run['card']} | {cells} |")
    errors = [abs(run["said"]["p50"] / run["measured"] - 1) for run in document["runs"]]
    under = sum(run["said"]["p95"] < run["measured"] for run in document["runs"])
    lines += [
        "",
        f"Median error {100 * median(errors):.1f} %; above P95: {under} of {len(errors)}.",
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    steps.run(__doc__, count, show)
