"""Peaks of real training steps on a GPU, beside what is said of them without one.

    public/t4-peaks.csv   eight steps on a Tesla T4 (torch 2.11): allocated and reserved bytes,
                          measured by somebody else
    count    dry runs of memory_models.py on that card, and other tools' answers
             ──▶ results/memory-t4.json
    show     the table of it

    python benchmarks/memory.py [count|show]          from the repository root

Other tools are asked what the device must have, as far as they say: torch's MemTracker (the peak of
live tensors of steps on fake tensors, CPU's operators), ``accelerate estimate-memory``, DeepSpeed's
estimator (ZeRO-2's, on one device) and torchinfo.
"""

from __future__ import annotations

import csv
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.distributed._tools.mem_tracker import MemTracker

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

import memory_models  # noqa: E402
from comparison.memory_tools import DEEPSPEED_BYTES_PER_PARAMETER, accelerate_bytes  # noqa: E402

from epochcast.api.following import MemoryQuestion  # noqa: E402
from epochcast.api.memory import device_needs  # noqa: E402
from epochcast.devices.cards import find_device  # noqa: E402
from epochcast.profiler.request import SweepRequest  # noqa: E402

ROWS = HERE / "public" / "t4-peaks.csv"
RESULT = HERE / "results" / "memory-t4.json"
FUNCTIONS = {
    "gpt2": "gpt2",
    "distilbert-base-uncased": "distilbert",
    "bert-base-uncased": "bert",
    "resnet50": "resnet50",
}
MIB = 2**20


def main() -> None:
    if "show" not in sys.argv[1:]:
        found = [counted(row) for row in rows()]
        RESULT.write_text(json.dumps({"torch": torch.__version__, "runs": found}, indent=1) + "\n")
    print("\n".join(table(json.loads(RESULT.read_text("utf-8"))["runs"])))


def rows() -> list[dict[str, Any]]:
    """The measurements, numbers as numbers."""
    with ROWS.open(encoding="utf-8") as file:
        return [
            {k: v if k == "model" else int(v) for k, v in row.items()}
            for row in csv.DictReader(file)
        ]


def counted(row: dict[str, Any]) -> dict[str, Any]:
    """One measurement, with what is said of it."""
    function = FUNCTIONS[row["model"]]
    request = SweepRequest(
        target=f"{HERE / 'memory_models.py'}:{function}",
        batch_sizes=(row["batch_size"],),
        sizes={"size": (row["size"],)},
        device="cpu",
    )
    need = device_needs(request, MemoryQuestion(device=find_device("t4")))[0]
    print(f"{row['model']} {row['batch_size']}: {need.seconds:.1f} s", file=sys.stderr, flush=True)
    answers, seconds = others(function, row["batch_size"], row["size"])
    return {
        **row,
        "said_allocated_bytes": need.allocated_bytes.p50,
        "said_reserved_bytes": need.reserved_bytes.p50,
        "said_reserved_p95_bytes": need.reserved_bytes.p95,
        "said_device_bytes": need.device_bytes.p50,
        "said_device_p95_bytes": need.device_bytes.p95,
        "source": need.source,
        "seconds": need.seconds,
        "others": answers,
        "others_seconds": seconds,
    }


def others(function: str, batch_size: int, size: int) -> tuple[dict[str, int], dict[str, float]]:
    """What other tools say the device must have, and how long each took."""
    with FakeTensorMode():
        workload = getattr(memory_models, function)(size)
    parameters = sum(p.numel() for p in workload.model.parameters())
    tools: dict[str, Callable[[], int]] = {
        "MemTracker": lambda: mem_tracker(function, batch_size, size),
        "accelerate": lambda: accelerate_bytes(workload.model),
        "DeepSpeed": lambda: DEEPSPEED_BYTES_PER_PARAMETER * parameters,
        "torchinfo": lambda: torchinfo_bytes(function, batch_size, size),
    }
    answers: dict[str, int] = {}
    seconds: dict[str, float] = {}
    for name, tool in tools.items():
        begun = time.perf_counter()
        try:
            answers[name] = tool()
        except Exception as error:  # noqa: BLE001 - a tool that fails has no answer
            print(f"{name}: {type(error).__name__}: {error}", file=sys.stderr)
            continue
        seconds[name] = time.perf_counter() - begun
    return answers, seconds


def mem_tracker(function: str, batch_size: int, size: int) -> int:
    """The peak of live tensors of two steps, on fake tensors."""
    with FakeTensorMode():
        workload = getattr(memory_models, function)(size)
        batch = torch.stack([workload.train_data.sample] * batch_size)
        tracker = MemTracker()
        tracker.track_external(workload.model, workload.optimizer, batch)
        with tracker:
            for _ in range(2):
                with torch.autocast("cpu", torch.bfloat16):
                    loss = workload.forward(workload.model, batch)
                loss.backward()
                workload.optimizer.step()
                workload.optimizer.zero_grad()
                tracker.reset_mod_stats()
        snapshot = tracker.get_tracker_snapshot("peak")
    return int(snapshot[torch.device("cpu")]["Total"])


def torchinfo_bytes(function: str, batch_size: int, size: int) -> int:
    """What ``torchinfo.summary`` adds up; it runs the forward pass for real."""
    from torchinfo import summary

    workload = getattr(memory_models, function)(size)
    batch = torch.stack([workload.train_data.sample] * batch_size)
    found = summary(workload.model, input_data=batch, device="cpu", verbose=0, mode="train")
    return int(found.total_input + found.total_output_bytes + found.total_param_bytes)


def table(found: list[dict[str, Any]]) -> list[str]:
    """Errors in per cent, a row a run, and a row a tool."""
    lines = [
        "| run | allocated | reserved | P95 of reserved | seconds |",
        "| --- | ---: | ---: | ---: | ---: |",
    ]
    for r in found:
        errors = (
            relative(r["said_allocated_bytes"], r["allocated_bytes"]),
            relative(r["said_reserved_bytes"], r["reserved_bytes"]),
            relative(r["said_reserved_p95_bytes"], r["reserved_bytes"]),
        )
        cells = " | ".join(f"{100 * e:+.2f} %" for e in errors)
        name = f"{r['model']}, {r['batch_size']} × {r['size']}"
        lines.append(f"| {name} | {cells} | {r['seconds']:.1f} |")
    lines += ["", "| what the device must have | median error | worst | below | seconds |"]
    lines.append("| --- | ---: | ---: | ---: | ---: |")
    ours = [(r["said_device_bytes"], device_bytes(r), r["seconds"]) for r in found]
    lines.append(summary_line("epochcast, P50", ours))
    ours = [(r["said_device_p95_bytes"], device_bytes(r), r["seconds"]) for r in found]
    lines.append(summary_line("epochcast, P95", ours))
    for tool in dict.fromkeys(name for r in found for name in r["others"]):
        said = [
            (r["others"][tool], device_bytes(r), r["others_seconds"][tool])
            for r in found
            if tool in r["others"]
        ]
        lines.append(summary_line(tool, said))
    return lines


def device_bytes(row: dict[str, Any]) -> int:
    """What the card held: reserved and the context."""
    return int(row["reserved_bytes"] + row["context_bytes"])


def summary_line(name: str, said: list[tuple[float, int, float]]) -> str:
    errors = [relative(answer, truth) for answer, truth, _ in said]
    worst = max(errors, key=abs)
    below = sum(error < 0 for error in errors)
    took = median(seconds for *_, seconds in said)
    middle = median(map(abs, errors))
    counts = f"{below} of {len(errors)}"
    return f"| {name} | {100 * middle:.1f} % | {100 * worst:+.1f} % | {counts} | {took:.1f} |"


def relative(said: float, truth: float) -> float:
    return said / truth - 1


if __name__ == "__main__":
    main()
