"""Parts of the bootstrap that need no torch, in this process or in a small one of their own."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
from bootstrap_runs import Run, run

from epochcast.scripts.border import (
    BOOTSTRAP,
    VARIABLE,
    BootstrapSettings,
    read_events,
    write_settings,
)
from epochcast.scripts.events import Began, Ended, Failed, NotKept, Wrote
from epochcast.scripts.side_effects import put_back


@pytest.fixture
def part(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], ModuleType]]:
    """Imports a module of the bootstrap; it is gone afterwards."""
    before = set(sys.modules)
    monkeypatch.syspath_prepend(BOOTSTRAP)
    yield lambda name: __import__(f"epochcast_bootstrap.{name}", fromlist=[name])
    for name in set(sys.modules) - before:
        if name.startswith("epochcast_bootstrap"):
            del sys.modules[name]


LOOPS = {
    "for": ("for x in it: pass", True),
    "enumerate": ("for i, x in enumerate(it): pass", True),
    "comprehension": ("[x for x in it]", True),
    "bare next": ("while True: next(it)", False),
    "default": ("next(it, None)", True),
    "expected": (
        """
        while True:
            try:
                next(it)
            except StopIteration:
                break
        """,
        True,
    ),
    "in a handler": (
        """
        try:
            int("x")
        except ValueError:
            next(it)
        """,
        False,
    ),
    "around much": (
        """
        try:
            a = 1
            b = 2
            c = 3
            while True: next(it)
        except Exception:
            pass
        """,
        False,
    ),
    "short": (
        """
        try:
            while True: x = next(it)
        except Exception:
            pass
        """,
        True,
    ),
    "whatever goes wrong": (
        """
        def main():
            while True: next(it)
        try:
            main()
        except Exception:
            raise RuntimeError
        """,
        False,
    ),
    "of a caller": (
        """
        def draw():
            return next(it)
        try:
            while True: draw()
        except StopIteration:
            pass
        """,
        True,
    ),
    "in a generator": (
        """
        def drawn():
            while True:
                yield next(it)
        for x in drawn(): pass
        """,
        False,
    ),
    "in an iterator": (
        """
        class Drawn:
            def __iter__(self):
                return self
            def __next__(self):
                return next(it)
        for x in Drawn(): pass
        """,
        True,
    ),
    "in an iterator of a generator": (
        """
        class Drawn:
            def __next__(self):
                return next(it)
        def drawn():
            while True:
                yield next(Drawn())
        for x in drawn(): pass
        """,
        False,
    ),
}


@pytest.mark.parametrize("name", LOOPS)
def test_a_loop_may_end_early_only_where_it_expects_an_end(
    part: Callable[[str], ModuleType], tmp_path: Path, name: str
) -> None:
    """``it`` asks when it is drawn from; what then happens is the truth."""
    may_end_early = part("sites").may_end_early
    source, expected = LOOPS[name]
    asked = []

    class Asking:
        def __iter__(self) -> Asking:
            return self

        def __next__(self) -> int:
            asked.append(may_end_early(sys._getframe(1)))
            raise StopIteration

    file = tmp_path / "loop.py"
    file.write_text(textwrap.dedent(source))
    ended = True
    try:
        exec(compile(file.read_text(), str(file), "exec"), {"it": Asking()})
    except (StopIteration, RuntimeError):
        ended = False
    assert asked == [expected]
    assert ended or not expected  # what may end early did


def test_where_in_the_script(part: Callable[[str], ModuleType], tmp_path: Path) -> None:
    sites = part("sites")
    frames: list[object] = []
    library = tmp_path / "site-packages" / "library.py"
    library.parent.mkdir()
    for file, text in (
        (library, "def fit(call):\n    inner(call)\ndef inner(call):\n    call()\n"),
        (tmp_path / "train.py", "\n\nfit(call)\n"),
    ):
        file.write_text(text)
    names = {"call": lambda: frames.append(sys._getframe(1))}
    exec(compile(library.read_text(), str(library), "exec"), names)
    exec(compile((tmp_path / "train.py").read_text(), str(tmp_path / "train.py"), "exec"), names)
    assert sites.site_of(frames[0]) == (f"{tmp_path / 'train.py'}:3", ("fit", "inner"))


def test_the_first_to_come_says_the_number(
    part: Callable[[str], ModuleType], tmp_path: Path
) -> None:
    agree = part("loaders").agree
    path = str(tmp_path / "number")
    assert [agree(path, wanted) for wanted in (7, 3, 9)] == [7, 7, 7]
    assert os.listdir(tmp_path) == ["number"]


def test_modules_are_told_of_after_they_ran_and_keep_their_loader(
    part: Callable[[str], ModuleType], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "late_one.py").write_text("import sys\nassert not hasattr(sys, 'late'), 'again'\n")
    (tmp_path / "early_one.py").write_text("")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "meta_path", list(sys.meta_path))
    failures: list[str] = []
    told: list[str] = []
    waiting = part("waiting").Waiting(lambda where, error: failures.append(where))
    waiting.when("late_one", lambda module: told.append(module.__name__))
    waiting.when("late_one", lambda module: 1 / 0)
    import early_one  # type: ignore[import-not-found]

    waiting.when("early_one", lambda module: told.append(module.__name__))
    monkeypatch.setattr(sys, "late", True, raising=False)
    with pytest.raises(AssertionError):  # an import that fails may be tried again
        import late_one  # type: ignore[import-not-found]
    monkeypatch.delattr(sys, "late")
    import late_one

    assert told == ["early_one", "late_one"]
    assert failures == ["import late_one"]
    assert type(late_one.__loader__) is type(early_one.__loader__)
    assert type(late_one.__spec__.loader) is type(early_one.__loader__)
    for name in ("late_one", "early_one"):
        del sys.modules[name]


FILES = """
import os, shutil, sqlite3, subprocess
def write(name, text, mode="w"):
    with open(name, mode) as file:
        file.write(text)
write("emptied", "new"); write("emptied", "newer")
write("extended", "more", "a"); write("extended", "then emptied")
write("patched", "ZZ", "r+"); os.truncate("shortened", 1)
os.remove("removed"); write("removed", "again")
write("temporary", "x"); os.replace("temporary", "replaced")
os.rename("moved", "elsewhere"); write("moved", "another"); write("elsewhere", "more", "a")
os.makedirs("new/deep"); write("new/deep/file", "x"); os.rename("new", "newer")
os.rename("folder", "renamed"); write("renamed/inside", "changed")
os.unlink("link"); os.symlink("nowhere", "link")
database = sqlite3.connect("database"); database.execute("create table t (x)"); database.commit()
os.chmod("patched", 0o600); os.utime("patched", (1, 1))
shutil.copytree("newer", "copied"); shutil.rmtree("newer"); shutil.rmtree("full")
os.mkdir("empty"); os.rmdir("empty"); os.rmdir("hollow")
if os.fork() == 0:
    write("of a child", "x")
    os._exit(0)
os.wait()
subprocess.run(["true"])
open("/dev/null", "w").close()
"""
KEPT = ("emptied", "extended", "patched", "shortened", "removed", "replaced", "moved")


def tree(folder: Path) -> dict[str, tuple[object, ...]]:
    """All that is in a folder, itself included: kind and permissions, time, content."""
    found: dict[str, tuple[object, ...]] = {}
    for path in (folder, *sorted(folder.rglob("*"))):
        stat = path.lstat()
        content: object = os.readlink(path) if path.is_symlink() else None
        if path.is_file() and not path.is_symlink():
            content = path.read_bytes()
        found[str(path.relative_to(folder))] = (stat.st_mode, stat.st_mtime_ns, content)
    return found


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> tuple[Run, dict[str, tuple[object, ...]]]:
    """A script of many ways to write; and what there was before it ran."""
    folder = tmp_path_factory.mktemp("files")
    work = folder / "work"
    for name in ("folder", "full/inner", "hollow"):
        (work / name).mkdir(parents=True)
    for name in (*KEPT, "folder/inside", "full/one", "full/inner/two"):
        (work / name).write_text(f"of {name}")
    (work / "link").symlink_to("emptied")
    (work / "train.py").write_text(FILES)
    before = tree(work)
    return run(folder, FILES, {"journal": True}), before


def test_what_a_script_wrote_is_put_back(
    files: tuple[Run, dict[str, tuple[object, ...]]],
) -> None:
    script, before = files
    assert (script.code, script.errors) == (0, "")
    assert not script.of(Failed)
    wrote = [event for event in script.of(Wrote) if event.path != str(script.folder / "train.py")]
    assert put_back(wrote).left == ()
    after = tree(script.folder)
    before["train.py"] = after["train.py"]  # written by the test itself
    assert after == before


def test_what_is_not_seen_is_named(files: tuple[Run, dict[str, tuple[object, ...]]]) -> None:
    script, _ = files
    assert [event.what for event in script.of(NotKept)] == ["true"]


def test_each_process_reports_for_itself(
    files: tuple[Run, dict[str, tuple[object, ...]]],
) -> None:
    script, _ = files
    assert sorted(event.forked for event in script.of(Began)) == [False, True]
    assert len(script.of(Ended)) == 1  # the child left by os._exit
    (child,) = (told for told in script.processes.values() if told[0].forked)  # type: ignore[union-attr]
    assert [event.path for event in child if isinstance(event, Wrote)] == [
        str(script.folder / "of a child")
    ]


FORKED = """
import os
if os.fork() == 0:
    try:
        import torch
    except ImportError:
        os._exit(0)
os.wait()
"""


def test_a_forked_process_says_a_word_before_torch_is_there(tmp_path: Path) -> None:
    torch = tmp_path / "work" / "torch.py"
    torch.parent.mkdir()
    torch.write_text("raise ImportError")
    script = run(tmp_path, FORKED, {})
    assert sorted(event.forked for event in script.of(Began)) == [False, True]


def test_a_sitecustomize_that_is_hidden_runs_all_the_same(tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text("print('of the system')\n")
    write_settings(BootstrapSettings(folder=str(tmp_path)), tmp_path / "settings.json")
    paths = os.pathsep.join([str(BOOTSTRAP), str(tmp_path)])
    done = subprocess.run(
        [sys.executable, "-c", "print('script')"],
        env=os.environ | {VARIABLE: str(tmp_path / "settings.json"), "PYTHONPATH": paths},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.split("\n") == ["of the system", "script", ""]
    assert done.stderr == ""
    (told,) = read_events(tmp_path).values()
    assert [type(event) for event in told] == [Began, Ended]


@pytest.mark.parametrize("settings", ["", "{}", "[]", '{"folder": "/nowhere"}'])
def test_whatever_is_wrong_with_us_the_script_runs(tmp_path: Path, settings: str) -> None:
    (tmp_path / "settings.json").write_text(settings)
    done = subprocess.run(
        [sys.executable, "-c", "print('script')"],
        env=os.environ | {VARIABLE: str(tmp_path / "settings.json"), "PYTHONPATH": str(BOOTSTRAP)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert (done.stdout, done.stderr) == ("script\n", "")


TRACKERS = {
    "wandb": "def init(project=0, mode=0, resume=0):\n    return (project, mode, resume)\n",
    "mlflow": "def set_tracking_uri(uri):\n    return uri\n",
    "neptune": "def init_run(mode=None):\n    return mode\n",
    "comet_ml": "class Experiment: ...\nclass OfflineExperiment: ...\n",
}
TRACKING = """
import comet_ml, mlflow, neptune, os, wandb
print(wandb.init("mine", mode="online", resume="must"))
print(mlflow.set_tracking_uri("sqlite:///mine.db"), mlflow.set_tracking_uri("https://there"))
print(neptune.init_run(mode="async"), comet_ml.Experiment is comet_ml.OfflineExperiment)
print(os.environ["MLFLOW_TRACKING_URI"])
"""


def test_trackers_work_offline_whatever_the_script_asks_for(tmp_path: Path) -> None:
    (tmp_path / "work").mkdir()
    for name, text in TRACKERS.items():
        (tmp_path / "work" / f"{name}.py").write_text(text)
    tracking = run(tmp_path, TRACKING, {})
    own = f"file:{tmp_path / 'reports' / 'trackers'}/mlruns"
    assert tracking.output.splitlines() == [
        "('mine', 'offline', 0)",
        f"sqlite:///mine.db {own}",
        "offline True",
        own,
    ]
    assert not tracking.of(Failed)


def test_trackers_of_a_run_that_is_watched_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / "work").mkdir()
    (tmp_path / "work" / "wandb.py").write_text(TRACKERS["wandb"])
    script = "import wandb\nprint(wandb.init(mode='online'))"
    assert run(tmp_path, script, {"mode": "watch"}).output == "(0, 'online', 0)\n"


class Card:
    """As much of ``torch.cuda`` as the bootstrap asks."""

    def __init__(self, capturing: bool) -> None:
        self.capturing, self.waited = capturing, 0

    def synchronize(self) -> None:
        self.waited += 1

    def is_current_stream_capturing(self) -> bool:
        return self.capturing

    def is_initialized(self) -> bool:
        return True

    def current_device(self) -> int:
        return 1

    def max_memory_allocated(self) -> int:
        return 5

    def max_memory_reserved(self) -> int:
        return 7

    def get_device_properties(self, device: object) -> SimpleNamespace:
        return SimpleNamespace(name="a card", total_memory=9)


@pytest.mark.parametrize(
    ("kind", "capturing", "waited"), [("cuda", False, 1), ("cuda", True, 0), ("cpu", False, 0)]
)
def test_the_device_is_waited_for_unless_a_graph_is_recorded(
    part: Callable[[str], ModuleType], kind: str, capturing: bool, waited: int
) -> None:
    card, device = Card(capturing), SimpleNamespace(type=kind)
    watch = SimpleNamespace(steps=SimpleNamespace(device=device), torch=SimpleNamespace(cuda=card))
    assert part("watch").ProcessWatch.synchronize(watch) is bool(waited)
    assert card.waited == waited


def test_memory_and_name_of_a_card(part: Callable[[str], ModuleType]) -> None:
    torch = SimpleNamespace(cuda=Card(False))
    found = part("modes").memory_of(torch)
    assert (found["device"], found["allocated_peak"], found["reserved_peak"]) == ("cuda:1", 5, 7)
    describe = part("watch").ProcessWatch.describe_device
    assert describe(SimpleNamespace(torch=torch), SimpleNamespace(type="cuda")) == ("a card", 9)
    assert describe(SimpleNamespace(torch=torch), SimpleNamespace(type="cpu")) == ("", None)


@pytest.mark.parametrize(
    ("compiler", "compiling"),
    [
        (SimpleNamespace(is_compiling=lambda: True), True),
        (SimpleNamespace(is_compiling=lambda: False), False),
        (SimpleNamespace(), False),  # torch 2.1
        (None, False),
    ],
)
def test_whether_torch_only_traces_is_asked_of_those_that_know(
    part: Callable[[str], ModuleType], compiler: object, compiling: bool
) -> None:
    watch = SimpleNamespace(torch=SimpleNamespace(compiler=compiler))
    assert part("watch").ProcessWatch.is_compiling(watch) is compiling
