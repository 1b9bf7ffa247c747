"""Memory of a real GPU, measured by somebody else, beside what dry runs say of it.

    public/gpumemnet-mlp.csv   69 perceptrons, each another network, batch size and activation: what
                               nvidia-smi showed while PyTorch trained it
    count      dry runs of public_mlp.py, the same networks,    ──▶ results/gpumemnet-counts.json
               with what torch's allocator holds for them
    evaluate   learn what a device needs beyond that from       ──▶ results/gpumemnet.json,
               ten, predict the others; fifty times                 docs/accuracy.md

    python benchmarks/public_memory.py [count|evaluate]          from the repository root

The rows are from three places (the beginning, a third, two thirds) of ``mlp_data_step2.csv`` of
github.com/itu-rad/GPUMemNet, commit 4fe157b (Yousefzadeh-Asl-Miandoab et al. 2026, "GPU memory and
utilization estimation for training-aware resource management", arXiv:2602.17817), all that were
whole there. Evaluating needs no torch.
"""

from __future__ import annotations

import csv
import json
import random
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import steps
from comparison import report
from comparison.scores import coverage, errors, relative_error, under_estimates

from epochcast.costmodel.averaging import fit_surface
from epochcast.costmodel.features import beyond_peak_forms
from epochcast.costmodel.memory import RESERVE, Layer, fragmentation
from epochcast.costmodel.scatter import Scatter
from epochcast.costmodel.surface import BYTES_SD_PER_DOUBLING
from epochcast.records import Quantiles

HERE = Path(__file__).resolve().parent
ROWS = HERE / "public" / "gpumemnet-mlp.csv"
COUNTS = HERE / "results" / "gpumemnet-counts.json"
RESULT = HERE / "results" / "gpumemnet.json"
MARK = "benchmarks/public_memory.py"
MIB = 2**20
LEARNED_FROM, SUBSETS = 10, 50
AXES = ("batch_size", "size.inputs", "size.outputs", "size.depth")
LARGE_BYTES = 300 * MIB  # where tensors, and not the context alone, decide
NOTHING = Scatter(sd=0.0)
BYTES_PER_PARAMETER = {"accelerate": 16, "DeepSpeed": 20}  # see comparison/memory_tools.py

OURS = "epochcast: dry run, and what {} others needed beyond theirs"
LARGE = "… of the networks whose dry run's peak is over {:.0f} MiB"
LINE = "a straight line through the dry runs' peaks"
PEAK = "dry run alone, and the context"
WEIGHTS = "parameters × {} bytes ({}), and the context"


@dataclass(frozen=True, slots=True, kw_only=True)
class Network:
    """One row of the file, and what a dry run counted.

    Attributes:
        device_bytes: used on the device, its context included, at most.
        peak_bytes: of live tensors, in a dry run.
        reserve_bytes: of torch's caching allocator for them, simulated.
    """

    inputs: int
    outputs: int
    depth: int
    batch_size: int
    device_bytes: int
    peak_bytes: int
    reserve_bytes: int
    parameters: int

    @property
    def variables(self) -> dict[str, float]:
        """As the cost model knows a configuration."""
        sizes = {"inputs": self.inputs, "outputs": self.outputs, "depth": self.depth}
        knobs = {f"size.{name}": float(value) for name, value in sizes.items()}
        base = {"batch_size": float(self.batch_size), "peak_bytes": float(self.reserve_bytes)}
        return {**base, **knobs}


def count() -> None:
    """Dry runs of every network as on CUDA, where optimizers update all parameters together."""
    from public_mlp import workload

    from epochcast.profiler.footprint.dry_run import simulate

    lines = []
    for row in rows():
        numbers = (int(row[name]) for name in ("inputs", "outputs", "depth"))
        kinds = (row["shape"], row["activation"], row["dropout"] == "1", row["batch_norm"] == "1")
        built = partial(workload, *numbers, *kinds)
        (counted,) = simulate(built, [int(row["batch"])], as_on_cuda=True)
        footprint = counted.footprint
        names = ("peak_bytes", "reserve_bytes", "parameters")
        known = {name: getattr(footprint, name) for name in names}
        lines.append(json.dumps(known))
    COUNTS.write_text("[\n" + ",\n".join(lines) + "\n]\n")


def evaluate() -> None:
    """Compare, print, write."""
    known = networks()
    found = compared(known)
    RESULT.write_text(json.dumps({"command": f"python {MARK} evaluate", "rows": found}, indent=1))
    written = text(known, found)
    print(written)
    report.insert(HERE.parent / "docs" / "accuracy.md", written, MARK)


def rows() -> list[dict[str, str]]:
    """Of the file."""
    with ROWS.open(newline="") as lines:
        return list(csv.DictReader(lines))


def networks() -> list[Network]:
    """Every network, measured and counted."""
    return [
        Network(
            inputs=int(row["inputs"]),
            outputs=int(row["outputs"]),
            depth=int(row["depth"]),
            batch_size=int(row["batch"]),
            device_bytes=int(row["device_mib"]) * MIB,
            **counted,
        )
        for row, counted in zip(rows(), json.loads(COUNTS.read_text()), strict=True)
    ]


def compared(known: Sequence[Network], subsets: int = SUBSETS) -> list[dict[str, Any]]:
    """One row per method, over all networks left out of all subsets to learn from."""
    pairs: list[tuple[Quantiles, float]] = []
    large: list[tuple[Quantiles, float]] = []
    simple: dict[str, list[float]] = {}
    for seed in range(subsets):
        learned = set(random.Random(seed).sample(range(len(known)), LEARNED_FROM))
        some = [known[i] for i in sorted(learned)]
        layer = learn(some)
        context = float(min(n.device_bytes - n.peak_bytes for n in some))
        slope, base = np.polyfit([n.peak_bytes for n in some], [n.device_bytes for n in some], 1)
        for n in (n for i, n in enumerate(known) if i not in learned):
            pairs.append((predicted(layer, n), float(n.device_bytes)))
            if n.peak_bytes > LARGE_BYTES:
                large.append(pairs[-1])
            answers = {LINE: float(base + slope * n.peak_bytes)}
            answers |= {name: context + tensors for name, tensors in formulas(n).items()}
            for name, answer in answers.items():
                simple.setdefault(name, []).append(relative_error(answer, n.device_bytes))
    return [
        _row(OURS.format(LEARNED_FROM), pairs),
        _row(LARGE.format(LARGE_BYTES / MIB), large),
        *({"method": name, **_errors(values)} for name, values in simple.items()),
    ]


def _row(method: str, pairs: Sequence[tuple[Quantiles, float]]) -> dict[str, Any]:
    found = _errors([relative_error(q.p50, value) for q, value in pairs])
    held = {"p05_p95": coverage(pairs, "p05", "p95"), "under_p95": under_estimates(pairs)}
    return {"method": method, **found, **held}


def learn(some: Sequence[Network]) -> Layer:
    """What devices need beyond the peak of live tensors, as ``ec.fit`` learns it."""
    beyond = [max(1.0, float(n.device_bytes - n.reserve_bytes)) for n in some]
    surface = fit_surface(
        [n.variables for n in some],
        beyond,
        beyond_peak_forms("cuda"),
        AXES,
        sd_per_doubling=BYTES_SD_PER_DOUBLING,
    )
    broken = fragmentation([n.reserve_bytes for n in some], beyond)
    return Layer(surface=surface, beyond_peak=True, run=NOTHING, fragmentation=broken, base=RESERVE)


def predicted(layer: Layer, n: Network) -> Quantiles:
    """Bytes on the device."""
    reserve = float(n.reserve_bytes)
    return layer.scatter(n.variables, reserve, NOTHING).quantiles(layer.value(n.variables, reserve))


def formulas(n: Network) -> dict[str, float]:
    """What others say that the tensors take."""
    by_weights = {
        WEIGHTS.format(size, tool): float(size * n.parameters)
        for tool, size in BYTES_PER_PARAMETER.items()
    }
    return {PEAK: float(n.peak_bytes), **by_weights}


def _errors(values: Sequence[float]) -> dict[str, float]:
    found = errors(values)
    return {k: float(v) for k, v in asdict(found).items() if k != "count"} if found else {}


def text(known: Sequence[Network], found: Sequence[dict[str, Any]]) -> str:
    """A table as Markdown."""
    used = np.array([n.device_bytes for n in known]) / MIB
    peaks = np.array([n.peak_bytes for n in known]) / MIB
    lines = [
        f"{len(known)} networks, {SUBSETS} draws of {LEARNED_FROM} to learn from. "
        f"`python {MARK} evaluate`",
        f"On the device: {used.min():,.0f} to {used.max():,.0f} MiB; dry runs' peaks: "
        f"{peaks.min():,.1f} to {peaks.max():,.0f} MiB.",
        "",
        "| memory of the device | mean | median | P90 | max | in P5–P95 | above P95 |",
        "| --- | --: | --: | --: | --: | --: | --: |",
    ]
    for row in found:
        shown = [report.percent(row[name]) for name in ("mean", "median", "p90", "max")]
        held = [report.percent(row.get(name), 0) for name in ("p05_p95", "under_p95")]
        lines.append(f"| {' | '.join([row['method'], *shown, *held])} |")
    return "\n".join(lines)


if __name__ == "__main__":
    steps.run(__doc__, count, evaluate)
