"""Trials of a script on the nodes of a cluster: its folder is sent there, and each has a copy.

    ScriptSweep ── TrialCall ──▶ RemoteTrials ── ScriptOrder as JSON ──▶ do_trial, in Ray there
                ◀── Outcome ── log, trace, ScriptDone as JSON ◀──── run_trial, in a copy

What the script writes goes with its copy; what it writes elsewhere is put back as on this machine.
"""

from __future__ import annotations

import base64
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from functools import partial
from pathlib import Path

from epochcast.profiler.cluster import ClusterRequest, NodePool, Ran, Shipment, connected
from epochcast.profiler.protocol import WorkloadSpec
from epochcast.profiler.remote import (
    DESCRIBED,
    at_once,
    encoded,
    end_of,
    keep_log,
    made_again,
    pools_of,
)
from epochcast.profiler.rounds import Observer, Rounds, SilentObserver, SweepEnding, SweepResult
from epochcast.profiler.rounds import SweepStore as Store
from epochcast.records import Device, Measurement, from_json, to_json
from epochcast.scripts.command import Template
from epochcast.scripts.request import Isolation, ScriptRequest, ScriptSpec
from epochcast.scripts.side_effects import Undone
from epochcast.scripts.sweep import TrialCall, sweep_script
from epochcast.scripts.trial import Outcome, run_trial


@dataclass(frozen=True, kw_only=True)
class ScriptOrder:
    """A trial for a node; the fields as of ``ScriptRequest`` and ``run_trial``."""

    template: Template
    values: tuple[tuple[str, str], ...]
    epochs: int
    pass_seconds: float
    timeout_seconds: float
    steps_per_epoch: int | None
    samples: int | None
    isolation: Isolation
    round: int
    traces: bool
    device: Device | None


@dataclass(frozen=True, kw_only=True)
class ScriptDone:
    """What a node answers; ``log`` and ``trace`` as in ``profiler/remote.py``."""

    outcome: Outcome
    log: str
    trace: str = ""


def do_trial(document: str) -> str:
    """Make a trial on this node; a ``ScriptOrder`` in, a ``ScriptDone`` out."""
    order = from_json(document, ScriptOrder)
    with tempfile.TemporaryDirectory(prefix="epochcast-") as place:
        folder, log, trace = (Path(place, name) for name in ("folder", "log", "trace.json.gz"))
        shutil.copytree(".", folder, symlinks=True)
        request = ScriptRequest(
            template=order.template,
            choices={name: [value] for name, value in order.values},
            folder=folder,
            epochs=order.epochs,
            pass_seconds=order.pass_seconds,
            timeout_seconds=order.timeout_seconds,
            steps_per_epoch=order.steps_per_epoch,
            samples=order.samples,
            isolation=order.isolation,
        )
        outcome = run_trial(
            request,
            request.specs[0],
            round_=order.round,
            folder=Path(place),
            log=log,
            device=order.device,
            trace=trace if order.traces else None,
        )
        written = encoded(trace) if outcome.traced else ""
        return to_json(ScriptDone(outcome=outcome, log=end_of(log), trace=written))


class RemoteTrials:
    """Makes trials on nodes of a cluster, as many at once as these have devices.

    Args:
        pool: the nodes.
        device: that they have.
    """

    def __init__(self, pool: NodePool, device: Device) -> None:
        self.pool = pool
        self.device = device

    def outcomes(
        self,
        request: ScriptRequest,
        calls: Iterable[TrialCall],
        report: Callable[[ScriptSpec, str], None],
    ) -> Iterator[tuple[TrialCall, Outcome]]:
        """What came of each, as they end.

        Args:
            request, calls, report: as of ``Elsewhere``; what is reported is the node.
        """
        jobs = ((call, _order(request, call)) for call in calls)
        ran = self.pool.run_each(
            do_trial, jobs, begun=lambda call, node: report(call.spec, f"on {node}")
        )
        return ((call, self._outcome(request, call, of_it)) for call, of_it in ran)

    def _outcome(self, request: ScriptRequest, call: TrialCall, ran: Ran) -> Outcome:
        if ran.document is None:
            return Outcome(
                measurement=self._lost(request, call, ran), is_finding=True, undone=Undone()
            )
        done = from_json(ran.document, ScriptDone)
        keep_log(call.log, done.log, ran)
        if call.trace is not None and done.trace:
            call.trace.write_bytes(base64.b64decode(done.trace))
        m = done.outcome.measurement
        here = replace(
            m,
            request=call.spec.request,
            log=str(call.log),
            node=ran.node,
            warnings=(*m.warnings, *made_again(ran)),
        )
        return replace(done.outcome, measurement=here)

    def _lost(self, request: ScriptRequest, call: TrialCall, ran: Ran) -> Measurement:
        return Measurement(
            workload=request.target,
            request=call.spec.request,
            config=call.spec.config,
            device=self.device,
            status="oom" if ran.out_of_memory else "crashed",
            message=f"lost {len(ran.lost)} times, last on {ran.lost[-1]}",
            round=call.round,
            samples=0,
            node=ran.node,
            created_at=datetime.now(timezone.utc).isoformat(timespec="microseconds"),
        )


def _order(request: ScriptRequest, call: TrialCall) -> str:
    return to_json(
        ScriptOrder(
            template=request.template,
            values=call.spec.values,
            epochs=request.epochs,
            pass_seconds=request.pass_seconds,
            timeout_seconds=request.timeout_seconds,
            steps_per_epoch=request.steps_per_epoch,
            samples=request.samples,
            isolation=request.isolation,
            round=call.round,
            traces=call.trace is not None,
            device=call.device,
        )
    )


def sweep_script_on(
    on: ClusterRequest,
    request: ScriptRequest,
    store: Store,
    observer: Observer | None = None,
    *,
    rounds: Callable[[Rounds[ScriptSpec]], SweepEnding],
) -> SweepResult:
    """Probe a script on a cluster. Killed at any moment, the same request continues.

    Args:
        on: which cluster, and what each trial holds there.
        request: what to measure; its folder is sent to the nodes.
        store: where measurements go, as they come.
        observer: receives the progress of the sweep.
        rounds: makes the trials and says why it stopped.

    Raises:
        UsageError: no node has what trials need.
        ScriptFailed: the command does not train, or cannot be watched; nothing was stored.
        StoreError: the store cannot be written; what was stored before is safe.
        EpochcastError: the cluster cannot be used, or all of it has gone.
    """
    observer = observer or SilentObserver()
    with connected(on, Shipment(folder=request.folder)) as cluster:
        before = [m.device.key for m in store.measurements(request.called)]
        spec = WorkloadSpec(target=DESCRIBED, device="auto")
        pools = pools_of(cluster, spec, request.timeout_seconds, before, observer)
        sweeps = [
            partial(sweep_script, request, rounds=rounds, elsewhere=RemoteTrials(pool, it.device))
            for pool, it in pools
        ]
        return at_once(cluster, sweeps, store, observer)
