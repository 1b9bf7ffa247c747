"""A page to hand on, about a plan or about what was asked of a store last."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from epochcast.errors import UsageError

if TYPE_CHECKING:
    from epochcast.records import Plan
    from epochcast.report.html.contents import Contents


def write_report(
    path: str | Path = "report.html",
    plan: Plan | str | Path | None = None,
    *,
    workload: str | None = None,
    device: str | None = None,
    log: str | Path | None = None,
    store: str | None = None,
) -> Path:
    """Write one page for whoever pays or reviews: the answer, and what it rests on.

    Args:
        path: of the page: one file, which loads nothing.
        plan: what it is about, or the plan's file; default: what was asked of the store last.
        workload: what it is about without a plan; default: the one asked about last.
        device: an id, a kind (``"cuda"``), or words of a name; default: likewise.
        log: of a run, which is shown beside its prediction.
        store: path or URL of the store; default ``.epochcast/`` in the working directory.

    Returns:
        The path of the page.

    Raises:
        UsageError: the log is of another workload, or a plan and a workload are given.
        StoreError: the store, the plan or the log cannot be read.
    """
    from epochcast.report.html import page

    page.write_report(read_contents(plan, workload, device, log, store), path)
    return Path(path)


def read_contents(
    plan: Plan | str | Path | None,
    workload: str | None,
    device: str | None,
    log: str | Path | None,
    store: str | None,
) -> Contents:
    """What the page says.

    Args:
        plan, workload, device, log, store: as of ``write_report``.

    Raises:
        UsageError: the log is of another workload, or a plan and a workload are given.
        StoreError: the store, the plan or the log cannot be read.
    """
    from epochcast.guard.log import read_log
    from epochcast.records import Plan, RunStarted
    from epochcast.report.html.contents import contents_of_plan, contents_of_store
    from epochcast.storage.store import Store

    if plan is not None and (workload or device):
        raise UsageError("a plan says which workload and device it is of; leave them out")
    events = () if log is None else read_log(log)
    with Store.open(store, create=False if plan is None else "late") as opened:
        if plan is None:
            contents = contents_of_store(opened, workload, device, events)
        else:
            about = plan if isinstance(plan, Plan) else Plan.load(plan)
            contents = contents_of_plan(about, opened, events)
    ran = {event.workload for event in events if isinstance(event, RunStarted)}
    if ran - {contents.workload}:
        raise UsageError(f"{log} is of {ran.pop()}, but the page is about {contents.workload}")
    return contents
