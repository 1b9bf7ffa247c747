"""The worker process: reads tasks from standard input, answers on standard output, until it ends.

User code runs here and nowhere else. Its prints go to the log (the worker keeps the pipe for
itself), its reads meet an end of file. When the sweep dies, the pipe closes and the worker ends
with it, so that no orphan keeps a GPU.
"""

from __future__ import annotations

import os
import queue
import shutil
import signal
import threading
import traceback
from collections.abc import Callable
from dataclasses import replace
from typing import IO

from epochcast.errors import EpochcastError, UsageError, WorkloadError
from epochcast.profiler.machine import process_age
from epochcast.profiler.protocol import Description, Reply, Task
from epochcast.records import from_json, to_json

# torch and the user's code are imported in run(): their time is part of the start-up measured.


def main(scratch: str) -> None:
    """Serve tasks until standard input ends.

    Args:
        scratch: an empty folder for what this process alone needs; gone when it has ended.
    """
    tasks, answers = _private_pipes()
    inbox: queue.SimpleQueue[str | None] = queue.SimpleQueue()
    threading.Thread(target=_read, args=(tasks, inbox, scratch), daemon=True).start()
    for number, line in enumerate(iter(inbox.get, None)):
        os.environ.update(compilation_caches(os.path.join(scratch, str(number))))
        _serve(from_json(line, Task), answers)
    shutil.rmtree(scratch, ignore_errors=True)


def compilation_caches(folder: str) -> dict[str, str]:
    """Environment variables that put torch.compile's caches on disk into a folder.

    In an empty one, compiling takes as long as in a run that nobody has made before.
    """
    return {
        "TORCHINDUCTOR_CACHE_DIR": os.path.join(folder, "inductor"),
        "TRITON_CACHE_DIR": os.path.join(folder, "triton"),
    }


def _private_pipes() -> tuple[IO[str], IO[str]]:
    """Take the two pipes away from standard input and output; user code gets /dev/null and log."""
    tasks = os.fdopen(os.dup(0), "r", encoding="utf-8")
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.dup2(2, 1)
    return tasks, answers


def _read(tasks: IO[str], inbox: queue.SimpleQueue[str | None], scratch: str) -> None:
    for line in tasks:
        _busy.set()
        inbox.put(line)
    inbox.put(None)
    if _busy.is_set():  # the sweep has died in the middle of a task
        shutil.rmtree(scratch, ignore_errors=True)
        _end()


_busy = threading.Event()


def _end() -> None:
    """End this process, and what the user's code has started: the session is our own."""
    if os.name == "posix" and os.getpgrp() == os.getpid():
        os.killpg(os.getpid(), signal.SIGKILL)
    os.kill(os.getpid(), signal.SIGTERM)


def _serve(task: Task, answers: IO[str]) -> None:
    def send(reply: Reply) -> None:
        answers.write(to_json(reply) + "\n")
        answers.flush()

    try:
        reply = run(task, lambda phase: send(Reply(kind="phase", text=phase)))
    except EpochcastError as error:
        reply = Reply(kind="failed", text=str(error), error=type(error).__name__)
    except Exception as error:  # noqa: BLE001 - reported to the sweep, which decides
        traceback.print_exc()
        reply = Reply(kind="failed", text=f"{type(error).__name__}: {error}")
    _busy.clear()  # before the answer: the next task may follow it at once
    send(reply)


def run(task: Task, report: Callable[[str], None]) -> Reply:
    """Do one task in this process.

    Raises:
        EpochcastError: it cannot be done.
    """
    if task.kind == "describe":
        return Reply(kind="described", described=describe(task))
    from epochcast.profiler.trial import check, run_trial, trace

    if task.kind == "check":
        return Reply(kind="checked", checked=check(task))
    if task.kind == "trace":
        path, communication = trace(task)
        return Reply(kind="traced", text=str(path), communication=communication)
    if task.kind == "noise":
        from epochcast.profiler.noise import measure_noise

        return Reply(kind="noise", noise=measure_noise(task))
    if task.kind == "dry-run":
        return count(task)
    if task.kind == "sequence":
        return follow(task)
    measured = run_trial(task, _startup_seconds(task), report)
    if task.spec.ranks and task.rank == 0 and measured.status == "ok":
        counted = count(task).counted  # of a plain step: the same but for the averaging
        measured = replace(measured, footprint=counted[0].footprint if counted else None)
    return Reply(kind="measured", measured=measured)


def _startup_seconds(task: Task) -> float:
    """From the start of this process until the user's code is loaded, which this sees to."""
    from epochcast.profiler.sharing import opened
    from epochcast.profiler.target import load

    if task.trial == 0:
        opened(task)
        load(task.spec.workload.target)
        _startup.append(process_age())
    return _startup[0] if _startup else 0.0


_startup: list[float] = []


def describe(task: Task) -> Description:
    """What the workload function and the device are, without calling the function."""
    from epochcast.profiler.device import count_devices, fingerprint, open_device
    from epochcast.profiler.target import load, source_of
    from epochcast.profiler.workload import knobs_of

    workload = task.spec.workload
    opened = open_device(workload.device, workload.threads)
    device = fingerprint(opened)
    knobs, takes_data = knobs_of(load(workload.target))
    return Description(
        knobs=knobs,
        takes_data=takes_data,
        source=source_of(workload.target),
        device=device,
        device_count=count_devices(opened),
    )


def count(task: Task) -> Reply:
    """Dry runs of one model; a workload that cannot be traced is an answer, not a failure."""
    from epochcast.profiler.footprint.dry_run import dry_runs

    batch_sizes = task.batch_sizes or (task.spec.batch_size,)
    try:
        counted = dry_runs(task.spec, batch_sizes, timeline=task.timeline)
    except WorkloadError as error:
        traceback.print_exc()
        return Reply(kind="counted", problem=str(error), error=type(error).__name__)
    return Reply(kind="counted", counted=counted)


def follow(task: Task) -> Reply:
    """The allocations of a device; that it cannot be followed is an answer, not a failure.

    Raises:
        UsageError: the task names no device.
    """
    from epochcast.profiler.footprint.cuda.fake_device import NoFakeDevice
    from epochcast.profiler.footprint.cuda.sequence import sequences

    if task.device is None:
        raise UsageError("a sequence of allocations needs a device")
    batch_sizes = task.batch_sizes or (task.spec.batch_size,)
    try:
        made = sequences(task.spec, batch_sizes, task.device, task.source)
    except (WorkloadError, NoFakeDevice) as error:
        traceback.print_exc()
        return Reply(kind="sequenced", problem=str(error), error=type(error).__name__)
    return Reply(kind="sequenced", sequences=made)
