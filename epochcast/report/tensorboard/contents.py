"""Summaries and predictions to what each TensorBoard run holds; nothing is written here.

tab          run                                 tags
Time Series  mnist-mlp/width=512                 by batch size/step time (ms), …; step = B
HParams      mnist-mlp/width=512/batch_size=64   configuration/step time (ms), …
Images       mnist-mlp                           figures/step time by batch size, …
Text         epochcast                           prediction

A run is a folder below the log folder. One holds the curves over the batch size of one model size,
one below it a single configuration. A workload measured on several devices has the device's label
between its name and the size.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace

from epochcast.records import RunConfig, SizeValue, Summary
from epochcast.report.plots.comparison import probed_pictures, size_label
from epochcast.report.plots.pictures import png
from epochcast.report.plots.probed import ProbedPrediction
from epochcast.report.tensorboard import events
from epochcast.report.tensorboard.events import BoardEntry
from epochcast.report.tensorboard.index import slug, summary_id

TOP_RUN = "epochcast"  # holds what belongs to no single workload
# Groups of cards; TensorBoard shows them in alphabetical order.
CURVE_GROUP, MORE_CURVES_GROUP = "by batch size", "more by batch size"
SESSION_GROUP, FIGURE_GROUP = "configuration", "figures"


@dataclass(frozen=True, slots=True)
class Quantity:
    """Something to draw: an attribute of a summary times a scale; the unit is in its name."""

    name: str
    attribute: str
    scale: float
    description: str

    def of(self, summary: Summary) -> float | None:
        """The value in the unit of ``name``; None where it was not measured."""
        value = getattr(summary, self.attribute)
        return None if value is None else value * self.scale


_MIB = 1 / 2**20
_QUANTITIES = (
    Quantity("step time (ms)", "step_seconds", 1e3, "One steady micro-step."),
    Quantity("samples per second", "samples_per_second", 1, "Of one device, training steadily."),
    Quantity("peak tensor memory (MiB)", "peak_bytes", _MIB, "Largest sum of live tensors."),
    Quantity(
        "device memory (MiB)",
        "device_bytes",
        _MIB,
        "What the device gave away; on a CPU the process's resident memory.",
    ),
    Quantity("data wait (% of step)", "data_wait_share", 100, "Waiting for the next batch."),
    Quantity("optimizer (% of step)", "update_share", 100, "Spent in the optimizer."),
    Quantity("evaluation pass (s)", "eval_seconds", 1, "One pass over the evaluation data."),
    Quantity("checkpoint save (ms)", "save_seconds", 1e3, "Writing one checkpoint durably."),
)
_METRICS = _QUANTITIES[:4]  # the measured columns of the HParams table


def run_files(
    summaries: Sequence[Summary], predictions: Sequence[ProbedPrediction], text: str
) -> dict[str, bytes]:
    """The event file of each run, by the run's name.

    Args:
        summaries: of the configurations measured; each has a row of the HParams table.
        predictions: of those, beside what was measured; the figures of a workload need some.
        text: predictions for people, in Markdown; empty for none.
    """
    runs: defaultdict[str, list[BoardEntry]] = defaultdict(list)
    runs[TOP_RUN] += _top_entries(summaries, text)
    knobs = shown_knobs(summaries)
    trials = trial_names(summaries)
    for name, members in series_runs(summaries).items():
        runs[name] += _curve_entries(members)
        for summary in members:
            run = f"{name}/batch_size={summary.config.batch_size}"
            runs[run] += _session_entries(summary, knobs, trial=trials[summary_id(summary)])
    for name, chosen in _by_workload(predictions).items():
        runs[name] += _figure_entries(chosen, summaries)
    return {name: events.event_file(entries) for name, entries in runs.items() if entries}


def trial_names(summaries: Sequence[Summary]) -> dict[str, str]:
    """Of each configuration the batch size, then what differs: TensorBoard cuts long names."""
    varying = [name for name, values in shown_knobs(summaries).items() if len(values) > 1]
    names: dict[str, str] = {}
    for summary in summaries:
        knobs = all_knobs(summary)
        parts = [f"{k}={knobs[k]}" for k in reversed(varying) if k in knobs and k != "batch_size"]
        name = " ".join([str(summary.config.batch_size), *parts])
        key = summary_id(summary)
        names[key] = f"{name} {key[:6]}" if name in names.values() else name
    return names


def series_runs(summaries: Sequence[Summary]) -> dict[str, list[Summary]]:
    """Summaries that differ in their batch size alone, by the name of their run, sizes in order."""
    devices = defaultdict(set)
    for summary in summaries:
        devices[summary.workload].add(summary.device.key)
    series: dict[str, list[Summary]] = {}
    owners: dict[str, tuple[str, str, str]] = {}
    for summary in sorted(summaries, key=lambda s: s.config.batch_size):
        owner = (summary.workload, summary.device.key, size_label(summary.config))
        name = _series_name(summary, with_device=len(devices[summary.workload]) > 1)
        if owners.setdefault(name, owner) != owner:  # two labels with the same slug
            name = f"{name}-{summary_id(_at_batch_one(summary))[:6]}"
            owners[name] = owner
        series.setdefault(name, []).append(summary)
    return dict(sorted(series.items()))


def _at_batch_one(summary: Summary) -> Summary:
    """The summary as if its batch size were 1: equal for all members of a series."""
    return replace(summary, config=replace(summary.config, batch_size=1))


def _series_name(summary: Summary, with_device: bool) -> str:
    parts = [slug(summary.workload)]
    if with_device:
        parts.append(slug(summary.device.label))
    size = size_label(summary.config)
    if size:
        parts.append(slug(size))
    return "/".join(parts)


def _by_workload(predictions: Sequence[ProbedPrediction]) -> dict[str, list[ProbedPrediction]]:
    """By the name of the run that shows them; of several devices each has one."""
    several = {w for w, count in Counter(_places(predictions)).items() if count > 1}
    groups: defaultdict[str, list[ProbedPrediction]] = defaultdict(list)
    for p in predictions:
        name = slug(p.workload)
        groups[f"{name}/{slug(p.device.label)}" if p.workload in several else name].append(p)
    return groups


def _places(predictions: Sequence[ProbedPrediction]) -> Iterator[str]:
    """Each workload as often as it has devices."""
    return (workload for workload, _ in {(p.workload, p.device.key) for p in predictions})


def _top_entries(summaries: Sequence[Summary], markdown: str) -> Iterator[BoardEntry]:
    if summaries:
        columns = {f"{SESSION_GROUP}/{metric.name}": metric.name for metric in _METRICS}
        yield events.hparams_experiment(shown_knobs(summaries), columns)
    if markdown:
        yield events.text("prediction", markdown)


def _curve_entries(members: Sequence[Summary]) -> Iterator[BoardEntry]:
    """The curves of one series, its summaries in the order of their batch sizes."""
    for quantity in _QUANTITIES:
        group = CURVE_GROUP if quantity in _METRICS else MORE_CURVES_GROUP
        description = f"{quantity.description} The step axis is the **batch size**."
        for summary in members:
            value = quantity.of(summary)
            if value is not None:
                step = summary.config.batch_size
                yield events.scalar(f"{group}/{quantity.name}", value, step, description)


def _session_entries(
    summary: Summary, shown: Mapping[str, Sequence[SizeValue]], trial: str
) -> Iterator[BoardEntry]:
    knobs = {
        name: _as_type_of(shown[name], value)
        for name, value in all_knobs(summary).items()
        if name in shown
    }
    yield from events.hparams_session(knobs, trial, summary.status == "ok")
    for metric in _METRICS:
        value = metric.of(summary)
        if value is not None:
            tag = f"{SESSION_GROUP}/{metric.name}"
            yield events.scalar(tag, value, summary.config.batch_size, metric.description)


def all_knobs(summary: Summary) -> dict[str, SizeValue]:
    """Everything in which one configuration differs from others, by name."""
    knobs: dict[str, SizeValue] = {"workload": summary.workload, "device": summary.device.label}
    config = summary.config
    knobs |= {f.name: config.setting(f.name) for f in fields(RunConfig) if f.name != "sizes"}
    return knobs | dict(config.sizes)


def shown_knobs(summaries: Sequence[Summary]) -> dict[str, list[SizeValue]]:
    """The columns of the HParams table with the values that occur, in order.

    Batch size and model sizes always; the rest where configurations differ. A column has one
    type: where numbers and texts meet, all are texts.
    """
    values: defaultdict[str, set[SizeValue]] = defaultdict(set)
    for summary in summaries:
        for name, value in all_knobs(summary).items():
            values[name].add(value)
    always = {"batch_size"} | {name for s in summaries for name, _ in s.config.sizes}
    return {
        name: _of_one_type(found)
        for name, found in values.items()
        if name in always or len(found) > 1
    }


def _of_one_type(values: set[SizeValue]) -> list[SizeValue]:
    kinds = {type(value) for value in values}
    if len(kinds) == 1:
        return sorted(values)
    if kinds == {int, float}:
        return sorted(float(value) for value in values)
    return sorted({str(value) for value in values})


def _as_type_of(column: Sequence[SizeValue], value: SizeValue) -> SizeValue:
    return str(value) if isinstance(column[0], str) else value


def _figure_entries(
    predictions: Sequence[ProbedPrediction], summaries: Sequence[Summary]
) -> Iterator[BoardEntry]:
    """The figures of one workload on one device."""
    here = (predictions[0].workload, predictions[0].device.key)
    mine = [s for s in summaries if (s.workload, s.device.key) == here]
    for picture in probed_pictures(mine, predictions):
        yield events.image(f"{FIGURE_GROUP}/{picture.name}", png(picture.draw()), picture.caption)
