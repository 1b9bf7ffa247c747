"""Ordinary training scripts, priced as they are and then run without us, and watched as they run.

    for each repeat:   [a folder of its own]  the script, whole and unprobed, timed from outside
    in between         epochcast probe -- the same command, then epochcast predict
    at its side        the files and folders before and after the probe, byte for byte

``measure`` prints and writes (results/scripts-cpu.json): predicted over real time of the whole
script, beside how far the real ones differ among themselves; seconds of probing; what a probe left
behind. ``overhead`` is what ``epochcast run`` costs a step, and its own process a second;
``deadline`` is how often a script that saves on SIGTERM ends in time with a whole checkpoint.
``table`` writes what was measured into docs/scripts.md.

    python benchmarks/scripts.py measure [--only plain ddp] [--repeats 4]
    python benchmarks/scripts.py overhead | deadline | table
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import platform
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from comparison.report import insert

SCRIPTS = Path(__file__).with_name("scripts")
RESULT = Path(__file__).parent / "results" / "scripts-cpu.json"
DOCS = Path(__file__).parents[1] / "docs" / "scripts.md"
WRITER = "benchmarks/scripts.py"
EPOCHCAST = [sys.executable, "-m", "epochcast"]
STEP = 0.01  # seconds: the overhead is a share of such a step


@dataclass(frozen=True, kw_only=True)
class Style:
    """A way in which people write training scripts.

    Attributes:
        name: in the table.
        arguments: after the interpreter; ``{epochs}`` where the number of epochs goes, which the
            probe is told as one of a long run.
        epochs: of the real run.
        launcher: what starts it, before the script.
        probe: further options of ``epochcast probe``.
        per_epoch: steps of what is called an epoch where the script has none.
    """

    name: str
    arguments: str
    epochs: int
    launcher: tuple[str, ...] = (sys.executable,)
    probe: tuple[str, ...] = ()
    per_epoch: int | None = None

    def command(self, epochs: int) -> list[str]:
        """To start it in any folder."""
        count = epochs * (self.per_epoch or 1)
        script, *rest = self.arguments.format(epochs=count).split()
        return [*self.launcher, str(SCRIPTS / script), *rest]


TORCHRUN = str(Path(sys.executable).with_name("torchrun"))
TWO = (TORCHRUN, "--standalone", "--nproc-per-node=2")
STYLES = {
    "plain": Style(name="plain loop", arguments="plain.py --epochs {epochs}", epochs=5),
    "iterations": Style(
        name="iterations, own batches",
        arguments="iterations.py --max_iters={epochs}",
        epochs=4,
        probe=("--steps-per-epoch", "100"),
        per_epoch=100,
    ),
    "accumulation": Style(
        name="accumulation, schedule", arguments="accumulation.py --epochs {epochs}", epochs=4
    ),
    "lightning": Style(
        name="Lightning", arguments="lightning_mlp.py --max_epochs {epochs}", epochs=4
    ),
    "trainer": Style(
        name="Trainer", arguments="hf_trainer.py --num_train_epochs {epochs}", epochs=3
    ),
    "keras": Style(name="Keras MNIST", arguments="keras_mnist.py --epochs {epochs}", epochs=1),
    "gan": Style(name="GAN", arguments="gan.py --n_epochs {epochs}", epochs=4),
    "rnn": Style(name="RNN, lengths vary", arguments="rnn.py --epochs {epochs}", epochs=4),
    "module": Style(
        name="arguments of the module", arguments="module_arguments.py --epochs {epochs}", epochs=3
    ),
    "ddp": Style(
        name="two processes (DDP)", arguments="ddp.py --epochs {epochs}", epochs=4, launcher=TWO
    ),
    "yaml": Style(
        name="argparse and YAML", arguments="yaml_project/train.py --epochs {epochs}", epochs=4
    ),
    "accelerate": Style(
        name="Accelerate", arguments="accelerate_mlp.py --num_train_epochs {epochs}", epochs=4
    ),
    "preemptible": Style(
        name="saves on SIGTERM", arguments="preemptible.py --epochs {epochs}", epochs=10
    ),
}
PROBED_EPOCHS = 100  # the run that is asked about is long; the probe sees its beginning


# -- predicted and real ----------------------------------------------------------------------------


def measure(names: Sequence[str], repeats: int) -> None:
    """Every style: real runs, and one probe in the middle of them."""
    rows = load().get("styles", {})
    for name in names:
        with tempfile.TemporaryDirectory() as folder:
            rows[name] = measured(STYLES[name], Path(folder), repeats)
        print(name, json.dumps(rows[name]), flush=True)
        store(styles=rows)


def measured(style: Style, folder: Path, repeats: int) -> dict[str, Any]:
    """One style."""
    real, row = [], {}
    for repeat in range(repeats):
        real.append(timed(style.command(style.epochs), fresh(folder / f"run-{repeat}")))
        if repeat == (repeats - 1) // 2:
            row = probed(style, fresh(folder / "probe"))
    spread = (max(real) - min(real)) / (2 * median(real))
    predicted = row.get("predicted")
    ratio = predicted / median(real) if predicted else None
    return {"style": style.name, "ratio": ratio, "spread": spread, "real": real, **row}


def timed(command: Sequence[str], folder: Path) -> float:
    """Seconds of a run of a command; its output is thrown away.

    Args:
        command: to run.
        folder: in which.

    Raises:
        RuntimeError: it failed; with its last lines.
    """
    began = time.monotonic()
    done = subprocess.run(command, cwd=folder, env=environment(), capture_output=True, text=True)
    seconds = time.monotonic() - began
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}:\n{done.stdout[-1000:]}\n{done.stderr[-2000:]}")
    return seconds


def probed(style: Style, folder: Path) -> dict[str, Any]:
    """The prediction from a probe, what the probe took, and what it changed."""
    place = str(folder.with_name("store.sqlite"))
    temporary = fresh(folder.with_name("temporary"))
    before = tree(folder, temporary)
    began = time.monotonic()
    command = [*EPOCHCAST, "probe", "--store", place, *style.probe, "--"]
    variables = environment() | {"TMPDIR": str(temporary)}
    with log_of(folder).open("w") as log:  # kept as far as it goes, whatever ends us
        probe = subprocess.run(
            [*command, *style.command(PROBED_EPOCHS)],
            cwd=folder,
            env=variables,
            stdout=log,
            stderr=log,
        )
    seconds = time.monotonic() - began
    after = tree(folder, temporary)
    row = {"probe_seconds": seconds, "left_behind": changes(before, after)}
    if probe.returncode:
        return {**row, "failed": log_of(folder).read_text()[-600:]}
    answer = subprocess.run(
        [*EPOCHCAST, "predict", "--store", place, "--epochs", str(style.epochs), "--json"],
        cwd=folder,
        capture_output=True,
        text=True,
    )
    if answer.returncode:
        return {**row, "failed": answer.stderr[-600:]}
    total = json.loads(answer.stdout)["estimates"][0]["total_seconds"]
    return {**row, "predicted": total["p50"], "p10": total["p10"], "p90": total["p90"]}


def log_of(folder: Path) -> Path:
    """What the probe printed that was made in a folder."""
    return folder.with_name("probe.log")


def tree(folder: Path, temporary: Path) -> dict[str, tuple[Any, ...]]:
    """Every file and folder: mode, time of change, contents.

    Args:
        folder: in which the command is started, itself included.
        temporary: for temporary files; only what is in it counts.
    """
    found = {}
    for path in [folder, *sorted(folder.rglob("*")), *sorted(temporary.rglob("*"))]:
        status = path.lstat()
        content = hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""
        found[str(path)] = (status.st_mode, status.st_mtime_ns, content)
    return found


def changes(before: dict[str, Any], after: dict[str, Any]) -> list[str]:
    """What is there and was not, is not any more, or is otherwise."""
    names = sorted(before.keys() | after.keys())
    return [name for name in names if before.get(name) != after.get(name)]


# -- what watching costs ---------------------------------------------------------------------------


LOOP = """
import sys, time, torch
from torch.utils.data import DataLoader, TensorDataset
start = time.monotonic()
torch.manual_seed(0)
torch.set_num_threads(1)
data = TensorDataset(torch.randn({samples}, 16), torch.randn({samples}, 1))
loader, model = DataLoader(data, batch_size=16), torch.nn.Linear(16, 1)
optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
seconds = []
for epoch in range({epochs}):
    began = time.process_time()
    for x, y in loader:
        loss = torch.nn.functional.mse_loss(model(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    seconds.append((time.process_time() - began) / len(loader))
print(min(seconds[1:]), time.process_time(), time.monotonic() - start)
"""


def overhead(repeats: int) -> None:
    """Seconds that watching adds to a step of almost nothing, over a step of 10 ms."""
    pairs = []
    with tempfile.TemporaryDirectory() as name:
        script = Path(name) / "loop.py"
        script.write_text(LOOP.format(samples=16000, epochs=8))
        command = [sys.executable, str(script)]
        for _ in range(repeats):
            alone = float(output_of(command, script.parent).split()[0])
            watched = [*EPOCHCAST, "run", "--folder", f"{name}/run", "--no-store", "--", *command]
            pairs.append((alone, float(output_of(watched, script.parent).split()[0])))
    added = median(watched - alone for alone, watched in pairs)
    result = {"added_seconds_a_step": added, "share_of_10_ms": added / STEP, "pairs": pairs}
    store(overhead={**result, "watcher": watcher_share()})
    print(json.dumps(load()["overhead"], indent=1))


def watcher_share() -> float:
    """CPU time that epochcast's own processes take for each second of the run that they watch."""
    with tempfile.TemporaryDirectory() as name:
        short, long = (watching(epochs, Path(name)) for epochs in (8, 80))
    return (long[0] - short[0]) / (long[1] - short[1])


def watching(epochs: int, folder: Path) -> tuple[float, float]:
    """CPU seconds of all processes but the script's, and seconds of the script."""
    script = folder / "loop.py"
    script.write_text(LOOP.format(samples=16000, epochs=epochs))
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    command = [*EPOCHCAST, "run", "--folder", f"{folder}/run", "--no-store", "--"]
    _, own, seconds = map(float, output_of([*command, sys.executable, str(script)], folder).split())
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    every = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return every - own, seconds


def output_of(command: Sequence[str], folder: Path) -> str:
    """What a command prints to stdout.

    Raises:
        RuntimeError: it failed.
    """
    done = subprocess.run(command, cwd=folder, env=environment(), capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(done.stderr[-2000:])
    return done.stdout


def deadline(runs: int) -> None:
    """Runs under a deadline that they do not fit into: in time, with a whole checkpoint?"""
    rows = []
    for run in range(runs):
        seconds = 12 + 0.37 * run  # another moment of the epoch each time
        with tempfile.TemporaryDirectory() as name:
            rows.append(under_deadline(seconds, Path(name)))
        print(json.dumps(rows[-1]), flush=True)
    good = sum(row["in_time"] and row["whole"] and row["asked"] for row in rows)
    store(deadline={"good": good, "of": runs, "rows": rows})


def under_deadline(seconds: float, folder: Path) -> dict[str, Any]:
    """One run of the script that saves on SIGTERM."""
    import torch

    script = [sys.executable, str(SCRIPTS / "preemptible.py"), "--epochs", "1000"]
    watch = [*EPOCHCAST, "run", "--deadline", f"{seconds}s", "--no-store", "--", *script]
    began = time.monotonic()
    done = subprocess.run(watch, cwd=folder, env=environment(), capture_output=True, text=True)
    took = time.monotonic() - began
    try:
        whole = "model" in torch.load(folder / "checkpoint.pt", weights_only=True)
    except (OSError, RuntimeError):
        whole = False
    return {
        "deadline": seconds,
        "took": took,
        "in_time": took <= seconds,
        "whole": whole,
        "asked": "asked to leave" in done.stdout,
        "exit_code": done.returncode,
    }


# -- results ---------------------------------------------------------------------------------------


def environment() -> dict[str, str]:
    """Of every command: one thread, as runs beside one another have it."""
    return {**os.environ, "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}


def fresh(folder: Path) -> Path:
    """An empty folder."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder


def load() -> dict[str, Any]:
    return json.loads(RESULT.read_text()) if RESULT.exists() else {}


def store(**parts: Any) -> None:
    """Add what was measured to the results."""
    known = {**load(), "python": platform.python_version(), "cores": os.cpu_count(), **parts}
    RESULT.write_text(json.dumps(known, indent=1) + "\n")


def table() -> None:
    """Write the results into the document."""
    insert(DOCS, "\n".join(lines(load())), WRITER)


def lines(result: dict[str, Any]) -> Iterator[str]:
    """Of the document."""
    yield "| script | predicted / real | real runs differ by | a real run | probing | left behind |"
    yield "| --- | --- | --- | --- | --- | --- |"
    for row in result.get("styles", {}).values():
        ratio = f"{row['ratio']:.3f}" if row.get("ratio") else "no answer"
        left = len(row["left_behind"]) or "nothing"
        yield (
            f"| {row['style']} | {ratio} | ±{100 * row['spread']:.1f} % "
            f"| {median(row['real']):.1f} s | {row['probe_seconds']:.1f} s | {left} |"
        )
    ratios = [row["ratio"] for row in result.get("styles", {}).values() if row.get("ratio")]
    if ratios:
        yield f"\nThe median of the ratios is {median(ratios):.3f}."
    if "overhead" in result:
        cost = result["overhead"]
        yield (
            f"\nWatching adds {1e6 * cost['added_seconds_a_step']:.0f} µs to a step, "
            f"{100 * cost['share_of_10_ms']:.2f} % of one of 10 ms; the process that watches takes "
            f"{100 * cost['watcher']:.1f} % of a core."
        )
    if "deadline" in result:
        met = result["deadline"]
        yield (
            f"\nUnder a deadline {met['good']} of {met['of']} runs of a script that saves on "
            "SIGTERM ended in time with a whole checkpoint."
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=("measure", "overhead", "deadline", "table"))
    parser.add_argument("--only", nargs="+", choices=sorted(STYLES), default=list(STYLES))
    parser.add_argument("--repeats", type=int, default=4)
    parser.add_argument("--runs", type=int, default=20, help="under a deadline")
    options = parser.parse_args()
    parts: dict[str, Callable[[], None]] = {
        "measure": lambda: measure(options.only, options.repeats),
        "overhead": lambda: overhead(options.repeats),
        "deadline": lambda: deadline(options.runs),
        "table": table,
    }
    parts[options.what]()


if __name__ == "__main__":
    main()
