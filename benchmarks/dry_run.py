"""How long a dry run takes and how much memory it needs, in a fresh process for each model.

    python benchmarks/dry_run.py        writes benchmarks/results/dry-run-cpu.json

Seconds and resident bytes are those after torch and epochcast are imported; the largest model has
no place in the memory of the machine that dry-runs it.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import time
from pathlib import Path

import psutil
import torch

import epochcast
from epochcast.profiler.builtin import CharGpt
from epochcast.profiler.footprint.dry_run import simulate
from epochcast.profiler.workload import Workload

RESULT = Path(__file__).parent / "results" / "dry-run-cpu.json"
CONTEXT, VOCABULARY = 1024, 50257  # GPT-2: Radford et al. 2019, table 2
SHAPES = {  # layers, width, heads
    "gpt2 124M": (12, 768, 12),
    "gpt2-xl 1.6B": (48, 1600, 25),
    "gpt3 6.7B": (32, 4096, 32),  # Brown et al. 2020, table 2.1
}


class Tokens(torch.utils.data.Dataset):
    """One window of text, again and again."""

    def __len__(self) -> int:
        return 1024

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        return torch.zeros(CONTEXT, dtype=torch.int64), torch.zeros(CONTEXT, dtype=torch.int64)


def gpt(layers: int, width: int, heads: int) -> Workload:
    model = CharGpt(
        vocabulary=VOCABULARY,
        context=CONTEXT,
        layers=layers,
        width=width,
        heads=heads,
        dropout=0.0,
    )
    return Workload(
        model=model,
        train_data=Tokens(),
        optimizer=torch.optim.AdamW(model.parameters()),
        loss=lambda logits, targets: torch.nn.functional.cross_entropy(
            logits.flatten(0, 1), targets.flatten()
        ),
        batch_size=8,
    )


def measure(name: str) -> dict[str, object]:
    """In this process: seconds, growth of the largest resident size, and what was found."""
    process = psutil.Process()
    before, begun = process.memory_info().rss, time.perf_counter()
    busy = time.process_time()
    (counted,) = simulate(lambda: gpt(*SHAPES[name]), timeline=True)
    seconds = time.perf_counter() - begun
    footprint = counted.footprint
    return {
        "model": name,
        "seconds": round(seconds, 2),
        "cpu_seconds": round(time.process_time() - busy, 2),
        "rss_before_bytes": before,
        "peak_rss_bytes": _peak_rss(),
        "parameters": footprint.parameters,
        "flops": footprint.flops,
        "operators": footprint.operators + footprint.update_operators,
        "predicted_peak_bytes": footprint.peak_bytes,
    }


def _peak_rss() -> int:
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def main() -> None:
    rows = []
    for name in SHAPES:
        command = [sys.executable, __file__, name]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        rows.append(json.loads(done.stdout))
        print(rows[-1])
    document = {
        "command": "python benchmarks/dry_run.py",
        "device": f"{platform.machine()}, {os.cpu_count()} cores, "
        f"{psutil.virtual_memory().total / 2**30:.0f} GiB",
        "versions": {
            "epochcast": epochcast.__version__,
            "python": platform.python_version(),
            "torch": torch.__version__,
        },
        "rows": rows,
    }
    RESULT.write_text(json.dumps(document, indent=2) + "\n")


if __name__ == "__main__":
    if len(sys.argv) > 1:
        print(json.dumps(measure(sys.argv[1])))
    else:
        main()
