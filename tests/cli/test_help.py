"""What ``--help`` says, and what every command can do."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from epochcast.cli import HOMES, cli

IMPERATIVE = re.compile(
    r"(Accumulate|Begin|Choose|Compare|Compile|Compute|Copy|Count|Do|Draw|Drop|End|Evaluate|Fill|Find|Fit|Forget"
    r"|Give|Go|Keep|Leave|Let|List|Listen|Load|Measure|Move|Open|Price|Read|Record|Remove|Run|Save|Say"
    r"|Scale|Share|Show|Spend|Stop|Take|Time|Train|Turn|Use|Write) "
)
STATEMENT = re.compile(  # whose verb is not that of "the device that was probed"
    r"(?!Whether|How|What|Which).*(?<!that)(?<!which)(?<!what)"
    r" (are|comes|costs|count|draws|emits|exchange|goes|has|have|hold|is|must|watch|were) "
)


def _commands(group: click.Group, path: str) -> Iterator[tuple[str, click.Command]]:
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        if isinstance(command, click.Group):
            yield from _commands(command, f"{path} {name}")
        else:
            yield f"{path} {name}".strip(), command


COMMANDS = dict(_commands(cli, ""))
ROOT = click.Context(cli, info_name="epochcast", terminal_width=80, **cli.context_settings)
CONTEXTS = {name: click.Context(c, ROOT, info_name=name) for name, c in COMMANDS.items()}


def test_every_command_has_a_home() -> None:
    assert {name.split()[0] for name in COMMANDS} == set(HOMES)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_can_answer_with_a_document(name: str) -> None:
    assert "--json" in {option for p in COMMANDS[name].params for option in p.opts}


@pytest.mark.parametrize("name", COMMANDS)
def test_help_is_made_of_sentences(name: str) -> None:
    """Each begins with a capital letter, ends with a full stop, and has a verb."""
    command = COMMANDS[name]
    options = [p.help for p in command.params if isinstance(p, click.Option)]
    for text in [command.help, *options]:
        assert text, "no help"
        sentence = text.strip().split("\n\n")[0].strip()
        assert sentence[0].isupper(), sentence
        assert sentence.endswith((".", "…")), sentence
        has_verb = IMPERATIVE.match(sentence) or STATEMENT.match(sentence.replace("\n", " "))
        assert has_verb, f"no verb: {sentence}"


@pytest.mark.parametrize(
    "text",
    [
        "The precision of autocast.",
        "The device that is probed, by its kind.",
        "Whether the loader has workers.",
        "What is asked: the answer.",
    ],
)
def test_a_noun_phrase_is_no_sentence(text: str) -> None:
    assert not IMPERATIVE.match(text)
    assert not STATEMENT.match(text)


def test_the_list_of_commands_is_whole_in_eighty_columns() -> None:
    assert "..." not in cli.get_help(ROOT).partition("Commands:")[2]


def test_a_mistyped_command_is_answered_with_what_it_may_have_meant() -> None:
    found = CliRunner().invoke(cli, ["predct", "--epochs", "3"])
    assert found.exit_code == 2
    assert "no such command 'predct'; did you mean 'predict'?" in found.output
    nothing = CliRunner().invoke(cli, ["xyzzy"])
    assert "no such command 'xyzzy'; there are: probe, predict, compare, plan" in nothing.output


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("plan --epochs 2.5", "--epochs: a plan has whole epochs, but got '2.5': to end within"),
        ("probe mnist-mlp --rounds 0", "--rounds: expected a whole number of at least 1, but got"),
        ("predict --epochs 3 --eval-every x", "--eval-every: expected a number of at least 0"),
        ("predict --epoch 3", "no such option '--epoch'. Did you mean '--epochs'?"),
        ("dry-run", "missing argument 'WORKLOAD' (epochcast dry-run --help)"),
    ],
)
def test_a_mistake_on_the_command_line_is_one_line(line: str, said: str) -> None:
    found = CliRunner().invoke(cli, line.split(), prog_name="epochcast")
    assert found.exit_code == 2
    assert len(found.stderr.splitlines()) == 1
    assert found.stderr.startswith(f"epochcast: {said}")


@pytest.mark.parametrize("name", ["probe", "predict", "plan", "dry-run"])
def test_one_batch_size_or_several_is_one_option(name: str) -> None:
    (option,) = (p for p in COMMANDS[name].params if "--batch-sizes" in p.opts)
    assert {"--batch-size", "--batch-sizes"} <= set(option.opts)


@pytest.mark.parametrize("name", [n for n, c in COMMANDS.items() if getattr(c, "groups", None)])
def test_every_option_is_under_one_heading_of_the_help(name: str) -> None:
    command = COMMANDS[name]
    groups = command.groups  # type: ignore[attr-defined]
    options = {p.name for p in command.params if isinstance(p, click.Option)}
    assert sorted(n for names in groups.values() for n in names) == sorted(options | {"help"})
    text = CliRunner().invoke(cli, [*name.split(), "--help"], prog_name="epochcast").stdout
    assert [heading for heading in groups if f"\n{heading}:\n" in text] == list(groups)


NEEDS_NO_DEFAULT = {"epochs", "steps", "memory", "deadline"}  # a question has them or has not


@pytest.mark.parametrize("name", COMMANDS)
def test_every_option_says_what_holds_without_it(name: str) -> None:
    """In its own text or in its heading; a flag is off, and what is repeatable is not there."""
    command = COMMANDS[name]
    groups = getattr(command, "groups", {}).items()
    headed = {n for heading, names in groups for n in names if "default" in heading}
    for option in command.params:
        if not isinstance(option, click.Option) or option.name in headed | NEEDS_NO_DEFAULT:
            continue
        record = option.get_help_record(CONTEXTS[name])
        assert record, option.name
        switch = option.is_flag and not option.secondary_opts
        assert switch or option.multiple or "default" in record[1].lower(), option.opts


GOLDEN = Path(__file__).with_name("help.txt")


def test_every_help_text_is_as_it_was_last_looked_at() -> None:
    """``UPDATE_HELP=1 pytest tests/cli/test_help.py`` writes them anew, to be read as a diff."""
    texts = [cli.get_help(ROOT), *(c.get_help(CONTEXTS[name]) for name, c in COMMANDS.items())]
    release = ".".join(version("click").split(".")[:2])
    found = "\n\n".join([f"click {release}", *texts]) + "\n"
    if os.environ.get("UPDATE_HELP"):
        GOLDEN.write_text(found, encoding="utf-8")
    golden = GOLDEN.read_text(encoding="utf-8")
    if golden.splitlines()[0] != f"click {release}":
        pytest.skip("another release of click lays out help otherwise")
    assert found == golden
    assert "..." not in texts[0].replace("[ARGS]...", "")  # click would cut short helps
    assert max(map(len, found.splitlines())) <= 80
