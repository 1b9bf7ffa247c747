"""Names of TensorBoard runs: folders below the log folder, readable in TensorBoard's run list.

    mnist-mlp                          figures and tables of a workload
    mnist-mlp/width=512                curves over the batch size, one run per model size
    mnist-mlp/width=512/batch_size=64  one configuration: a row of the HParams table

A workload measured on several devices has the device's label between its name and the size.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace

from epochcast.records import RunConfig, Summary
from epochcast.report.tensorboard.index import summary_id

_LONGEST = 120  # characters of one folder's name; file systems allow 255 bytes


def slug(text: str) -> str:
    """A text as the name of one folder: no separators, nothing that a file system refuses."""
    safe = re.sub(r"[^\w.,=+() -]+", "-", text, flags=re.ASCII).strip(" .-")
    return safe[:_LONGEST].rstrip(" .") or "unnamed"


def size_label(config: RunConfig) -> str:
    """All of a configuration but its batch size: ``"width=512"``; empty if nothing else is set."""
    return replace(config, batch_size=1).label.removeprefix("batch_size=1").strip()


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


def session_run(series: str, config: RunConfig) -> str:
    """The run of one configuration of a series."""
    return f"{series}/batch_size={config.batch_size}"
