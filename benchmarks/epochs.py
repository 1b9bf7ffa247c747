"""Whole real training runs beside their predictions made from probes alone.

    for each repeat:  [fresh process] train digits-mlp for E epochs, really, and time all of it
    probes            made in between, so that both see the same machine
    prediction        from probes of other batch sizes and widths only: the trained one is left out

Prints and writes (benchmarks/results/epochs-*.json): predicted / measured for an epoch and for the
whole run, beside how much the same run differs from repeat to repeat, and what one would get from
a constant throughput per sample (the nearest probed configuration) and from carbontracker's rule
(epochs × mean of the first two epochs, the first one included).

    python benchmarks/epochs.py [--epochs 40] [--repeats 6]
"""

from __future__ import annotations

import argparse
import json
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import fmean, median
from typing import Any

import epochcast as ec
from epochcast.costmodel.summary import summarise

BATCH_SIZE, WIDTH = 48, 192  # never probed
PROBED_BATCH_SIZES, PROBED_WIDTHS = (16, 32, 64, 128), (64, 128, 256)
RESULTS = Path(__file__).parent / "results"


def train(epochs: int) -> None:
    """A plain training run, as a user would write it; prints the seconds of its parts as JSON."""
    import psutil
    import torch
    from torch.utils.data import DataLoader

    from epochcast.profiler.builtin import BUILTIN

    w = BUILTIN["digits-mlp"](width=WIDTH)
    train_loader = DataLoader(w.train_data, batch_size=BATCH_SIZE, shuffle=True)
    eval_loader = DataLoader(w.eval_data, batch_size=BATCH_SIZE)
    started = time.time() - psutil.Process().create_time()
    seconds = []
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(epochs):
            begun = time.perf_counter()
            w.model.train()
            for inputs, targets in train_loader:
                w.loss(w.model(inputs), targets).backward()
                w.optimizer.step()
                w.optimizer.zero_grad()
            seconds.append(time.perf_counter() - begun)
            w.model.eval()
            with torch.no_grad():
                for inputs, targets in eval_loader:
                    w.loss(w.model(inputs), targets)
            state = {"model": w.model.state_dict(), "optimizer": w.optimizer.state_dict()}
            torch.save(state, Path(folder) / "last.pt")
    total = time.time() - psutil.Process().create_time()
    print(json.dumps({"startup": started, "epochs": seconds, "total": total}))


def real_run(epochs: int) -> dict[str, Any]:
    """One training run in a fresh process."""
    command = [sys.executable, __file__, "--train", "--epochs", str(epochs)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


def probe_round(store: str, rounds: int) -> list[ec.Measurement]:
    """Probe up to this many rounds; earlier ones are in the store."""
    return list(
        ec.probe(
            "digits-mlp",
            batch_sizes=PROBED_BATCH_SIZES,
            sizes={"width": PROBED_WIDTHS},
            rounds=rounds,
            traces=False,
            store=store,
        )
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--epochs", type=int, default=40)
    parser.add_argument("--repeats", type=int, default=6)
    parser.add_argument("--train", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.train:
        train(options.epochs)
        return
    with tempfile.TemporaryDirectory() as folder:
        runs, measurements = [], []
        for repeat in range(options.repeats):
            runs.append(real_run(options.epochs))
            if repeat % 2 == 0:
                measurements = probe_round(f"{folder}/store.sqlite", repeat // 2 + 1)
    report(options.epochs, runs, measurements)


def report(epochs: int, runs: list[dict[str, Any]], measurements: list[ec.Measurement]) -> None:
    """Compare, print, write."""
    model = ec.fit(measurements)
    estimate = model.predict(epochs=epochs, batch_size=BATCH_SIZE, width=WIDTH)
    epoch_seconds = [fmean(run["epochs"][1:]) for run in runs]
    totals = [run["total"] for run in runs]
    real_epoch, real_total = median(epoch_seconds), median(totals)
    near = next(
        s
        for s in summarise(measurements)
        if (s.config.batch_size, dict(s.config.sizes)["width"]) == (64, 256)
    )
    constant = estimate.samples / (near.samples_per_second or 1)
    mean_of_first = median(epochs * fmean(run["epochs"][:2]) for run in runs)
    result = {
        "device": measurements[0].device.label,
        "python": platform.python_version(),
        "command": "python " + " ".join(sys.argv),
        "epochs": epochs,
        "repeats": len(runs),
        "epoch_predicted_over_measured": estimate.epoch_seconds.p50 / real_epoch,
        "total_predicted_over_measured": estimate.total_seconds.p50 / real_total,
        "epoch_constant_throughput_over_measured": constant / real_epoch,
        "training_mean_of_first_two_epochs_over_measured": mean_of_first / (epochs * real_epoch),
        "epoch_repeat_spread": (max(epoch_seconds) - min(epoch_seconds)) / (2 * real_epoch),
        "total_repeat_spread": (max(totals) - min(totals)) / (2 * real_total),
        "epochs_inside_p10_p90": inside(epoch_seconds, estimate.epoch_seconds),
        "totals_inside_p10_p90": inside(totals, estimate.total_seconds),
        "epoch_p90_over_p50": estimate.epoch_seconds.p90 / estimate.epoch_seconds.p50,
        "probing_over_run": estimate.probing_seconds / real_total,
        "runs": runs,
        "probed_step_seconds": {
            s.config.label: s.step_seconds for s in summarise(measurements) if s.step_seconds
        },
    }
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / "epochs-cpu.json"
    path.write_text(json.dumps(result, indent=1) + "\n")
    for name, value in result.items():
        if isinstance(value, float):
            print(f"{name:48} {value:.3f}")
    print(f"written to {path}")


def inside(values: list[float], quantiles: ec.Quantiles) -> float:
    """The share of values between P10 and P90."""
    return fmean(quantiles.p10 <= value <= quantiles.p90 for value in values)


if __name__ == "__main__":
    main()
