"""From what a user types to a workload: every kind of target, and every way to get it wrong."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch._utils import ExceptionWrapper
from torch.utils.data import DataLoader

from epochcast.errors import EpochcastError, UsageError, WorkloadError
from epochcast.profiler.builtin import BUILTIN
from epochcast.profiler.protocol import TrialSpec, WorkloadSpec
from epochcast.profiler.sweep import slug
from epochcast.profiler.target import build, canonical, load, meant, require_name, source_of
from epochcast.profiler.workload import first_line, knobs_of

PARSING = """
import argparse
parser = argparse.ArgumentParser()
parser.add_argument("--data", required=True)
parser.parse_args()
"""
WORKLOAD = """
import torch
from epochcast import Workload

CALLS = []

def workload(width: int = 3, rate: float = 0.1, name: str = "x", deep: bool = False, data=None):
    CALLS.append((width, rate, name, deep, data))
    model = torch.nn.Linear(width, 1)
    return Workload(
        model=model,
        train_data=torch.utils.data.TensorDataset(torch.zeros(8, width), torch.zeros(8, 1)),
        optimizer=torch.optim.SGD(model.parameters(), lr=rate),
        loss=torch.nn.functional.mse_loss,
        loader_options={"pin_memory": False},
    )

def without_knobs():
    return workload()

def wrong():
    return 3

def required(width):
    return workload(width)

def listed(widths=(1, 2)):
    return workload()

def parsing():
    import argparse
    parser = argparse.ArgumentParser()
    parser.add_argument("--width", type=int, required=True)
    return workload(parser.parse_args().width)

def with_workers():
    made = workload()
    made.loader_options = {
        "pin_memory": False, "num_workers": 1, "prefetch_factor": 4,
        "persistent_workers": True, "timeout": 9, "multiprocessing_context": "fork",
    }
    return made

def rest(width=3, *args, **kwargs):
    return workload(width)

number = 3
"""


@pytest.fixture(autouse=True)
def clean_imports():
    """Every test imports afresh and leaves no modules behind."""
    load.cache_clear()
    modules, path = dict(sys.modules), list(sys.path)
    yield
    for name in set(sys.modules) - set(modules):
        if not name.startswith(("torch", "epochcast", "numpy", "sklearn", "scipy")):
            del sys.modules[name]
    sys.path[:] = path
    load.cache_clear()


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "their_training.py"
    path.write_text(WORKLOAD)
    return path


def spec_of(target, sizes=(), data=None, **overrides):
    workload = WorkloadSpec(target=target, data=data, overrides=tuple(sorted(overrides.items())))
    return TrialSpec(workload=workload, sizes=sizes)


def refused(kind, target):
    with pytest.raises(EpochcastError) as caught:
        load(target)
    assert type(caught.value) is kind
    message = str(caught.value)
    assert "\n" not in message
    return message


# -- every kind of target -----------------------------------------------------------------------


@pytest.mark.parametrize("name", BUILTIN)
def test_a_built_in(name):
    assert load(name) is BUILTIN[name]


def test_a_file(file):
    assert load(f"{file}:workload").__name__ == "workload"
    assert load(f"{file}:workload").__module__ == "their_training"  # not __main__


def test_a_file_is_executed_once(file):
    load(f"{file}:workload")
    file.write_text("raise RuntimeError('executed twice')")
    assert load(f"{file}:workload") is load(f"{file}:workload")


def test_a_relative_file_and_its_neighbours(file, monkeypatch):
    (file.parent / "neighbour_of_training.py").write_text("width = 7\n")
    file.write_text("import neighbour_of_training as n\n" + WORKLOAD.replace("= 3,", "= n.width,"))
    monkeypatch.chdir(file.parent.parent)
    function = load(f"{file.parent.name}/their_training.py:workload")
    assert dict(knobs_of(function)[0])["width"] == 7


def test_a_module(file, monkeypatch):
    package = file.parent / "their_package"
    package.mkdir()
    (package / "__init__.py").touch()
    file.rename(package / "training.py")
    monkeypatch.syspath_prepend(str(file.parent))
    assert load("their_package.training:workload").__module__ == "their_package.training"


# -- every error, in one line -------------------------------------------------------------------


def test_no_such_built_in():
    message = refused(UsageError, "mnist-mpl")
    assert "'mnist-mpl'" in message
    assert "mnist-mlp" in message
    assert "file.py:function" in message


def test_no_such_file(tmp_path):
    assert "there is no file" in refused(UsageError, f"{tmp_path}/none.py:workload")
    assert "there is no file" in refused(UsageError, f"{tmp_path}.py:workload")


@pytest.mark.parametrize("target", ["no_such_module_here:f", "no_such_package.inner:f", ":f"])
def test_no_such_module(target):
    refused(WorkloadError if target == ":f" else UsageError, target)


def test_a_module_whose_own_import_is_missing(file):
    file.write_text("import not_installed_anywhere\n")
    assert "ModuleNotFoundError: No module named 'not_installed_anywhere'" in refused(
        WorkloadError, f"{file}:workload"
    )


def test_a_missing_import_in_a_module(file, monkeypatch):
    file.write_text("import not_installed_anywhere\n")
    monkeypatch.syspath_prepend(str(file.parent))
    assert "not_installed_anywhere" in refused(WorkloadError, "their_training:workload")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("1 / 0", "ZeroDivisionError: division by zero"),
        ("def f(:", "SyntaxError"),
        ("import sys; sys.exit(3)", "ended the process: exit code 3; it is run without arguments"),
        ("import sys; sys.exit('no GPU')", "ended the process: no GPU; "),
        (PARSING, "error: the following arguments are required: --data; it is run without"),
        ("raise ValueError('one\\ntwo')", "ValueError: one"),
        ("raise ValueError", "ValueError"),
    ],
)
def test_importing_fails(file, text, said):
    file.write_text(text)
    assert said in refused(WorkloadError, f"{file}:workload")


def test_arguments_read_where_the_workload_is_made(file):
    spec = TrialSpec(workload=WorkloadSpec(target=f"{file}:parsing"))
    with pytest.raises(WorkloadError, match=r"calling .*are required: --width; it is run"):
        build(spec)


def test_a_file_sees_its_own_name_as_the_only_argument(file, monkeypatch):
    """A worker's own arguments were read by whoever parses arguments at import."""
    monkeypatch.setattr(sys, "argv", ["-c", "--epochs", "9"])
    file.write_text(
        "import argparse, sys\nSEEN = [*sys.argv]\nparser = argparse.ArgumentParser()\n"
        "parser.add_argument('--epochs', default=3, type=int)\nARGS = parser.parse_args()\n"
        "def workload(): return ARGS.epochs, SEEN"
    )
    assert load(f"{file}:workload")() == (3, [str(file)])


@pytest.mark.parametrize("name", ["worklaod", "number", ""])
def test_no_such_function(file, name):
    message = refused(WorkloadError, f"{file}:{name}")
    assert "workload, without_knobs, wrong" in message


def test_a_file_without_functions(file):
    file.write_text("")
    assert "it defines: none" in refused(WorkloadError, f"{file}:workload")


def test_not_python(tmp_path):
    path = tmp_path / "binary.py"
    path.write_bytes(b"\x00\xff\xfe")
    refused(WorkloadError, f"{path}:workload")


# -- knobs and data -----------------------------------------------------------------------------


def test_knobs_are_arguments_with_plain_defaults(file):
    knobs = (("deep", False), ("name", "x"), ("rate", 0.1), ("width", 3))
    assert knobs_of(load(f"{file}:workload")) == (knobs, True)
    assert knobs_of(load(f"{file}:without_knobs")) == ((), False)
    assert knobs_of(load(f"{file}:rest")) == ((("width", 3),), False)


@pytest.mark.parametrize("name", ["required", "listed"])
def test_an_argument_that_cannot_be_a_knob(file, name):
    with pytest.raises(WorkloadError, match="needs a default that is a number"):
        knobs_of(load(f"{file}:{name}"))


def test_knobs_and_data_reach_the_function(file):
    build(spec_of(f"{file}:workload", sizes=(("rate", 0.5), ("width", 5)), data="/some/where"))
    build(spec_of(f"{file}:workload"))
    calls = sys.modules["their_training"].CALLS
    assert calls == [(5, 0.5, "x", False, "/some/where"), (3, 0.1, "x", False, None)]


def test_a_function_must_return_a_workload(file):
    with pytest.raises(WorkloadError, match=r"must return an epochcast\.Workload, but got int"):
        build(spec_of(f"{file}:wrong"))


def test_overrides(file):
    target = f"{file}:workload"
    plain = build(spec_of(target))
    changed = build(
        spec_of(target, accumulation=3, precision="bf16", workers=2, drop_last=True, compile=True)
    )
    assert (plain.accumulation, plain.precision, plain.drop_last) == (1, "fp32", False)
    assert (changed.accumulation, changed.precision) == (3, "bf16")
    assert changed.drop_last
    assert changed.compile
    assert changed.loader_options == {"pin_memory": False, "num_workers": 2}
    with pytest.raises(WorkloadError, match="accumulation must be at least 1"):
        build(spec_of(target, accumulation=0))


def test_without_loader_workers_what_is_about_them_is_dropped(file):
    target = f"{file}:with_workers"
    options = build(spec_of(target)).loader_options
    assert build(spec_of(target, workers=2)).loader_options == {**options, "num_workers": 2}
    alone = build(spec_of(target, workers=0))
    assert alone.loader_options == {"pin_memory": False, "num_workers": 0}
    assert len(list(DataLoader(alone.train_data, **alone.loader_options))) > 0


# -- where a workload comes from ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("target", "same"),
    [
        ("./train.py:workload", "train.py:workload"),
        ("a/../train.py:f", "train.py:f"),
        ("a//b.py:f", "a/b.py:f"),
        ("mnist-mlp", "mnist-mlp"),
        ("package.module:f", "package.module:f"),
        ("/x/train.py:f", "/x/train.py:f"),
        (f"{Path.cwd()}/train.py:f", "train.py:f"),
        (f"../{Path.cwd().name}/a/train.py", "a/train.py"),
        (f"{Path.cwd()}/run.sh", "run.sh"),
        ("../train.py", f"{Path.cwd().parent}/train.py"),
        ("a\0b.py:f", "a\0b.py:f"),
    ],
)
def test_canonical(target, same):
    assert Path(canonical(target)) == Path(same)
    assert canonical(canonical(target)) == canonical(target)


def test_the_source_changes_with_the_file(file, tmp_path):
    target = f"{file}:workload"
    before = source_of(target)
    assert before == source_of(target) == source_of(f"{file}:without_knobs")
    copy = tmp_path / "copy.py"
    copy.write_text(WORKLOAD)
    assert source_of(f"{copy}:workload") == before
    file.write_text(WORKLOAD + "\n")
    assert source_of(target) != before


def test_sources_of_modules_and_built_ins(file, monkeypatch):
    monkeypatch.syspath_prepend(str(file.parent))
    in_file = source_of(f"{file}:workload")
    load("their_training:workload")
    assert source_of("their_training:workload") == in_file
    assert source_of("mnist-mlp") == source_of("char-gpt") != ""
    assert source_of(f"{file.parent}/none.py:workload") == ""


# -- one line of an error -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (ValueError("no"), "ValueError: no"),
        (ValueError("  one  \ntwo"), "ValueError: one"),
        (ValueError(), "ValueError"),
        (ValueError("\n"), "ValueError"),
        (KeyError("x"), "KeyError: 'x'"),
    ],
)
def test_first_line(error, line):
    assert first_line(error) == line


@pytest.mark.parametrize("error", [ValueError("no item 0"), KeyError("no item 0"), OSError(5, "x")])
def test_first_line_of_an_error_in_a_loader_worker(error):
    try:
        raise error
    except type(error):
        wrapped = ExceptionWrapper(where="in DataLoader worker process 0")  # as the loader does
    with pytest.raises(type(error)) as caught:
        wrapped.reraise()
    assert first_line(caught.value) == f"{type(error).__name__}: {error}"


@given(st.text(max_size=30))
@settings(max_examples=30, deadline=None)
def test_first_line_is_one_line(text):
    assert len(first_line(RuntimeError(text)).splitlines()) == 1


def test_building_is_the_same_every_time():
    spec = spec_of("digits-mlp", sizes=(("depth", 1), ("width", 8)))
    torch.manual_seed(0)
    first = build(spec).model.state_dict()
    torch.manual_seed(0)
    again = build(spec).model.state_dict()
    assert all(torch.equal(first[name], again[name]) for name in first)


def test_a_module_has_the_source_of_its_file_whether_it_was_imported_or_not(tmp_path, monkeypatch):
    """Found by its path, so that nothing of the user's is executed; empty where it is not."""
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "__init__.py").write_text("raise RuntimeError('executed')")
    (tmp_path / "mine" / "training.py").write_text("def workload(): ...")
    monkeypatch.syspath_prepend(tmp_path)
    found = source_of("mine.training:workload")
    assert found == source_of(f"{tmp_path / 'mine' / 'training.py'}:workload") != ""
    assert source_of("not.there:workload") == ""


@pytest.mark.parametrize(
    ("target", "names"),
    [
        ("train.py", ["train.py"]),  # itself before a longer one
        ("./mnist.py", ["/home/me/mnist.py"]),
        ("me/mnist.py", ["/home/me/mnist.py"]),
        ("/home/me/mnist.py", ["/home/me/mnist.py"]),
        ("twice.py", ["a/twice.py", "b/twice.py"]),
        ("nist.py", []),
        ("train.py:workload", ["a/train.py:workload"]),
    ],
)
def test_a_path_may_be_told_by_its_end(target: str, names: list[str]) -> None:
    known = ["train.py", "/x/train.py", "/home/me/mnist.py", "a/twice.py", "b/twice.py"]
    assert meant(target, [*known, "a/train.py:workload"]) == tuple(names)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("", "must not be empty"),
        (" \t", "must not be empty"),
        ("x" * 101, "at most 100 characters, but got 101"),
        ("x" * 10_000, "at most 100 characters, but got 10,000"),
        *((f"a{c}b", "letters and digits, .*, but got .a") for c in "\n\x1b\udcff ,:/\\'$😀\u202e"),
        ("--fresh", "of letters and digits"),
        ("..", "of letters and digits"),
        ("v1.", "of letters and digits"),
        ("other.py:workload", "of letters and digits"),
        ("https://example.org/net", "of letters and digits"),
        ("other.py", "names code"),
        ("run.sh", "names code"),
        ("mnist-mlp", "names code"),
    ],
)
def test_names_that_would_pass_for_something_else(name, said):
    with pytest.raises(UsageError, match=said):
        require_name(name, "train.py:workload")


@pytest.mark.parametrize(
    "name", ["bigger-head", "größer-模型", "बड़ा", "e\u0301", "x" * 100, "v1.2"]
)
def test_names_that_stand_for_themselves(name):
    """Two that differ are two file names."""
    require_name(name, "train.py:workload")
    assert slug(name) == name


def test_a_target_may_bear_its_own_name():
    require_name("train.py:workload", "train.py:workload")
    require_name(None, "train.py:workload")
