"""Names are filled in and nothing else is touched; what does not fit together is said."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from epochcast.errors import UsageError
from epochcast.profiler.target import source_of_files, workload_name
from epochcast.scripts.command import (
    Template,
    combinations,
    local_files,
    own_files,
    processes_said,
    require_program,
)

LAUNCHED = ("torchrun", "--nproc_per_node={n}", "train.py", "-b", "{batch_size}", "--n", "{width}")


def test_a_launchers_processes_are_the_world_and_no_knob() -> None:
    launched = Template(arguments=LAUNCHED)
    values = {"n": "2", "batch_size": "16", "width": "64"}
    assert launched.settings(values) == {"world_size": 2, "batch_size": 16}
    assert launched.knobs(values) == {"width": 64}
    assert launched.knobs(values | {"n": "gpu", "workers": "many"}) == {
        "n": "gpu",
        "width": 64,
        "workers": "many",
    }


@pytest.mark.parametrize(
    ("line", "processes"),
    [
        ("torchrun --nproc-per-node 2 train.py", 2),
        ("accelerate launch --cpu --num_processes=4 train.py", 4),
        ("python -m torch.distributed.run --nproc_per_node 2 -m pkg.train", 2),
        ("torchrun --nproc-per-node gpu train.py", None),
        ("python train.py --num-processes 8", None),  # the script's own
        ("torchrun --nproc-per-node 2 -m pkg.train --num-processes 8", 2),
        ("torchrun train.py", None),
    ],
)
def test_how_many_processes_a_launcher_is_told_to_start(line: str, processes: int | None) -> None:
    assert processes_said(line.split()) == processes


def template(*arguments: str, **environment: str) -> Template:
    return Template(arguments=("python", *arguments), environment=tuple(environment.items()))


def test_names_are_filled_in_arguments_and_in_the_environment() -> None:
    command = template("-b", "{batch_size}", "--lr={lr}", "a{lr}b{lr}", WIDTH="{width}x")
    assert command.names == ("batch_size", "lr", "width")
    filled = command.filled({"batch_size": "16", "lr": "1e-3", "width": "007"})
    assert filled.arguments == ("python", "-b", "16", "--lr=1e-3", "a1e-3b1e-3")
    assert filled.environment == (("WIDTH", "007x"),)


@pytest.mark.parametrize(
    "argument",
    [
        '{"lr": 0.1, "layers": {"a": 1}}',
        "{}",
        "{0}",
        "${HOME}",
        "x${lr}",
        "{a,b}",
        "{1..3}",
        "${now:%Y}",
        "{model.width}",
        "awk {print $1}",
        "$(rm -r /)",
    ],
)
def test_braces_that_are_no_names_stay_as_they_are(argument: str) -> None:
    command = template(argument)
    assert command.names == ()
    assert command.filled({}).arguments[1] == argument


def test_a_name_within_json_is_filled_and_doubled_braces_are_themselves() -> None:
    command = template('{"lr": {lr}, "n": {"w":{w}}}', "{{lr}} {lr}")
    filled = command.filled({"lr": "0.1", "w": "2"})
    assert filled.arguments[1:] == ('{"lr": 0.1, "n": {"w":2}}', "{lr} 0.1")


@given(st.text(), st.text())
def test_a_value_is_put_in_as_it_is(value: str, beside: str) -> None:
    around = beside.replace("{", "").replace("}", "").replace("$", "")
    filled = template(f"{around}{{x}}{around}").filled({"x": value})
    assert filled.arguments[1] == f"{around}{value}{around}"


def test_every_combination_once_in_the_order_given() -> None:
    command = template("{b}", "{w}", "{epochs}")
    found = combinations(command, {"b": ("16", "32", "16"), "w": ("1", "2")})
    assert found == [
        {"b": "16", "w": "1"},
        {"b": "16", "w": "2"},
        {"b": "32", "w": "1"},
        {"b": "32", "w": "2"},
    ]
    assert combinations(template("train.py"), {}) == [{}]


@pytest.mark.parametrize(
    ("arguments", "choices", "message"),
    [
        (("{width}",), {}, r"\{width\} has no value; give it: --set width=VALUE"),
        (("x",), {"width": ("1",)}, r"--set width is used nowhere; write \{width\} into an arg"),
        (("{epochs}",), {"epochs": ("1",)}, r"\{epochs\} is filled by the probe itself"),
        (("{w}",), {"w": ()}, r"--set w= needs at least one value"),
    ],
)
def test_a_name_without_a_value_and_a_value_without_a_place_are_refused(
    arguments: tuple[str, ...], choices: dict[str, tuple[str, ...]], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        combinations(template(*arguments), choices)


def test_epochs_need_a_value_where_the_command_is_started_as_it_is() -> None:
    with pytest.raises(UsageError, match=r"\{epochs\} has no value here"):
        template("{epochs}").filled({})


def test_no_command_and_no_program_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no command was given"):
        Template(arguments=())
    with pytest.raises(UsageError, match="needs a name"):
        template("x", **{"": "1"})
    require_program(template("x").filled({}), tmp_path)
    for program in ("no-such-program", "./no-such-program"):
        with pytest.raises(UsageError, match="there is no program"):
            require_program(Template(arguments=(program,)).filled({}), tmp_path)


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        ("python ./train.py --epochs 3", "train.py"),
        ("python -u src/train.py x.py", "src/train.py"),
        ("python -m pkg.train --lr 1", "pkg.train"),
        ("python -m torch.distributed.run --nproc-per-node 2 train.py", "train.py"),
        ("torchrun --nproc-per-node 2 train.py", "train.py"),
        ("torchrun -m pkg.train", "pkg.train"),
        ("accelerate launch --num_processes 2 train.py", "train.py"),
        ("uv run python train.py", "train.py"),
        ("bash run.sh 3", "run.sh"),
        ("/usr/bin/train --lr 1", "train"),
        ("python -c pass", "python"),
    ],
)
def test_a_script_is_called_what_people_call_it(arguments: str, name: str) -> None:
    assert workload_name(arguments.split()) == name


def test_the_fingerprint_is_of_contents_and_names(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text("1")
    (tmp_path / "b.py").write_text("2")
    both = source_of_files(["b.py", "a.py"], tmp_path)
    assert both == source_of_files(["a.py", "b.py", "a.py"], tmp_path)
    assert both != source_of_files(["a.py"], tmp_path)
    (tmp_path / "a.py").write_text("3")
    assert both != source_of_files(["a.py", "b.py"], tmp_path)
    assert source_of_files([], tmp_path) == source_of_files(["none.py"], tmp_path) == ""


def test_installed_packages_are_not_the_scripts_own(tmp_path: Path) -> None:
    files = ["train.py", str(tmp_path / "pkg/model.py"), "/else/where.py"]
    files.append(str(tmp_path / ".venv/lib/python3.11/site-packages/x.py"))
    assert local_files(files, tmp_path) == ("/else/where.py", "pkg/model.py", "train.py")


@pytest.mark.parametrize(
    ("command", "files"),
    [
        ("bash run.sh -b {batch_size}", ("pkg/model.py", "run.sh")),
        ("./run.sh", ("pkg/model.py", "run.sh")),
        ("python -m pkg.model", ("pkg/model.py",)),
        ("bash -c train.sh", ("pkg/model.py",)),  # no file here
        ("make train", ("pkg/model.py",)),
    ],
)
def test_a_shell_script_that_starts_it_is_one_of_its_files(
    command: str, files: tuple[str, ...], tmp_path: Path
) -> None:
    (tmp_path / "run.sh").touch()
    assert own_files(command.split(), [str(tmp_path / "pkg/model.py")], tmp_path) == files
