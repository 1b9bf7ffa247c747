"""A headless Chromium looks at a running TensorBoard: the tab, real traces, the figures.

    tests ──selenium──▶ chromedriver ──▶ Chromium ──▶ TensorBoard (a process of its own)

After every test the browser's network log is read: it asked nobody but localhost. With
EPOCHCAST_SCREENSHOTS=FOLDER set, the tests leave a picture of each view there.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest
import sample_runs
import torch
from board_records import HOSTILE, make_summary
from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.ui import WebDriverWait
from torch.profiler import profile, record_function

from epochcast.records import Quantiles
from epochcast.report.plots.probed import ProbedPrediction
from epochcast.report.tensorboard.following import BoardWatcher
from epochcast.report.tensorboard.publish import write_board

Browser = webdriver.Chrome
PATIENCE_SECONDS = 60  # Perfetto compiles 11 MB of WebAssembly; alone it takes 3 s on two cores

SERVE = """
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # a job in the background ignores it
from pathlib import Path
from epochcast.report.tensorboard import serve
serve(Path(sys.argv[1]), port=0, on_ready=lambda url: print(url, flush=True))
"""

# Colours of the canvases on which Perfetto draws, as a set; text and grid alone have a handful.
COLOURS = """
const colours = new Set();
for (const canvas of document.querySelectorAll('canvas')) {
  if (!canvas.width || !canvas.height) continue;
  const copy = new OffscreenCanvas(canvas.width, canvas.height).getContext('2d');
  copy.drawImage(canvas, 0, 0);
  const picture = copy.getImageData(0, 0, canvas.width, canvas.height);
  for (const pixel of new Uint32Array(picture.data.buffer)) colours.add(pixel);
}
return colours.size;
"""

# TensorBoard's image tab is made of nested shadow trees.
LOADED_FIGURES = """
const found = [];
const visit = (root) => {
  for (const node of root.querySelectorAll('*')) {
    if (node.shadowRoot) visit(node.shadowRoot);
    if (node.tagName === 'IMG' && node.complete && node.naturalWidth > 300) found.push(node.src);
  }
};
visit(document);
return found;
"""

NATURAL_WIDTH = "return arguments[0].complete ? arguments[0].naturalWidth : 0"

# The bands that charts of the Custom Scalars tab have drawn, each of many points.
DRAWN_BANDS = """
let found = 0;
const visit = (root) => {
  for (const node of root.querySelectorAll('*')) {
    if (node.shadowRoot) visit(node.shadowRoot);
    if (node.matches('path.area') && (node.getAttribute('d') || '').length > 200) found++;
  }
};
visit(document);
return found;
"""


@pytest.fixture(scope="module")
def board(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A log folder: two real traces, a failed configuration, figures, a text, a followed run."""
    folder = tmp_path_factory.mktemp("store") / "tensorboard"
    summaries = []
    for width in (64, 256):
        name = f"mnist-mlp/width-{width}/trace.json.gz"
        profile_training(folder / name, width)
        summaries.append(make_summary(32, width, trace=name))
        summaries.append(make_summary(64, width))
    failed = replace(make_summary(128, 256), status="oom", message=HOSTILE, step_seconds=None)
    predictions = [
        ProbedPrediction(
            config=s.config,
            workload=s.workload,
            device=s.device,
            measured_step_seconds=1e-3,
            predicted_step_seconds=Quantiles(
                p05=0.8e-3, p10=0.9e-3, p50=1e-3, p90=1.2e-3, p95=1.3e-3
            ),
        )
        for s in summaries
    ]
    write_board(folder, [*summaries, failed], predictions, "| epochs | total |\n|---|---|\n|90|3h|")
    watcher = BoardWatcher(folder / "followed run")
    for event in sample_runs.drifting():
        watcher.see(event)
    watcher.close()
    return folder


def profile_training(path: Path, width: int) -> None:
    """A torch.profiler trace of three training steps of a small network."""
    model = torch.nn.Sequential(
        torch.nn.Linear(64, width), torch.nn.ReLU(), torch.nn.Linear(width, 4)
    )
    optimizer = torch.optim.RMSprop(model.parameters())
    path.parent.mkdir(parents=True)
    with profile(record_shapes=True) as profiler:
        for _ in range(3):
            with record_function("epochcast: train step"):
                optimizer.zero_grad()
                model(torch.rand(32, 64)).sum().backward()
                optimizer.step()
    profiler.export_chrome_trace(str(path))


@pytest.fixture(scope="module")
def url(board: Path) -> Iterator[str]:
    """The address of a running TensorBoard; ended by Ctrl-C, which must leave no traceback."""
    process = subprocess.Popen(
        [sys.executable, "-c", SERVE, str(board)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    try:
        yield process.stdout.readline().strip()
    finally:
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=30)
    assert process.returncode == 0
    assert "Traceback" not in errors
    assert "will become an error" not in errors


@pytest.fixture
def browser(chromium: Browser) -> Iterator[Browser]:
    """The browser on an empty page; after the test, it has asked nobody but localhost."""
    chromium.switch_to.default_content()
    chromium.get("about:blank")
    yield chromium
    assert addresses_beyond_localhost(chromium) == []


def addresses_beyond_localhost(browser: Browser) -> list[str]:
    """Requests that left for another host; those that the page's policy stopped did not leave."""
    events = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    asked = {
        event["params"]["requestId"]: event["params"]["request"]["url"]
        for event in events
        if event["method"] == "Network.requestWillBeSent"
    }
    stopped = {
        event["params"]["requestId"]
        for event in events
        if event["method"] == "Network.loadingFailed"
        and event["params"].get("blockedReason") == "csp"
    }
    assert any(urlsplit(address).hostname == "localhost" for address in asked.values())
    return [
        address
        for request, address in asked.items()
        if urlsplit(address).scheme in ("http", "https", "ws", "wss")
        and urlsplit(address).hostname != "localhost"
        and request not in stopped
    ]


def wait(browser: Browser, condition: Callable[[Browser], object]) -> object:
    return WebDriverWait(browser, PATIENCE_SECONDS).until(condition)


def find(browser: Browser, css: str) -> list[WebElement]:
    return browser.find_elements(By.CSS_SELECTOR, css)


def open_tab(browser: Browser, url: str) -> None:
    """Go to our tab, and wait for its rows."""
    browser.get(url)
    wait(browser, lambda b: find(b, "iframe[src*='name=epochcast']"))
    browser.switch_to.frame(find(browser, "iframe[src*='name=epochcast']")[0])
    wait(browser, lambda b: find(b, "tbody tr"))


def press(browser: Browser, text: str, position: int) -> None:
    buttons = [b for b in find(browser, "td.actions button") if b.text == text]
    buttons[position].click()


def wait_until_drawn(browser: Browser, position: int) -> str:
    """Wait until the trace in a pane is on its canvas; the text of Perfetto's tracks."""
    wait(browser, lambda b: len(find(b, ".pane iframe")) > position)
    browser.switch_to.frame(find(browser, ".pane iframe")[position])
    wait(browser, lambda b: find(b, ".pf-track__title"))
    wait(browser, lambda b: b.execute_script(COLOURS) > 20)
    text = " ".join(track.text for track in find(browser, ".pf-track__shell"))
    browser.switch_to.parent_frame()
    return text


def keep_picture(browser: Browser, name: str) -> None:
    folder = os.environ.get("EPOCHCAST_SCREENSHOTS")
    if folder:
        browser.save_screenshot(str(Path(folder, f"board_{name}.png")))


def test_the_tab_lists_what_was_probed(browser: Browser, url: str) -> None:
    open_tab(browser, url)
    rows = [row.text for row in find(browser, "tbody tr")]
    assert len(rows) == 5
    assert "1.03 ms" in rows[0]
    assert "mnist-mlp 128 256" in rows[-1]
    assert f"out of memory {HOSTILE}" in rows[-1]
    assert find(browser, "td img") == []  # the message did not become an element
    assert "5 configurations, 1 failed" in find(browser, ".count")[0].text
    keep_picture(browser, "tab")


def test_the_table_is_sorted_and_filtered(browser: Browser, url: str) -> None:
    open_tab(browser, url)

    def column(position: int) -> list[str]:
        return [cell.text for cell in find(browser, f"tbody td:nth-child({position})")]

    for expected in (["32", "32", "64", "64", "128"], ["128", "64", "64", "32", "32"]):
        find(browser, "th[data-key='batch_size'] button")[0].click()
        assert column(2) == expected
    find(browser, "th[data-key='step_seconds'] button")[0].click()
    assert column(4)[-1] == "–"  # unknown last
    options = [option.text for option in find(browser, "#workload option")]
    assert options == ["all", "mnist-mlp"]


def window_shown(pane: WebElement) -> int:
    """Nanoseconds that Perfetto was asked to show, by the address of its frame."""
    asked = parse_qs(urlsplit(str(pane.get_attribute("src"))).fragment.partition("?")[2])
    return int(asked["visEnd"][0]) - int(asked["visStart"][0])


@pytest.mark.parametrize("width", [500, 1280])
@pytest.mark.parametrize("dark", [False, True])
def test_pictures_are_drawn_in_the_tab(browser: Browser, url: str, width: int, dark: bool) -> None:
    size = {"width": width, "height": 1400, "deviceScaleFactor": 1, "mobile": False}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    try:
        open_tab(browser, url.replace("#", "&darkMode=true#") if dark else url)
        for picture in find(browser, "figure img"):
            browser.execute_script("arguments[0].scrollIntoView()", picture)
            wait(browser, lambda b, p=picture: b.execute_script(NATURAL_WIDTH, p) > 300)
            assert 200 < picture.rect["width"] < width
        assert len(find(browser, "figure img")) == 3  # no peak was predicted
        assert ("dark" in find(browser, "figure img")[0].get_attribute("src")) == dark
        keep_picture(browser, f"pictures_{width}_{'dark' if dark else 'light'}")
    finally:
        browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def test_a_trace_is_drawn(browser: Browser, url: str) -> None:
    open_tab(browser, url)
    press(browser, "Open", 0)
    assert "python" in wait_until_drawn(browser, 0)
    keep_picture(browser, "one")


def test_two_traces_are_drawn_side_by_side(browser: Browser, url: str) -> None:
    open_tab(browser, url)
    press(browser, "Open", 0)
    press(browser, "Compare", 1)
    wait(browser, lambda b: len(find(b, ".pane iframe[src*=visStart]")) == 2)
    assert "python" in wait_until_drawn(browser, 0)
    assert "python" in wait_until_drawn(browser, 1)
    left, right = (pane.rect for pane in find(browser, ".pane"))
    assert left["y"] == right["y"]
    assert left["x"] + left["width"] <= right["x"] + 1
    assert len({window_shown(pane) for pane in find(browser, ".pane iframe")}) == 1
    titles = [title.text for title in find(browser, ".pane h2 span")]
    assert titles == ["mnist-mlp batch_size=32 width=64", "mnist-mlp batch_size=32 width=256"]
    keep_picture(browser, "two")
    find(browser, ".pane button")[0].click()
    assert [title.text for title in find(browser, ".pane h2 span")] == titles[1:]


def test_figures_load_in_the_image_tab(browser: Browser, url: str) -> None:
    browser.get(url.partition("#")[0] + "#images")
    wait(browser, lambda b: len(b.execute_script(LOADED_FIGURES)) >= 2)
    keep_picture(browser, "images")


def test_curves_are_drawn_in_the_time_series_tab(browser: Browser, url: str) -> None:
    browser.get(url.partition("#")[0] + "#timeseries")
    wait(browser, lambda b: "by batch size/step time (ms)" in b.page_source)
    wait(browser, lambda b: "mnist-mlp/width=64" in find(b, "scalar-card")[0].text)
    keep_picture(browser, "timeseries")


def test_a_followed_run_is_drawn_within_its_predicted_band(browser: Browser, url: str) -> None:
    browser.get(url.partition("#")[0] + "#custom_scalars")
    wait(browser, lambda b: b.execute_script(DRAWN_BANDS) >= 2)
    keep_picture(browser, "followed")


def test_a_new_probe_appears_in_the_open_tab(browser: Browser, url: str, board: Path) -> None:
    index = board / "epochcast.json"
    before = index.read_text()
    open_tab(browser, url)
    document = json.loads(before)
    document["configurations"] = document["configurations"][:2]
    try:
        index.write_text("{broken")
        wait(browser, lambda b: "cannot read" in find(b, ".notices")[0].text)
        index.write_text(json.dumps(document))
        wait(browser, lambda b: len(find(b, "tbody tr")) == 2 and not find(b, ".notices li"))
    finally:
        index.write_text(before)
