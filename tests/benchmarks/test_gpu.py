"""The command for a GPU: the dry run, the deadline, failures that stay alone, files of a size."""

from __future__ import annotations

import gzip
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from gpu_parts import catalogue, results, snapshots, summary
from gpu_parts.catalogue import PARTS, Part, Scenario
from gpu_parts.launching import Launcher, read_records
from gpu_parts.results import Ended, Recording, fitting, joined, pack, read_folder
from gpu_parts.running import CLOSING_SECONDS, run_parts

ROOT = Path(__file__).resolve().parents[2]
COMMAND = [sys.executable, str(ROOT / "benchmarks" / "gpu.py")]


class Clock:
    """Monotonic seconds that pass only where somebody says so."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


class Imagined:
    """Plays scenarios on a fake clock: each takes the seconds given, or what it is allowed."""

    def __init__(self, clock: Clock, takes: dict[str, float], statuses: dict[str, str]) -> None:
        self.clock, self.takes, self.statuses = clock, takes, statuses
        self.played: list[str] = []

    def __call__(self, part: Part, scenarios: Sequence[Scenario], seconds: float) -> Ended:
        (scenario,) = scenarios
        wanted = self.takes.get(scenario.name, 1.0)
        self.clock.now += min(wanted, seconds)
        self.played.append(scenario.name)
        status = "cut off" if wanted > seconds else self.statuses.get(scenario.name, "ok")
        over = ({"scenario": scenario.name, "kind": "ended", "seconds": wanted},)
        return Ended(
            status=status, seconds=wanted, message="why", records=over if status == "ok" else ()
        )


def part(name: str, share: float, *scenarios: str) -> Part:
    made = tuple(Scenario(name=scenario, seconds=1000.0) for scenario in scenarios)
    return Part(name=name, share=share, module="", needs=(), scenarios=made)


def played(
    tmp_path: Path, parts: Sequence[Part], seconds: float = 110.0, **imagined: Any
) -> tuple[dict[str, str], Imagined]:
    """The status of each scenario, and who played."""
    clock = Clock()
    launch = Imagined(clock, imagined.get("takes", {}), imagined.get("statuses", {}))
    made = Recording(tmp_path, command="x", dry=False)
    run_parts(parts, made, launch, seconds=seconds, clock=clock)
    assert clock.now <= 100.0 + seconds - CLOSING_SECONDS
    scenarios = read_folder(tmp_path).summary["scenarios"]
    return {outcome["scenario"]: outcome["status"] for outcome in scenarios}, launch


# -- time ---------------------------------------------------------------------------------------


def test_shares_are_of_one_whole_and_every_name_is_said_once() -> None:
    assert sum(part.share for part in PARTS) == pytest.approx(1.0)
    for made in PARTS:
        names = [scenario.name for scenario in made.scenarios]
        assert len(set(names)) == len(names)
        assert any(scenario.dry for scenario in made.scenarios)


def test_a_part_is_cut_off_where_its_share_ends_and_the_next_one_has_its_own(tmp_path) -> None:
    parts = [part("a", 0.4, "hangs", "late"), part("b", 0.6, "next")]
    found, launch = played(tmp_path, parts, takes={"hangs": 1000.0, "next": 50.0})
    assert found["hangs"] == "cut off"
    assert found["next"] == "ok"
    assert launch.played == ["hangs", "next", "late"]  # what had no time is tried at the end


def test_what_a_part_leaves_goes_to_the_next(tmp_path) -> None:
    parts = [part("a", 0.5, "short"), part("b", 0.5, "long")]
    found, _ = played(tmp_path, parts, takes={"short": 10.0, "long": 89.0})
    assert found == {"short": "ok", "long": "ok"}


def test_without_time_nothing_is_begun_and_that_is_said(tmp_path) -> None:
    parts = [part("a", 0.5, "hangs"), part("b", 0.5, "hangs too", "never")]
    found, launch = played(tmp_path, parts, takes={"hangs": 1e9, "hangs too": 1e9})
    assert found["never"] == "skipped: no time left"
    assert "never" not in launch.played


@pytest.mark.parametrize("status", ["failed", "crashed"])
def test_a_scenario_that_fails_costs_no_other(tmp_path: Path, status: str) -> None:
    parts = [part("a", 0.5, "bad", "good"), part("b", 0.5, "other")]
    found, _ = played(tmp_path, parts, statuses={"bad": status})
    assert found == {"bad": status, "good": "ok", "other": "ok"}


def test_an_interruption_keeps_what_is_there(tmp_path) -> None:
    parts = [part("a", 0.5, "good", "stopped", "never")]
    with pytest.raises(KeyboardInterrupt):
        played(tmp_path, parts, statuses={"stopped": "interrupted"})
    scenarios = read_folder(tmp_path).summary["scenarios"]
    assert [s["status"] for s in scenarios] == ["ok", "interrupted"]


# -- processes ----------------------------------------------------------------------------------


def out_of_time_once_it_recorded(folder: Path) -> Any:
    """``Popen.wait`` whose time is over as soon as there is a record."""
    wait = subprocess.Popen.wait

    def waited(process: Any, timeout: float | None = None) -> int:
        if timeout is None:
            return wait(process)
        while not any(path.read_text() for path in folder.glob("records-*.jsonl")):
            time.sleep(0.01)
        raise subprocess.TimeoutExpired("child", timeout)

    return waited


def launched(tmp_path: Path, text: str, seconds: float, monkeypatch) -> Ended:
    """How a process ends whose module is this text."""
    body = f"import os, signal, time\ndef run(here):\n    here.emit('first')\n    {text}\n"
    (tmp_path / "played.py").write_text(body)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    if "sleep" in text:
        monkeypatch.setattr(subprocess.Popen, "wait", out_of_time_once_it_recorded(tmp_path))
    launcher = Launcher(tmp_path, device="cpu", dry=True)
    made = Part(name="p", share=1.0, module="played", needs=(), scenarios=())
    return launcher(made, [Scenario(name="s")], seconds)


@pytest.mark.parametrize(
    ("text", "seconds", "status"),
    [
        ("here.emit('second')", 60.0, "ok"),
        ("raise RuntimeError('CUDA error')", 60.0, "failed"),
        ("os.kill(os.getpid(), signal.SIGSEGV)", 60.0, "crashed"),
        ("time.sleep(600)", 60.0, "cut off"),
    ],
)
def test_what_was_recorded_survives_however_the_process_ends(
    tmp_path: Path, monkeypatch, text: str, seconds: float, status: str
) -> None:
    ended = launched(tmp_path, text, seconds, monkeypatch)
    assert ended.status == status
    assert ended.records[0] == {"scenario": "s", "kind": "first"}
    if status == "failed":
        assert ended.records[1]["message"] == "RuntimeError: CUDA error"


def test_a_process_can_tell_what_it_knows_before_it_is_ended(tmp_path, monkeypatch) -> None:
    text = "signal.raise_signal(signal.SIGALRM)"
    ended = launched(tmp_path, text, 60.0, monkeypatch)
    assert ended.records[1]["message"].startswith("OutOfTime")


def test_a_line_that_was_cut_is_left_out(tmp_path) -> None:
    (tmp_path / "x").write_text('{"kind": "a"}\n{"kind": "b')
    assert read_records(tmp_path / "x") == ({"kind": "a"},)
    assert read_records(tmp_path / "none") == ()


# -- files --------------------------------------------------------------------------------------


def test_what_does_not_fit_into_a_file_is_named(tmp_path) -> None:
    noise = [os.urandom(3000).hex() for _ in range(5)]
    records = [{"scenario": "s", "kind": "k", "name": str(i), "x": noise[i]} for i in range(5)]
    made = Recording(tmp_path, command="x", dry=True, file_bytes=15_000)
    made.add("p", ["s"], Ended(status="ok", seconds=1.0, records=tuple(records)))
    made.close("complete")
    assert (tmp_path / "p.json.gz").stat().st_size <= 15_000
    folder = read_folder(tmp_path)
    kept = [record["name"] for record in folder.records["p"]]
    cut = [record["name"] for record in folder.cut["p"]]
    assert kept
    assert cut
    assert kept + cut == ["0", "1", "2", "3", "4"]
    assert any("did not fit" in line for line in summary.lines(folder))


def test_an_attached_file_goes_in_as_it_is_and_into_a_file_of_its_own(tmp_path) -> None:
    trace = tmp_path / "trace.json.gz"
    trace.write_bytes(gzip.compress(b'{"traceEvents": [1, 2]}'))
    record = {"scenario": "s", "kind": "trace", "name": "n", "attached": str(trace)}
    made = Recording(tmp_path / "out", command="x", dry=True)
    made.add("p", ["s"], Ended(status="ok", seconds=1.0, records=(record,)))
    (found,) = read_folder(tmp_path / "out").records[results.ATTACHMENTS]
    assert found == {**record, "attached": {"traceEvents": [1, 2]}}


def test_members_joined_are_one_document() -> None:
    members, cut = fitting(
        [({"name": "a"}, pack({"a": 1})), ({"name": "b"}, pack({"b": 2}))], 10**6
    )
    document = json.loads(gzip.decompress(joined(members, cut)))
    assert document == {"records": [{"a": 1}, {"b": 2}], "cut": []}


def test_at_most_eight_files_of_at_most_16_mib_and_64_together() -> None:
    files = len(PARTS) + 1  # and the traces
    assert files + 1 <= 8
    assert results.FILE_BYTES <= 16 * 2**20
    assert files * results.FILE_BYTES < 64 * 2**20


# -- snapshots ----------------------------------------------------------------------------------

SNAPSHOT = {
    "segments": [
        {
            "device": 0,
            "address": 4096,
            "total_size": 2**21,
            "stream": 0,
            "segment_type": "small",
            "segment_pool_id": (0, 0),
            "is_expandable": False,
            "frames": [],
            "blocks": [
                {"size": 512, "requested_size": 100, "state": "active_allocated", "frames": []},
                {"size": 2**21 - 512, "requested_size": 0, "state": "inactive", "frames": []},
            ],
        }
    ],
    "device_traces": [
        [],
        [
            {
                "action": "segment_alloc",
                "addr": 4096,
                "size": 2**21,
                "stream": 0,
                "time_us": 7,
                "frames": [],
            },
            {
                "action": "alloc",
                "addr": 4096,
                "size": 100,
                "stream": 0,
                "time_us": 8,
                "frames": [{"name": "c10::cuda::malloc"}, {"name": "at::cuda::getNewWorkspace()"}],
            },
            {"action": "oom", "device_free": 5, "size": 2**30, "stream": 0, "time_us": 9},
        ],
    ],
    "allocator_settings": {"expandable_segments": False},
}


def test_a_snapshot_is_packed_to_lists() -> None:
    found = snapshots.packed(SNAPSHOT)
    assert found["events"] == [
        ["segment_alloc", 4096, 2**21, 0, 7],
        ["alloc", 4096, 100, 0, 8, "at::cuda::getNewWorkspace()"],
        ["oom", 5, 2**30, 0, 9],
    ]
    assert found["segments"] == [
        {
            "address": 4096,
            "total_size": 2**21,
            "stream": 0,
            "type": "small",
            "pool": [0, 0],
            "expandable": False,
            "blocks": [[4096, 512, 100, "active_allocated"], [4608, 2**21 - 512, 0, "inactive"]],
        }
    ]
    assert found["events_cut"] == 0
    assert json.loads(json.dumps(found)) == found


def test_of_a_history_too_long_the_beginning_is_kept_and_the_rest_counted() -> None:
    found = snapshots.packed(SNAPSHOT, most_events=1)
    assert (len(found["events"]), found["events_cut"]) == (1, 2)


@pytest.mark.parametrize(
    ("names", "told"),
    [
        ([], ""),
        (["malloc", "at::native::empty_cuda", "at::native::mm"], "at::native::empty_cuda"),
        (["at::native::empty_cuda", "cudnn_convolution"], "cudnn_convolution"),
        (["_ZN2at6native3mmE"], "_ZN2at6native3mmE"),
        (["main"], ""),
    ],
)
def test_the_frame_that_tells_most(names: list[str], told: str) -> None:
    assert snapshots.telling_frame([{"name": name} for name in names]) == told


# -- from end to end ----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def dry(tmp_path_factory) -> tuple[Path, str]:
    """A folder of a dry run, and what it printed."""
    folder = tmp_path_factory.mktemp("gpu")
    done = subprocess.run(
        [*COMMAND, "--out", str(folder), "--dry"], capture_output=True, text=True, check=True
    )
    return folder, done.stdout


def test_the_dry_run_plays_every_part_and_says_what_it_leaves_out(dry) -> None:
    folder = read_folder(dry[0])
    statuses = {(s["part"], s["scenario"]): s for s in folder.summary["scenarios"]}
    assert folder.summary["ended"] == "complete"
    assert len(statuses) == sum(len(part.scenarios) for part in PARTS)
    for made in PARTS:
        for scenario in made.scenarios:
            outcome = statuses[made.name, scenario.name]
            if scenario.dry:
                assert outcome["status"] == "ok", outcome
            else:
                assert outcome["status"].startswith("skipped: ")
    assert not folder.of("snapshots", "snapshot")
    assert not folder.of("device", "cuda")
    left_out = [r for records in folder.records.values() for r in records if r["kind"] == "skipped"]
    assert {r["scenario"] for r in left_out} >= {"facts", "speed", "mlp", "energy"}


def test_the_dry_run_leaves_what_can_be_replayed(dry) -> None:
    folder = read_folder(dry[0])
    (truth,) = folder.of("probes", "truth")
    again = summary.predictions(folder)[truth["scenario"]]
    (estimate,) = folder.of("probes", "estimate")
    assert again == pytest.approx(estimate["estimate"]["epoch_seconds"]["p50"])
    assert folder.of("traces", "trace")[0]["attached"]["traceEvents"]
    (followed,) = folder.of("guard", "followed")
    assert followed["log"][-1]["event"] == "ended"
    assert followed["checkpoint_loads"] == bool(followed["steps"])  # a slow machine may train none
    assert folder.of("accuracy", "tables")[0]["rows"]
    assert {path.suffix for path in dry[0].iterdir()} == {".gz", ".json"}
    assert len(list(dry[0].iterdir())) <= 8


def test_the_summary_is_printed_and_printed_again(dry) -> None:
    folder, printed = dry
    lines = summary.lines(read_folder(folder))
    assert printed.rstrip().endswith("\n".join(lines))
    assert "needs CUDA" in printed


def test_what_is_not_installed_is_named_at_once(tmp_path, monkeypatch) -> None:
    import gpu

    needs = ("torch", "no_such_package")
    made = Part(name="p", share=1.0, module="", needs=needs, scenarios=())
    assert gpu.missing([made]) == ["no_such_package"]


def test_without_cuda_it_says_so(tmp_path, monkeypatch, capsys) -> None:
    import gpu

    monkeypatch.setattr(gpu, "has_cuda", lambda: False)
    monkeypatch.setattr(sys, "argv", ["gpu.py", "--out", str(tmp_path / "x")])
    assert gpu.main() == 2
    assert "--dry" in capsys.readouterr().err


def test_sigterm_ends_it_with_a_summary(tmp_path) -> None:
    process = subprocess.Popen(
        [*COMMAND, "--out", str(tmp_path), "--dry", "--only", "device"],
        stdout=subprocess.PIPE,
        text=True,
    )
    while not (tmp_path / results.SUMMARY).exists():
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    output, _ = process.communicate()
    ended = read_folder(tmp_path).summary["ended"]
    assert ended in ("interrupted", "complete")
    assert ended in output


def test_the_recordings_of_others_have_the_same_form() -> None:
    folder = ROOT.parents[1] / "shared" / "gpu" / "snapshots"
    files = sorted(folder.glob("*.json.gz"))
    if not files:
        pytest.skip("no recordings of others here")
    for file in files[:3]:
        theirs = json.loads(gzip.decompress(file.read_bytes()))
        ours = snapshots.packed(unpacked(theirs))
        assert ours["events"] == [event[:6] for event in theirs["events"]]
        assert ours["segments"] == theirs["segments"]


def unpacked(packed: dict[str, Any]) -> dict[str, Any]:
    """As torch would have given it."""
    names = ("action", "addr", "size", "stream", "time_us")
    events = [
        {**dict(zip(names, event, strict=False)), "frames": [{"name": n} for n in event[5:]]}
        for event in packed["events"]
    ]
    segments = [
        {
            **{k: s[k] for k in ("address", "total_size", "stream")},
            "segment_type": s["type"],
            "segment_pool_id": tuple(s["pool"]),
            "is_expandable": s["expandable"],
            "blocks": [
                dict(zip(("address", "size", "requested_size", "state"), b, strict=True))
                for b in s["blocks"]
            ],
        }
        for s in packed["segments"]
    ]
    return {"segments": segments, "device_traces": [events]}


COMMITTED = sorted((ROOT / "benchmarks" / "results").glob("gpu-*/"))


@pytest.mark.parametrize("path", COMMITTED, ids=lambda path: path.name)
def test_a_recording_of_a_gpu_is_replayed(path: Path) -> None:
    folder = read_folder(path)
    assert not folder.summary["dry"]
    assert folder.of("device", "cuda")
    assert summary.lines(folder, predict_again=True)


def test_names_in_the_catalogue_are_those_of_the_modules() -> None:
    from gpu_parts import probes, scripts

    def names(part: str) -> set[str]:
        return {s.name for made in PARTS if made.name == part for s in made.scenarios}

    assert names("probes") == set(probes.SCENARIOS)
    recorded = {name.removesuffix("-frames") for name in names("snapshots")}
    assert recorded == {*snapshots.SCENARIOS, "dry-runs"}
    assert names("scripts") == {*scripts.SCENARIOS, "deadline"}


def test_some_scenarios_of_a_part_can_be_chosen() -> None:
    chosen = catalogue.chosen(["probes/char-gpt", "guard"])
    assert [(p.name, [s.name for s in p.scenarios]) for p in chosen] == [
        ("probes", ["char-gpt"]),
        ("guard", ["deadline", "energy"]),
    ]
    probing, guard = (p.share for p in chosen)
    assert probing == pytest.approx(70 / (70 + 60 + 30))  # their own seconds, not the parts' shares
    assert probing + guard == pytest.approx(1.0)
    assert [p.name for p in catalogue.chosen(None)] == [p.name for p in PARTS]
