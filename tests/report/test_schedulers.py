"""What a scheduler is asked for: golden files, and the numbers that they must agree with."""

from __future__ import annotations

import json
import os
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

import epochcast as ec
from epochcast.records import Measurement, Plan, Warning_
from epochcast.report.schedulers import EMITTED, job_of

GOLDEN = Path(__file__).parent / "schedulers"
SUFFIX = {"slurm": "sh", "skypilot": "yaml", "kubernetes": "yaml", "json": "json"}


@pytest.fixture(scope="module")
def plan() -> Plan:
    runs = [
        Measurement.from_epochs(
            "net",
            32,
            step_seconds=[0.1 + 0.001 * run] * 20,
            save_seconds=[2.0, 2.1],
            samples=64_000,
            device="NVIDIA A100-SXM4-80GB",
            device_bytes=30 * 2**30,
            config={"world_size": 4},
            run=run,
            created_at="2026-11-01T00:00:00+00:00",
        )
        for run in range(3)
    ]
    return ec.plan(ec.fit(runs), ec.Budget(deadline=8 * 3600), epochs=90)


@pytest.mark.parametrize(
    ("device", "name"),
    [
        ("NVIDIA A100-SXM4-80GB", "A100"),
        ("NVIDIA H100 80GB HBM3", "H100"),
        ("Tesla T4", "T4"),
        ("NVIDIA GeForce RTX 4090", "RTX4090"),
        ("rtx-pro-6000", "rtxpro6000"),  # the case does not matter there
        ("a100-40gb", "a100"),
    ],
)
def test_devices_have_the_names_of_skypilot(plan: Plan, device: str, name: str) -> None:
    job = replace(job_of(plan, "plan.json"), accelerator=device)
    assert f'accelerators: "{name}:4"' in EMITTED["skypilot"](job)


@pytest.mark.parametrize(
    ("target", "script"),
    [
        ("net.py", "net.py"),  # a script
        ("my nets/net.py:workload", "'my nets/net.py'"),
        ("mnist-mlp", "train.py"),  # a file of the user's own, whatever it is called
        ("package.net:workload", "train.py"),
    ],
)
def test_the_script_is_the_file_that_was_measured(plan: Plan, target: str, script: str) -> None:
    command = job_of(replace(plan, target=target), "plan.json").command
    assert command.endswith(f"--nproc-per-node 4 {script}")


def test_what_was_not_measured_is_not_said_to_be(plan: Plan) -> None:
    found = replace(plan, warnings=(Warning_(code="transferred"),))
    said = {name: emitted(job_of(found, "plan.json")) for name, emitted in EMITTED.items()}
    assert "foretold from another device" in said["slurm"]
    assert not any("measured on" in text for text in said.values())


def spread(plan: Plan) -> Plan:
    """The same on two machines."""
    chosen = plan.chosen
    config = replace(chosen.config, world_size=16, nodes=2)
    return replace(plan, options=(replace(chosen, config=config), *plan.options[1:]))


@pytest.mark.parametrize("nodes", [1, 2])
@pytest.mark.parametrize("name", EMITTED)
def test_it_is_as_it_was_last_looked_at(plan: Plan, name: str, nodes: int) -> None:
    """``UPDATE_GOLDEN=1 pytest …`` writes them anew, to be read as a diff."""
    found = EMITTED[name](job_of(plan if nodes == 1 else spread(plan), "plan.json"))
    golden = GOLDEN / f"{name}-{nodes}.{SUFFIX[name]}"
    if os.environ.get("UPDATE_GOLDEN"):
        golden.write_text(found)
    assert found == golden.read_text()


def test_the_limit_holds_the_run_and_its_last_save(plan: Plan) -> None:
    job = job_of(plan, "plan.json")
    needed = plan.chosen.seconds.p95 + plan.final_save_seconds
    assert needed < job.seconds < needed + 120
    assert job.seconds % 60 == 0
    assert job.notice_seconds > plan.final_save_seconds
    assert json.loads(EMITTED["json"](job))["seconds"] == job.seconds


@pytest.mark.parametrize("nodes", [1, 2])
def test_a_shell_can_read_it(plan: Plan, nodes: int) -> None:
    odd = replace(plan if nodes == 1 else spread(plan), workload="my 'net'")
    odd = replace(odd, device=replace(plan.device, name="A100\ntouch /tmp/harm"))
    script = EMITTED["slurm"](job_of(odd, "my plan's.json"))
    subprocess.run(["bash", "-n"], input=script, text=True, check=True)
    assert "\ntouch" not in script
    assert "--job-name=my-net\n" in script


def test_a_cpu_is_asked_for_by_its_memory(plan: Plan) -> None:
    device = replace(plan.device, kind="cpu", name="Xeon")
    script = EMITTED["slurm"](job_of(replace(plan, device=device), "plan.json"))
    assert "--gpus" not in script
    assert "#SBATCH --mem=" in script
