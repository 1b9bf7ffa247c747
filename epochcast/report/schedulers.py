"""What a plan asks of a scheduler: SLURM, SkyPilot, Kubernetes, or as numbers.

    Plan ──▶ Job: devices, nodes, seconds, notice, memory ──▶ sbatch script │ YAML │ JSON

The time limit is the P95 of the whole run and the last save's reserve; the notice before it is that
reserve and what ending takes. Every number has the line it comes from beside it, because a header
is edited by people.
"""

from __future__ import annotations

import json
import re
import shlex
import textwrap
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from math import ceil

from epochcast.records import Plan
from epochcast.units import format_bytes, format_seconds

MINUTE = 60
ENDING_SECONDS = 60  # a process ends after its save; SLURM may signal up to 60 s early, too
SCRIPT = "train.py"
PORT = 29500  # torchrun's own


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """What is asked for.

    Attributes:
        measured: whether probes of that device are what is told, not of another one.
        seconds: the time limit, whole minutes.
        notice_seconds: before that, when the run is told to save and leave.
        memory_bytes: of the host, P95; None where the plan knows only a GPU's.
        device_bytes: of each device, P95; None where it is not known.
    """

    name: str
    nodes: int
    devices_per_node: int
    is_gpu: bool
    accelerator: str
    measured: bool
    seconds: int
    notice_seconds: int
    memory_bytes: int | None
    device_bytes: int | None
    time_from: str
    notice_from: str
    command: str


def job_of(plan: Plan, path: str) -> Job:
    """The job of a plan's chosen configuration.

    Args:
        plan: the whole of it, all folds in one job.
        path: of the plan's file, from which the run follows it.
    """
    chosen, reserve = plan.chosen, plan.final_save_seconds
    devices, nodes = chosen.config.world_size, chosen.config.nodes
    needed = ceil(chosen.device_bytes.p95) if chosen.device_bytes else None
    on_gpu = plan.device.kind == "cuda"
    each = -(-devices // nodes)
    notice = ceil(reserve) + ENDING_SECONDS
    saving = f"the last save's reserve, {format_seconds(reserve)}, and a minute to end"
    if not reserve:
        saving = "a minute to end; no save was measured, so give it what one takes"
    total = chosen.seconds.p95 + reserve + ENDING_SECONDS
    return Job(
        name=re.sub(r"[^\w.-]+", "-", plan.workload, flags=re.ASCII).strip("-.") or "train",
        nodes=nodes,
        devices_per_node=each,
        is_gpu=on_gpu,
        accelerator=" ".join(re.sub(r"[^\x20-\x7e]", " ", plan.device.name).split()),
        measured=all(warning.code != "transferred" for warning in plan.warnings),
        seconds=MINUTE * ceil(total / MINUTE),
        notice_seconds=notice,
        memory_bytes=None if on_gpu else needed,
        device_bytes=needed if on_gpu else None,
        time_from=f"P95 of the run, {format_seconds(chosen.seconds.p95)}, and {saving}",
        notice_from=saving,
        command=_command(path, _script(plan.target), devices, nodes, each),
    )


def _script(target: str) -> str:
    """The file that was measured, or that has what was; else one to be put in its place."""
    file = target.rpartition(":")[0] or target
    return shlex.quote(file) if file.endswith(".py") else SCRIPT


def _command(path: str, script: str, devices: int, nodes: int, each: int) -> str:
    launch = f"python {script}"
    if devices > 1:
        where = "--standalone" if nodes == 1 else f'--nnodes {nodes} --rdzv-endpoint "$HEAD:{PORT}"'
        backend = "" if nodes == 1 else "--rdzv-backend c10d "
        launch = f"torchrun {where} {backend}--nproc-per-node {each} {script}"
    return f"epochcast run {shlex.quote(path)} -- {launch}"


def slurm(job: Job) -> str:
    """An sbatch script; the same command goes on where an earlier allocation stopped."""
    minutes = job.seconds // MINUTE
    clock = f"{minutes // 1440}-{minutes // 60 % 24:02}:{minutes % 60:02}:00"
    target = "" if job.nodes > 1 else "B:"  # srun's steps are told, else the one process there is
    lines = ["#!/bin/bash", f"#SBATCH --job-name={job.name}"]
    lines += [f"#SBATCH --time={clock}", *_comment(job.time_from)]
    lines += [f"#SBATCH --signal={target}TERM@{job.notice_seconds}", *_comment(job.notice_from)]
    lines += ["#SBATCH --requeue --open-mode=append", f"#SBATCH --nodes={job.nodes}"]
    lines += ["#SBATCH --ntasks-per-node=1"]
    if job.is_gpu:
        lines.append(f"#SBATCH --gpus-per-node={job.devices_per_node}")
    if job.memory_bytes:
        lines += [f"#SBATCH --mem={ceil(job.memory_bytes / 2**20) * job.devices_per_node}M"]
        lines += _comment(f"P95 of a process, {format_bytes(job.memory_bytes)}, of each of a node")
    lines += [*_comment(_measured_on(job), "# "), ""]
    if job.nodes > 1:
        lines += ['export HEAD=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)']
    start = "exec srun bash -c" if job.nodes > 1 else "exec"
    command = shlex.quote(job.command) if job.nodes > 1 else job.command
    return "\n".join([*lines, f"{start} {command}"]) + "\n"


def _comment(text: str, before: str = "#   ") -> list[str]:
    return textwrap.wrap(text, 80, initial_indent=before, subsequent_indent=before)


def _measured_on(job: Job) -> str:
    needs = "what it needs of it is not known"
    if job.device_bytes:
        needs = f"of whose memory it needs {format_bytes(job.device_bytes)} (P95)"
    how = "measured on" if job.measured else "foretold from another device for"
    return f"{how} {job.accelerator}" + (f", {needs}" if job.is_gpu else "")


def _accelerator(device: str) -> str:
    """As SkyPilot calls it: ``A100``, ``RTX4090``, ``RTXPRO6000``."""
    name = re.sub(r"^(NVIDIA|Tesla|GeForce|Quadro) ", "", device.removeprefix("NVIDIA "))
    name = re.sub(r"[ -](SXM\d*|PCIe|NVL|HBM\d*|\d+GB)\b.*", "", name, flags=re.IGNORECASE)
    return re.sub(r"[ -]", "", name) if name.lower().startswith("rtx") else name.split()[0]


def skypilot(job: Job) -> str:
    """A SkyPilot task."""
    lines = [f"name: {json.dumps(job.name)}", f"num_nodes: {job.nodes}"]
    lines += _comment(_measured_on(job), "# ")
    if job.is_gpu:
        name = _accelerator(job.accelerator)
        lines += ["resources:", f"  accelerators: {json.dumps(f'{name}:{job.devices_per_node}')}"]
    if job.memory_bytes:
        least = ceil(job.memory_bytes * job.devices_per_node / 2**30)
        lines += ["resources:", f"  memory: {least}+  # GiB, P95 of a node's processes"]
    lines += ["run: |"]
    if job.nodes > 1:
        lines.append('  export HEAD=$(echo "$SKYPILOT_NODE_IPS" | head -n 1)')
    limit = f"timeout --signal=TERM --kill-after={job.notice_seconds}"
    lines += [*_comment(job.time_from, "  # "), f"  {limit} {job.seconds} {job.command}"]
    return "\n".join(lines) + "\n"


def kubernetes(job: Job) -> str:
    """A Job of one node; put your image and a volume for the run's folder in."""
    resources = []
    if job.is_gpu:
        resources.append(f"              nvidia.com/gpu: {job.devices_per_node}")
    if job.memory_bytes:
        resources.append(
            f"              memory: {ceil(job.memory_bytes / 2**20) * job.devices_per_node}Mi"
        )
    many = [] if job.nodes == 1 else [f"# {job.nodes} nodes: one such Job on each, with HEAD set"]
    lines = [
        *many,
        "apiVersion: batch/v1",
        "kind: Job",
        "metadata:",
        f"  name: {json.dumps(job.name.lower().replace('_', '-').replace('.', '-'))}",
        "spec:",
        *_comment(job.time_from, "  # "),
        f"  activeDeadlineSeconds: {job.seconds}",
        "  backoffLimit: 10  # the same command goes on where it stopped",
        "  template:",
        "    spec:",
        "      restartPolicy: OnFailure",
        *_comment(job.notice_from, "      # "),
        f"      terminationGracePeriodSeconds: {job.notice_seconds}",
        "      containers:",
        "        - name: train",
        "          image: IMAGE",
        f'          command: ["bash", "-c", {json.dumps("exec " + job.command)}]',
        *_comment(_measured_on(job), "          # "),
        *(["          resources:", "            limits:", *resources] if resources else []),
    ]
    return "\n".join(lines) + "\n"


def as_json(job: Job) -> str:
    """The numbers, and where they come from."""
    return json.dumps(asdict(job), indent=2) + "\n"


EMITTED: Mapping[str, Callable[[Job], str]] = {
    "slurm": slurm,
    "skypilot": skypilot,
    "kubernetes": kubernetes,
    "json": as_json,
}
