"""A sweep whose tasks are done on the nodes of a cluster, each in a worker process of its own.

    sweep ── Task ──▶ RemoteWorkers ── Order as JSON ──▶ do_task, in a Ray worker on a node
                                                              │  starts a WorkerProcess, asks it
          ◀── Answer ── log, trace, NodeAnswer as JSON ◀────────────┘
    several kinds of device: a sweep of each, all under way at once, into one store

The answers of a node are as those of this machine, but for where they were made.
"""

from __future__ import annotations

import base64
import sysconfig
import tempfile
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, cast

from epochcast.errors import EpochcastError, UsageError, WorkloadError, named
from epochcast.profiler.cluster import (
    Cluster,
    ClusterRequest,
    Node,
    NodePool,
    Ran,
    Shipment,
    connected,
)
from epochcast.profiler.process import WorkerDied, Workers, WorkerTimeout
from epochcast.profiler.protocol import (
    AUTO,
    Answer,
    Description,
    Reply,
    Task,
    TrialSpec,
    WorkloadSpec,
)
from epochcast.profiler.request import SweepRequest
from epochcast.profiler.rounds import Observer, SilentObserver, SweepResult, SweepStore
from epochcast.profiler.sweep import Sweep, sweep
from epochcast.profiler.target import module_files
from epochcast.records import Measurement, Status, Warning_, from_json, to_json
from epochcast.units import format_seconds

LOG_BYTES = 1 << 20  # of the end of a log, which come back from a node
ENDED_FROM_OUTSIDE = (-9, -15)  # SIGKILL, not for want of memory, and SIGTERM
DESCRIBED = "mnist-mlp"  # a workload that every node has, to ask what its device is


@dataclass(frozen=True, kw_only=True)
class Order:
    """A task for a node, and how many seconds it may take."""

    task: Task
    timeout: float


@dataclass(frozen=True, kw_only=True)
class NodeAnswer:
    """What a node answers.

    Attributes:
        answer: to the task.
        log: the end of what the worker printed.
        trace: the file that was written, in base64; empty without one.
    """

    answer: Answer
    log: str = ""
    trace: str = ""


def do_task(document: str) -> str:
    """Do a task on this node, in a worker process; an ``Order`` in, a ``NodeAnswer`` out."""
    order = from_json(document, Order)
    with tempfile.TemporaryDirectory(prefix="epochcast-") as folder:
        files = Path(folder, "files")
        files.mkdir()
        task = replace(order.task, folder=str(files))
        here = Workers(Path(folder))
        (answer,) = here.ask_each("task", [task], order.timeout, lambda task, phase: None)
        log = Path(answer.task.log)
        traced = answer.reply is not None and answer.reply.kind == "traced"
        trace = Path(answer.reply.text) if traced and answer.reply else None
        return to_json(
            NodeAnswer(answer=answer, log=end_of(log), trace=encoded(trace) if trace else "")
        )


def end_of(log: Path) -> str:
    """The end of a log, which may be long."""
    if not log.is_file():
        return ""
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - LOG_BYTES))
        return file.read().decode("utf-8", "replace")


def encoded(file: Path) -> str:
    """The bytes of a file, as text."""
    return base64.b64encode(file.read_bytes()).decode("ascii")


# -- the sweep's side -----------------------------------------------------------------------------


class RemoteWorkers(Workers):
    """Does tasks on nodes of a cluster, as many at once as these have devices.

    Args:
        pool: the nodes.
        target: the workload, as nodes find it.
        known: what one of them says of it.
    """

    def __init__(self, pool: NodePool, target: str, known: Description) -> None:
        super().__init__(Path())
        self.pool = pool
        self.target = target
        self.known = known

    def ask_each(
        self,
        name: str,
        tasks: Iterable[Task | None],
        timeout: float,
        on_phase: Callable[[Task, str], None],
    ) -> Iterator[Answer]:
        """Do tasks, each in a process of its own; answers come as they end.

        Args:
            name, tasks, timeout, on_phase: as of ``Workers``; the one phase that is told of is the
                node.
        """

        def jobs() -> Iterator[tuple[Task, str] | None]:
            for task in tasks:
                yield None if task is None else self._job(task, self.new_log(name), timeout)

        ran = self.pool.run_each(
            do_task,
            jobs(),
            begun=lambda task, node: on_phase(task, f"on {node}"),
            lost=_why_lost,
        )
        return (self.answer(task, of_it) for task, of_it in ran)

    def start(self, name: str) -> RemoteWorker:
        """A worker that asks a node, and waits; ``name`` is what it is for."""
        return RemoteWorker(self, self.new_log(name))

    def _job(self, task: Task, log: Path, timeout: float) -> tuple[Task, str]:
        log.touch()
        spec = task.spec
        there = replace(spec, workload=replace(spec.workload, target=self.target))
        order = Order(task=replace(task, spec=there), timeout=timeout)
        return replace(task, log=str(log)), to_json(order)

    def ask(self, task: Task, log: Path, timeout: float) -> Answer:
        """Do one task.

        Args:
            task: what to do.
            log: takes what the node's worker prints.
            timeout: seconds for it.
        """
        job = self._job(task, log, timeout)
        ((told, ran),) = self.pool.run_each(do_task, [job], lost=_why_lost)
        return self.answer(told, ran)

    def answer(self, task: Task, ran: Ran) -> Answer:
        """What came back from a node, in the words and the files of this machine."""
        if ran.document is None:
            why = f"lost {len(ran.lost)} times, last on {ran.lost[-1]}"
            status: Status = "oom" if ran.out_of_memory else "crashed"
            return Answer(task=task, status=status, message=why, node=ran.node)
        done = from_json(ran.document, NodeAnswer)
        keep_log(Path(task.log), done.log, ran)
        reply = done.answer.reply
        if reply is not None and reply.measured is not None:
            reply = replace(reply, measured=_as_here(reply.measured, task, ran))
        if reply is not None and reply.kind == "traced":
            file = Path(task.folder, Path(reply.text).name)
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(base64.b64decode(done.trace))
            reply = replace(reply, text=str(file))
        return replace(done.answer, task=task, reply=reply, node=ran.node)


class RemoteWorker:
    """Asks a node one task at a time, each in a fresh process there.

    Args:
        workers: that it is one of.
        log: takes what is printed there.
    """

    def __init__(self, workers: RemoteWorkers, log: Path) -> None:
        self.log = log
        self._workers = workers

    def __enter__(self) -> RemoteWorker:
        return self

    def __exit__(self, *_: object) -> None:
        return

    def ask(
        self, task: Task, timeout: float, on_phase: Callable[[str], None] = lambda phase: None
    ) -> Reply:
        """As ``WorkerProcess.ask``, without phases.

        Args:
            task, timeout, on_phase: as there.

        Raises:
            WorkerTimeout: no answer in time.
            WorkerDied: the process ended first.
            EpochcastError: the worker says that the task cannot be done.
        """
        if task.kind == "describe":
            return Reply(kind="described", described=self._workers.known)
        answer = self._workers.ask(task, self.log, timeout)
        if answer.error:
            raise named(answer.error)(answer.message)
        if answer.status == "timeout":
            raise WorkerTimeout
        if answer.reply is None:
            raise WorkerDied(answer.exit_code or -9)
        return answer.reply


def _why_lost(document: str) -> str:
    """A worker process that something outside has ended says nothing of the configuration."""
    answer = from_json(document, NodeAnswer).answer
    outside = answer.status == "crashed" and answer.exit_code in ENDED_FROM_OUTSIDE
    return answer.message if outside else ""


def _as_here(m: Measurement, task: Task, ran: Ran) -> Measurement:
    return replace(
        m,
        workload=task.spec.workload.target,
        target=task.spec.workload.target,
        request=task.spec.request,
        log=task.log,
        node=ran.node,
        warnings=(*m.warnings, *made_again(ran)),
    )


def made_again(ran: Ran) -> list[Warning_]:
    """That attempts were lost before this one."""
    if not ran.lost:
        return []
    details = (("count", str(len(ran.lost))), ("lost", "; ".join(ran.lost)), ("node", ran.node))
    return [Warning_(code="made-again", details=details)]


def keep_log(log: Path, text: str, ran: Ran) -> None:
    """Write what a node's worker printed, below where it ran and what was lost.

    Args:
        log: to write.
        text: that was printed.
        ran: how it went.
    """
    head = [f"epochcast: lost on {why}" for why in ran.lost] + [f"epochcast: on node {ran.node}"]
    log.write_text("\n".join([*head, text]), encoding="utf-8")


# -- what is sent, and where to -------------------------------------------------------------------


def shipment_of(target: str) -> tuple[Shipment, str]:
    """What nodes need to find a workload, and what it is called there.

    A file goes with the working directory where it is below it, else with its own folder; a module
    with the working directory likewise, else alone, and not at all where it is installed.

    Raises:
        UsageError: there is no such file.
    """
    where, _, name = target.rpartition(":")
    here = Path.cwd()
    if not where:
        return Shipment(), target
    if where.endswith(".py"):
        path = Path(where).resolve()
        if not path.is_file():
            raise UsageError(f"there is no file {where}")
        folder = here if path.is_relative_to(here) else path.parent
        return Shipment(folder=folder), f"{path.relative_to(folder).as_posix()}:{name}"
    files = [path.resolve() for path in module_files(where.partition(".")[0])]
    if not files or any(path.is_relative_to(here) for path in files):
        return Shipment(folder=here), target
    if any(path.is_relative_to(sysconfig.get_path("purelib")) for path in files):
        return Shipment(), target
    tops = [path.parent if path.name == "__init__.py" else path for path in files]
    return Shipment(modules=tuple(tops)), target


def pools_of(
    cluster: Cluster, spec: WorkloadSpec, timeout: float, known: Iterable[str], observer: Observer
) -> list[tuple[NodePool, Description]]:
    """Nodes with like devices together: those to use, each with what one of them says.

    Where the cluster has several kinds of device and one is asked for, it is the one that was
    measured before, then the one with most places.

    Args:
        cluster: that has them.
        spec: the workload, as nodes find it.
        timeout: seconds for the slowest node.
        known: keys of devices that were measured before.
        observer: told what is left out.

    Raises:
        UsageError: no node has what trials need.
        EpochcastError: the workload cannot be described, or no node answered.
    """
    nodes = cluster.nodes()
    order = Order(task=Task(kind="describe", spec=TrialSpec(workload=spec)), timeout=timeout)
    said = cluster.ask_all(do_task, to_json(order), nodes, timeout)
    described = {node: description for node, text in said.items() if (description := _said(text))}
    silent = [node.address for node in nodes if node not in described]
    if not described:
        waited = format_seconds(timeout)
        raise EpochcastError(f"no node answered within {waited}: {', '.join(silent)}")
    if silent:
        observer.warn(Warning_(code="nodes-silent", details=(("nodes", ", ".join(silent)),)))
    groups: dict[str, list[Node]] = {}
    for node in nodes:
        if node in described:
            groups.setdefault(described[node].device.key, []).append(node)
    before = set(known)
    ranked = sorted(
        groups.values(),
        key=lambda group: (
            described[group[0]].device.key not in before,
            -sum(node.slots for node in group),
            group[0].address,
        ),
    )
    asked = cluster.request.nodes
    if asked != "each" and len(ranked) > 1:
        labels = [described[group[0]].device.label for group in ranked]
        details = (("device", labels[0]), ("others", ", ".join(labels[1:])))
        observer.warn(Warning_(code="chose-nodes", details=details))
        ranked = ranked[:1]
    return [
        (NodePool(cluster, group, spread=asked == "alike"), described[group[0]]) for group in ranked
    ]


def _said(document: str) -> Description | None:
    """A description; None of a worker that died of it.

    Raises:
        EpochcastError: the workload cannot be described there, and so nowhere.
    """
    answer = from_json(document, NodeAnswer).answer
    if answer.error:
        raise named(answer.error)(answer.message)
    if answer.status == "crashed":
        raise WorkloadError(answer.message)
    return answer.reply.described if answer.reply else None


# -- whole sweeps ---------------------------------------------------------------------------------


def sweep_on(
    on: ClusterRequest,
    request: SweepRequest,
    store: SweepStore,
    observer: Observer | None = None,
    *,
    rounds: Callable[[], Callable[[Sweep], Any]],
) -> SweepResult:
    """Probe what a request asks for on a cluster. Killed at any moment, the same request continues.

    Args:
        on: which cluster, and what each trial holds there.
        request: what to measure.
        store: where measurements go, as they come.
        observer: receives the progress of the sweep.
        rounds: makes what makes the trials of one kind of device.

    Raises:
        UsageError: no such workload, knob or device; no node has what trials need.
        WorkloadError: the workload does not run; nothing was stored.
        StoreError: the store cannot be written; what was stored before is safe.
        EpochcastError: the cluster cannot be used, or all of it has gone.
    """
    if request.is_shared:
        raise UsageError(
            "--world-sizes and --sharding probe several devices of this machine: leave out --on, "
            "or probe a script there: epochcast probe --on … -- torchrun …"
        )
    if request.device.partition(":")[2]:
        raise UsageError(
            f"on a cluster every probe has a device of its own: --device "
            f"{request.device.partition(':')[0]}, but got {request.device}"
        )
    on = _with_gpus(on, request)
    shipment, target = shipment_of(request.target)
    observer = observer or SilentObserver()
    with connected(on, shipment) as cluster:
        spec = replace(request.workload, target=target)
        before = [m.device.key for m in store.measurements(request.called)]
        pools = pools_of(cluster, spec, request.timeout_seconds, before, observer)
        sweeps = [
            partial(
                sweep, request, rounds=rounds(), workers=RemoteWorkers(pool, target, description)
            )
            for pool, description in pools
        ]
        return at_once(cluster, sweeps, store, observer)


def _with_gpus(on: ClusterRequest, request: SweepRequest) -> ClusterRequest:
    """A probe on a CPU holds no GPU, one on CUDA one."""
    if on.gpus is not None or request.device == AUTO:
        return on
    return replace(on, gpus=1 if request.device == "cuda" else 0)


def at_once(
    cluster: Cluster,
    sweeps: Sequence[Callable[[SweepStore, Observer], SweepResult]],
    store: SweepStore,
    observer: Observer,
) -> SweepResult:
    """Sweeps under way at once, into one store: if one fails, all end.

    Args:
        cluster: that they are on.
        sweeps: to make.
        store: takes measurements of all.
        observer: is told of all.
    """
    if len(sweeps) == 1:
        return sweeps[0](store, observer)
    lock = threading.RLock()
    one = cast("SweepStore", _OneAtATime(store, lock))
    told = cast("Observer", _OneAtATime(observer, lock))
    with ThreadPoolExecutor(len(sweeps)) as threads:
        under_way = [threads.submit(make, one, told) for make in sweeps]
        try:
            wait(under_way, return_when=FIRST_EXCEPTION)
        finally:
            if not all(x.done() and x.exception() is None for x in under_way):
                cluster.stopping.set()
        wait(under_way)
        failed = [error for x in under_way if (error := x.exception()) is not None]
        if failed:
            raise min(failed, key=lambda error: str(error).startswith("stopped"))
        return _joined([x.result() for x in under_way])


class _OneAtATime:
    """Another's methods, called by one thread at a time."""

    def __init__(self, inner: object, lock: threading.RLock) -> None:
        self._inner, self._lock = inner, lock

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._inner, name)
        if not callable(found):
            return found

        def call(*args: Any, **named: Any) -> Any:
            with self._lock:
                return found(*args, **named)

        return call


def _joined(results: Sequence[SweepResult]) -> SweepResult:
    """What is true of sweeps that were made at once: the least complete, the widest."""
    endings = [result.stopped for result in results]
    incomplete = [why for why in ("nothing-succeeded", "max-seconds") if why in endings]
    widths = [result.half_width for result in results if result.half_width is not None]
    return SweepResult(
        measurements=tuple(m for result in results for m in result.measurements),
        seconds=max(result.seconds for result in results),
        stopped=(incomplete or endings)[0],
        half_width=max(widths, default=None),
        left_out=tuple(x for result in results for x in result.left_out),
    )
