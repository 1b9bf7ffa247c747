"""What an H200 and an H100 recorded, beside dry runs of the same settings made without them.

results/h200   peaks and histories of benchmarks/gpu_parts/snapshots.py (torch 2.11, cuDNN 9.19)
results/h…     what `epochcast probe` measured on both: a step, an evaluation
count          dry runs of all of it        ──▶ results/memory-hopper.json
show           the table of it              ──▶ docs/memory.md

python benchmarks/memory_hopper.py [count|show]          from the repository root
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

import steps  # noqa: E402
from comparison import report  # noqa: E402
from gpu_parts.probes import measurements_in  # noqa: E402
from gpu_parts.results import Folder, read_folder  # noqa: E402
from gpu_parts.snapshots import LIMITED_BYTES, SCENARIOS, Recorded  # noqa: E402
from gpu_parts.training import Setting  # noqa: E402

import epochcast as ec  # noqa: E402
from epochcast.api.following import Followed, follow, kept_workers  # noqa: E402
from epochcast.api.memory import question_of  # noqa: E402
from epochcast.devices.cards import find_device  # noqa: E402
from epochcast.devices.replay import runs_in  # noqa: E402
from epochcast.profiler.builtin import cifar10_resnet  # noqa: E402
from epochcast.profiler.process import Workers  # noqa: E402
from epochcast.profiler.request import SweepRequest  # noqa: E402
from epochcast.records import DeviceSequence  # noqa: E402

RESULT = HERE / "results" / "memory-hopper.json"
MARK = "benchmarks/memory_hopper.py"
CARDS = ("h200", "h100")
QUANTITIES = ("allocated", "reserved", "outside", "device")
EVALUATION = "evaluation"
LIMITED = "out-of-memory"
TRIED = "cnn-benchmark"
MIB = 2**20


def tuned_resnet(depth: int = 20, width: int = 16) -> ec.Workload:
    """The residual net of a user who lets cuDNN try its algorithms."""
    torch.backends.cudnn.benchmark = True
    return cifar10_resnet(depth, width)


def count() -> None:
    """Dry runs on this machine, for the cards that recorded."""
    recorded = {card: read_folder(HERE / "results" / card) for card in CARDS}
    h200 = recorded["h200"]
    stages = {p["scenario"]: p["stages"] for p in h200.of("snapshots", "peaks")}
    with kept_workers() as workers, kept_workers() as tuned:
        runs = [
            {
                "run": name,
                "measured": peaks(stages[name]),
                "said": said(name, tuned if name == TRIED else workers),
            }
            for name in SCENARIOS
            if name != LIMITED
        ]
        tried = next(run for run in runs if run["run"] == TRIED)
        afterwards = peaks(stages[TRIED][2:])
        runs.append({**tried, "run": f"{TRIED}, afterwards", "measured": afterwards})
        probes = [
            {
                "run": name_of(card, m),
                "measured": probed(m),
                "said": said_of_probe(card, m, workers),
            }
            for card in CARDS
            for m in measurements(recorded[card])
        ]
        limited = attempts(h200, workers)
    document = {"torch": torch.__version__, "runs": runs, "probes": probes, "limited": limited}
    RESULT.write_text(json.dumps(document, indent=1) + "\n")


def measurements(recorded: Folder) -> list[ec.Measurement]:
    """Of a card, each configuration once."""
    found = [
        m for r in recorded.of("probes", "measurements") for m in measurements_in(r["measurements"])
    ]
    return [m for m in found if m.status == "ok" and not m.round]


def name_of(card: str, m: ec.Measurement) -> str:
    """``h100 char-gpt, 32 × 768, bf16``."""
    c = m.config
    return f"{card} {m.workload}, {c.batch_size} × {dict(c.sizes)['width']}, {c.precision}"


def probed(m: ec.Measurement) -> dict[str, int]:
    """What was measured of a step, and of the evaluation what tensors had."""
    step, evaluation = m.memory, m.eval_memory
    assert step is not None, "it was measured"
    assert evaluation is not None, "it evaluates"
    outside = step.device_bytes - step.reserved_bytes
    found = (step.allocated_bytes, step.reserved_bytes, outside, step.device_bytes)
    return {**dict(zip(QUANTITIES, found, strict=True)), EVALUATION: evaluation.allocated_bytes}


def peaks(stages: Sequence[Mapping[str, Any]]) -> dict[str, int]:
    """Of the card, in bytes; what was outside the allocator at a stage's end."""
    outside = max(s["driver_bytes"] - s["reserved_bytes.all.current"] for s in stages)
    allocated, reserved = (
        max(s[f"{kind}_bytes.all.peak"] for s in stages) for kind in ("allocated", "reserved")
    )
    return dict(zip(QUANTITIES, (allocated, reserved, outside, reserved + outside), strict=True))


def said(name: str, workers: Workers) -> dict[str, Any]:
    """Of a recorded scenario: quantiles of the same, remarks and seconds."""
    settings = "expandable_segments:True" if name == "gpt-expandable" else ""
    return answer("h200", name, followed(SCENARIOS[name], workers), settings)


def said_of_probe(card: str, m: ec.Measurement, workers: Workers) -> dict[str, Any]:
    """Of a measurement, with bounds of its evaluation."""
    c = m.config
    setting = Setting(
        workload=m.workload, sizes=dict(c.sizes), batch_size=c.batch_size, precision=c.precision
    )
    found = followed(Recorded(setting=setting), workers, card)
    return {**answer(card, name_of(card, m), found), EVALUATION: evaluated(found.sequence)}


def answer(card: str, name: str, found: Followed, settings: str = "") -> dict[str, Any]:
    """What a dry run says of a card."""
    need = question_of(card, 0.95, 0, settings).need(found)
    quantiles = {q: asdict(getattr(need, f"{q}_bytes")) for q in QUANTITIES}
    print(f"{name}: {need.seconds:.1f} s", file=sys.stderr, flush=True)
    return {**quantiles, "remarks": need.remarks, "seconds": need.seconds, "source": need.source}


def evaluated(sequence: DeviceSequence) -> tuple[int, int]:
    """Bytes that tensors and workspaces have in the evaluation, at least and at most."""
    start = next(m.position for m in sequence.marks if m.moment == "evaluate")
    live = sequence.live_bytes(512)
    unknown = [u for u in sequence.unknown if u.position >= start and not u.block]
    alone = max(live[start:])
    low, high = (
        max((live[u.position - 1] + getattr(u, bound) for u in unknown), default=0)
        for bound in ("low_bytes", "high_bytes")
    )
    return max(alone, low), max(alone, high)


def followed(recorded: Recorded, workers: Workers, card: str = "h200") -> Followed:
    """A dry run of what was recorded."""
    setting = recorded.setting
    request = SweepRequest(
        target=f"{HERE / 'memory_hopper.py'}:tuned_resnet" if recorded.tuned else setting.workload,
        batch_sizes=(setting.batch_size,),
        sizes={name: (value,) for name, value in setting.sizes.items()},
        overrides={} if setting.precision == "fp32" else {"precision": setting.precision},
        device="cpu",
    )
    return follow(request, find_device(card), workers)[0]


def attempts(recorded: Folder, workers: Workers) -> list[dict[str, Any]]:
    """Batch sizes until limited memory ran out, and what replays in so much say of each."""
    (found,) = recorded.of("snapshots", "attempts")
    batch_sizes = dict.fromkeys(a["batch_size"] for a in found["attempts"])
    ran = {a["batch_size"]: not a["message"] for a in found["attempts"]}
    base = SCENARIOS[LIMITED]
    rows = []
    for batch_size in batch_sizes:
        setting = replace(base.setting, batch_size=batch_size)
        sequence = followed(replace(base, setting=setting), workers).sequence
        retries = runs_in(sequence, LIMITED_BYTES)
        rows.append({"batch_size": batch_size, "ran": ran[batch_size], "retries": retries})
    return rows


def show() -> None:
    """Print, write."""
    written = table(json.loads(RESULT.read_text("utf-8")))
    print(written)
    report.insert(HERE.parent / "docs" / "memory.md", written, MARK)


def table(document: Mapping[str, Any]) -> str:
    """What was measured, and P50 and P5–P95 of what was said, in MiB; bad rows are marked."""
    runs, probes = document["runs"], document["probes"]
    lines = ["| run | " + " | ".join(QUANTITIES) + " |", "| --- |" + " ---: |" * len(QUANTITIES)]
    for run in (*runs, *probes):
        cells = (cell(run["measured"][q], run["said"][q]) for q in QUANTITIES)
        lines.append(f"| {run['run']} | {' | '.join(cells)} |")
    lines += ["", "| batch size, in 3 GiB | on the card | replayed |", "| ---: | --- | --- |"]
    for row in document["limited"]:
        ran = "ran" if row["ran"] else "out of memory"
        replayed = "out of memory" if row["retries"] is None else "runs"
        lines.append(f"| {row['batch_size']} | {ran} | {replayed} |")
    return "\n".join(lines)


def cell(measured: int, q: Mapping[str, float]) -> str:
    """``1,632: 1,634 (1,619–1,649)``, with a mark where it is outside."""
    low, middle, high = (f"{q[level] / MIB:,.0f}" for level in ("p05", "p50", "p95"))
    mark = "" if q["p05"] <= measured <= q["p95"] else " **outside**"
    return f"{measured / MIB:,.0f}: {middle} ({low}–{high}){mark}"


if __name__ == "__main__":
    steps.run(__doc__, count, show)
