"""What a folder tells, in words. Reading it needs no GPU, and predicting again no torch."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from statistics import median
from typing import Any

from gpu_parts.results import Folder

MIB = 2**20


def lines(folder: Folder, *, predict_again: bool = False) -> list[str]:
    """The whole summary.

    Args:
        folder: as it was read.
        predict_again: fit the measurements once more, with the code that is there now.
    """
    parts = (
        ("Run", head(folder)),
        ("Device", device(folder)),
        ("Context: MiB beside the allocator's", context(folder)),
        ("Probes", probes(folder)),
        ("Predicted beside real epochs", truths(folder, predict_again)),
        ("Allocator: MiB at the peak", snapshots(folder)),
        ("Dry runs beside what was allocated", dry_runs(folder)),
        ("Scripts", scripts(folder)),
        ("Guard and energy", guard(folder)),
        ("Accuracy: median error (P90)", accuracy(folder)),
        ("Left out", left_out(folder)),
    )
    return [
        line for title, found in parts if (body := list(found)) for line in (f"== {title}", *body)
    ]


def head(folder: Folder) -> Iterator[str]:
    """The command, how it ended, and every scenario."""
    summary = folder.summary
    dry = ", in miniature on a CPU" if summary["dry"] else ""
    yield f"{summary['command']}: {summary['ended']} after {summary['seconds']:.0f} s{dry}"
    for outcome in summary["scenarios"]:
        seconds = f" in {outcome['seconds']:.1f} s" if "seconds" in outcome else ""
        message = outcome.get("message", "").strip().splitlines()
        why = f": {message[-1][:160]}" if message else ""
        yield f"{outcome['part']}/{outcome['scenario']}: {outcome['status']}{seconds}{why}"


def device(folder: Folder) -> Iterator[str]:
    """What was measured on, and how fast it is."""
    for facts in folder.of("device", "facts"):
        yield f"torch {facts['torch']}, CUDA {facts['torch_cuda']}, Python {facts['python']}"
    for found in folder.of("device", "cuda"):
        yield f"{found['device']}, {found['total_bytes'] / MIB:,.0f} MiB, cuDNN {found['cudnn']}"
    for found in folder.of("device", "speed"):
        for name, value in found.items():
            if name.endswith("_per_second") and isinstance(value, float):
                yield f"{name.removesuffix('_per_second').replace('_', ' ')}: {value:.3g} per s"
        yield f"a launch: {1e6 * found['launch_seconds']:.1f} µs"


def context(folder: Folder) -> Iterator[str]:
    """After the first use of each library."""
    for found in folder.of("device", "context"):
        loading = f" ({found['module_loading']})" if found["module_loading"] else ""
        for stage in found["stages"]:
            if "outside_bytes" in stage:
                yield f"{stage['stage']}{loading}: {stage['outside_bytes'] / MIB:,.0f}"
            if "failure" in stage:
                yield f"{stage['stage']}{loading}: {stage['failure']['unknown'][:160]}"


def probes(folder: Folder) -> Iterator[str]:
    """Of each configuration: how it went, the median step, the memory."""
    for found in folder.of("probes", "measurements"):
        groups: dict[str, list[Any]] = {}
        for m in found["measurements"]:
            groups.setdefault(label(m["config"]), []).append(m)
        for name, visits in groups.items():
            yield f"{found['scenario']}, {name}: {_steps(visits)}"


def _steps(visits: Sequence[Mapping[str, Any]]) -> str:
    good = [m for m in visits if m.get("status", "ok") == "ok"]
    if not good:
        return f"{visits[0]['status']}: {visits[0].get('message', '')[:160]}"
    step = median(median(m["step_seconds"]) for m in good)
    memory = good[-1].get("memory") or {}
    reserved = memory.get("reserved_bytes")
    shown = f", {reserved / MIB:,.0f} MiB reserved" if reserved else ""
    return f"{1e3 * step:.2f} ms a step in {len(good)} visits{shown}"


def label(config: Mapping[str, Any]) -> str:
    """A configuration in words."""
    sizes = " ".join(f"{name}={value}" for name, value in config.get("sizes", ()))
    more = [config["precision"]] if config.get("precision", "fp32") != "fp32" else []
    more += ["compiled"] if config.get("compiled") else []
    return " ".join([f"batch_size={config['batch_size']}", sizes, *more]).strip()


def truths(folder: Folder, predict_again: bool) -> Iterator[str]:
    """Predicted over real, for epochs and memory."""
    estimates = {e["scenario"]: e["estimate"] for e in folder.of("probes", "estimate")}
    again = predictions(folder) if predict_again else {}
    for truth in folder.of("probes", "truth"):
        name, steady = truth["scenario"], truth["epoch_seconds"][-1]
        predicted = estimates[name]["epoch_seconds"]
        text = f"{name}: {predicted['p50']:.2f} s predicted, {steady:.2f} s measured"
        text += f" ({predicted['p50'] / steady - 1:+.1%}, {_inside(predicted, steady)})"
        if name in again:
            text += f"; by the code of today {again[name]:.2f} s ({again[name] / steady - 1:+.1%})"
        yield text
        if "peaks" in truth and estimates[name].get("reserved_bytes"):
            taken = truth["peaks"]["reserved_bytes.all.peak"]
            told = estimates[name]["reserved_bytes"]["p50"]
            yield f"{name}: {told / MIB:,.0f} MiB reserved predicted, {taken / MIB:,.0f} measured"


def _inside(predicted: Mapping[str, float], measured: float) -> str:
    inside = predicted["p05"] <= measured <= predicted["p95"]
    return "inside P5–P95" if inside else "outside P5–P95"


def predictions(folder: Folder) -> dict[str, float]:
    """Seconds of an epoch of each truth, predicted anew from the measurements that are stored."""
    import epochcast as ec
    from gpu_parts.probes import EPOCHS, measurements_in

    found = {m["scenario"]: m["measurements"] for m in folder.of("probes", "measurements")}
    return {
        truth["scenario"]: ec.fit(measurements_in(found[truth["scenario"]]))
        .predict(epochs=EPOCHS, **truth["asked"])
        .epoch_seconds.p50
        for truth in folder.of("probes", "truth")
    }


def snapshots(folder: Folder) -> Iterator[str]:
    """Allocated, reserved and what the driver shows; how long the history is."""
    events = {s["scenario"]: s for s in folder.of("snapshots", "snapshot")}
    for peaks in folder.of("snapshots", "peaks"):
        stages = [stage for stage in peaks["stages"] if "driver_bytes" in stage]
        allocated, reserved, driver = (
            max((stage[key] for stage in stages), default=0) / MIB
            for key in ("allocated_bytes.all.peak", "reserved_bytes.all.peak", "driver_bytes")
        )
        history = events.get(peaks["scenario"], {})
        yield (
            f"{peaks['scenario']}: allocated {allocated:,.1f}, reserved {reserved:,.0f}, "
            f"driver {driver:,.0f}; {len(history.get('events', ())):,} events"
        )
    for found in folder.of("snapshots", "attempts"):
        sizes = [
            f"{a['batch_size']}{' out of memory' if a['message'] else ''}"
            for a in found["attempts"]
        ]
        yield f"batch sizes under a limit: {', '.join(sizes)}"


def dry_runs(folder: Folder) -> Iterator[str]:
    """Allocated and reserved at the peak, predicted without the device and measured on it."""
    measured = {p["scenario"]: p["stages"] for p in folder.of("snapshots", "peaks")}
    for found in folder.of("snapshots", "dry run"):
        told = [
            f"{name.removesuffix('_bytes')} "
            + _beside(found["need"][name]["p50"], max(s[key] for s in measured[found["of"]]))
            for name, key in (
                ("allocated_bytes", "allocated_bytes.all.peak"),
                ("reserved_bytes", "reserved_bytes.all.peak"),
            )
            if found["of"] in measured
        ]
        yield f"{found['of']}: {', '.join(told)}; in {found['seconds']:.1f} s"


def _beside(predicted: float, real: float) -> str:
    return f"{predicted / MIB:,.0f} of {real / MIB:,.0f} MiB ({predicted / real - 1:+.1%})"


def scripts(folder: Folder) -> Iterator[str]:
    """Predicted over real time; whether a deadline was kept."""
    for found in folder.of("scripts", "style"):
        answer = f"{found['ratio']:.3f}" if found["ratio"] else found.get("failed", "no answer")
        yield (
            f"{found['style']}: predicted / real {answer}, probed in {found['probe_seconds']:.1f} s"
        )
    for found in folder.of("scripts", "watched"):
        saved = "whole" if found["whole"] else "not whole"
        yield (
            f"deadline of {found['deadline']:.0f} s: ended after {found['seconds']:.1f} s, the "
            f"checkpoint is {saved}"
        )


def guard(folder: Folder) -> Iterator[str]:
    """Whether the deadline was kept; joules by the counter and by the sensor."""
    for found in folder.of("guard", "followed"):
        loads = "can be read" if found["checkpoint_loads"] else "cannot be read"
        energy = f", {found['joules']:,.0f} J" if found["joules"] is not None else ""
        yield (
            f"deadline of {found['deadline']:.1f} s: ended after {found['seconds']:.2f} s "
            f"({found['reason']}), {found['epochs']} epochs; the checkpoint {loads}{energy}"
        )
    for found in folder.of("guard", "energy"):
        for name, rows in found["series"].items():
            known = [row for row in rows if row[1] is not None]
            if len(known) > 1:
                seconds, joules = (known[-1][i] - known[0][i] for i in (0, 1))
                watts = median(row[2] for row in known if row[2] is not None)
                changes = len({row[1] for row in known}) - 1
                yield (
                    f"{name}: {joules / seconds:,.0f} W by the counter ({changes} changes in "
                    f"{seconds:.1f} s), {watts:,.0f} W by the sensor"
                )


def accuracy(folder: Folder) -> Iterator[str]:
    """Of each split, epochcast and the noise floor."""
    for found in folder.of("accuracy", "tables"):
        for row in found["rows"]:
            if row["method"] in ("epochcast", "measured again"):
                yield (
                    f"{row['quantity']}, {row['split']}, {row['method']}: "
                    f"{row['median']:.2%} ({row['p90']:.2%})"
                )


def left_out(folder: Folder) -> Iterator[str]:
    """What was skipped inside scenarios, and what did not fit into a file."""
    for file, records in folder.records.items():
        for record in _skipped(records):
            yield f"{file}/{record['scenario']}: {record['what']}: {record['why']}"
    for file, cut in folder.cut.items():
        for name in cut:
            yield f"{file}: {name} did not fit into the file"
    for record in folder.of("snapshots", "snapshot"):
        if record["events_cut"]:
            yield f"snapshots/{record['scenario']}: the last {record['events_cut']:,} events"


def _skipped(records: Iterable[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    return [record for record in records if record["kind"] == "skipped"]
