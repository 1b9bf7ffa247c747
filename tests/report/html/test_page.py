"""The page to hand on: what it says, that nothing in it acts, and how a browser shows it."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from datetime import datetime, timezone
from html.parser import HTMLParser
from pathlib import Path

import pytest
import sample_runs
import truths
from click.testing import CliRunner
from selenium import webdriver
from strategies import make_outcome

from epochcast.cli import cli
from epochcast.costmodel.fitting import fit
from epochcast.errors import UsageError
from epochcast.guard.log import LogWriter
from epochcast.planning.planner import plan
from epochcast.records import Budget, RunConfig, make_sizes
from epochcast.report.html.contents import Contents, contents_of_plan, contents_of_store
from epochcast.report.html.page import page, write_report
from epochcast.storage.store import Store

HOSTILE = "<script>alert(1)</script><img src=http://evil.example/x onerror=alert(1)>&\x1b[31m"
NOW = datetime(2026, 11, 27, 8, 30, tzinfo=timezone.utc)
CONFIG = RunConfig(batch_size=64, sizes=make_sizes({"depth": 1, "width": 512}))
WORKLOAD = f"imaginary {HOSTILE}"
SWEEP = [replace(m, workload=WORKLOAD) for m in truths.sweep(round_sd=0.05, trial_sd=0.02)]
FOUND = plan(
    fit(SWEEP),
    Budget(deadline=300, money=0.25, price_per_hour=2.5),
    epochs=90,
)


class Reader(HTMLParser):
    """What a browser would make of a page: its elements, their attributes, its text."""

    def __init__(self, content: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.attributes: list[tuple[str, str]] = []
        self.text = ""
        self.feed(content)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes += [(name, value or "") for name, value in attrs]

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store: a sweep with a failure whose message is HTML, and three followed runs."""
    folder = tmp_path_factory.mktemp("probed")
    with Store.open(folder=folder / ".epochcast") as store:
        store.add_all(SWEEP)
        failed = truths.measure(1024, 256, status="oom", message=HOSTILE, step_seconds=())
        store.add(replace(failed, workload=WORKLOAD))
        hopeless = truths.measure(4096, 256, status="too-large", message="9 GiB", step_seconds=())
        store.add(replace(hopeless, workload=WORKLOAD))
        about = {"workload": WORKLOAD, "source": "", "device": truths.DEVICE, "config": CONFIG}
        for at, seconds in enumerate((9.5, 10.0, 10.6)):
            ran = {"epoch_seconds": (seconds,) * 3, "finished_at": 1.767e9 + at}
            store.add_outcome(make_outcome(str(at), **(about | ran)))
    FOUND.save(folder / "plan.json")
    return folder


@pytest.fixture(scope="module")
def content(folder: Path) -> str:
    """The page about the plan, as the command writes it."""
    store, file = folder / ".epochcast/measurements.sqlite", folder / "r.html"
    options = ["--store", str(store), "-o", str(file), "--json"]
    result = CliRunner().invoke(cli, ["report", str(folder / "plan.json"), *options])
    assert result.exit_code == 0, result.output
    document = json.loads(result.stdout)
    assert document["bytes"] == file.stat().st_size
    return file.read_text()


def test_the_page_answers_first(content: str) -> None:
    text = Reader(content).text
    assert f"Run {FOUND.chosen.epochs} of 90 epochs with {FOUND.chosen.config.label}." in text
    assert "Within 5m 00s and $0.25, with 90 % confidence." in text
    assert re.search(r"Written \d{4}-\d\d-\d\d \d\d:\d\d UTC, epochcast \d", text)
    order = ["Total time", "The picture", "Why so", "What was measured", "How right", "assumed"]
    assert [text.index(part) for part in order] == sorted(text.index(part) for part in order)


def test_it_says_what_it_rests_on(content: str) -> None:
    text = Reader(content).text
    assert "37 trials of 13 configurations on Imaginary (cpu, 2 threads, torch 2.13.0)" in text
    assert "1 of them failed" in text
    assert "Left out, because the device has too little memory: 1 configuration." in text
    assert "left out: 9 GiB" in text
    assert "Epochs of 3 of 3 runs lie between P10 and P90" in text
    assert "An hour of one device costs $2.50." in text
    assert "Nothing fails or is interrupted." in text
    assert "StopReason" not in text


def test_nothing_in_it_acts_or_loads(content: str) -> None:
    read = Reader(content)
    assert not {"script", "img", "iframe", "link", "object", "form", "a"} & read.tags
    assert HOSTILE.replace("\x1b", "?") in read.text
    assert not [name for name, _ in read.attributes if name.startswith("on")]
    linked = [value for name, value in read.attributes if name in ("href", "src", "xlink:href")]
    assert all(value.startswith("#") for value in linked)
    assert all(place.startswith("#") for place in re.findall(r"url\(([^)]*)\)", content))
    assert "@import" not in content


def test_names_of_elements_are_unique(content: str) -> None:
    names = [value for name, value in Reader(content).attributes if name == "id"]
    assert len(names) == len(set(names))


def test_a_plan_without_its_measurements_says_so(tmp_path: Path) -> None:
    with Store.open(folder=tmp_path / ".epochcast", create="late") as store:
        text = Reader(page(contents_of_plan(FOUND, store), NOW)).text
    assert "Written 2026-11-27 08:30 UTC" in text
    assert "Not in the store that this page was made with: no measurements yet" in text
    assert "how right predictions are here was never seen" in text


def test_without_a_plan_it_is_about_what_was_asked_last(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)

    def asked(*arguments: str) -> Contents:
        if arguments:
            assert CliRunner().invoke(cli, arguments).exit_code == 0
        with Store.open() as store:
            return contents_of_store(store)

    assert asked().is_example
    (estimate,) = asked("predict", "--epochs", "7", "--batch-size", "96").estimates
    assert (estimate.epochs, estimate.config.batch_size) == (7, 96)
    assert [e.epochs for e in asked("predict", "--epochs", "7,8").estimates] == [7, 8]
    found = asked("plan", "--epochs", "9", "--deadline", "10m").plan
    assert found is not None
    assert found.target_epochs == 9
    (folder / ".epochcast/asked.json").write_text("{broken")
    assert asked().is_example


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (["plan.json", "--workload", "imaginary"], "leave them out"),
        (["absent.json"], "does not exist"),
        (["plan.json", "--log", "log.jsonl"], "but the page is about imaginary"),
    ],
)
def test_what_makes_no_sense_is_refused(
    folder: Path, monkeypatch: pytest.MonkeyPatch, wrong: list[str], message: str
) -> None:
    monkeypatch.chdir(folder)
    writer = LogWriter("log.jsonl")
    writer.see(sample_runs.started())
    writer.close()
    refused = CliRunner().invoke(cli, ["report", *wrong])
    assert refused.exit_code != 0
    assert message in refused.output


def test_a_page_that_cannot_be_written_is_said(tmp_path: Path, folder: Path) -> None:
    with pytest.raises(UsageError, match="cannot write"):
        write_report(Contents(workload="a", device=truths.DEVICE), tmp_path / "absent" / "r.html")


@pytest.mark.parametrize("width", [500, 1280])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_browser_shows_it_whole(
    chromium: webdriver.Chrome, content: str, tmp_path: Path, width: int, scheme: str
) -> None:
    """Nothing is wider than the window, pictures are there, colours are as the window asks."""
    file = tmp_path / "report.html"
    file.write_text(content)
    feature = {"name": "prefers-color-scheme", "value": scheme}
    chromium.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [feature]})
    size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
    chromium.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    try:
        chromium.get(file.as_uri())
        measure = "return document.documentElement.scrollWidth"
        assert chromium.execute_script(measure) <= width
        drawn = (
            "return [...document.querySelectorAll('svg')].map(s => s.getBoundingClientRect().width)"
        )
        widths = chromium.execute_script(drawn)
        assert len(widths) == 7
        assert all(200 < found <= width for found in widths)
        colour = "return getComputedStyle(document.body).backgroundColor"
        expected = {"light": "rgb(255, 255, 255)", "dark": "rgb(31, 33, 36)"}
        assert chromium.execute_script(colour) == expected[scheme]
        assert chromium.execute_script("return document.querySelectorAll('script,img').length") == 0
    finally:
        chromium.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
        chromium.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})
