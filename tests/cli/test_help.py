"""What ``--help`` says, and what every command can do."""

from __future__ import annotations

from collections.abc import Iterator

import click
import pytest

from epochcast.cli import HOMES, cli

THEIRS = ("plan",)  # whose options are still being written


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


def test_every_command_has_a_home() -> None:
    assert {name.split()[0] for name in COMMANDS} == set(HOMES)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_can_answer_with_a_document(name: str) -> None:
    assert "--json" in {option for p in COMMANDS[name].params for option in p.opts}


@pytest.mark.parametrize("name", COMMANDS)
def test_help_is_made_of_sentences(name: str) -> None:
    """Each begins with a capital letter, ends with a full stop, and is more than two words."""
    command = COMMANDS[name]
    texts = [p.help for p in command.params if isinstance(p, click.Option)]
    assert all(texts), "an option without help"
    for text in [command.help, *texts] if name not in THEIRS else [command.help]:
        assert text is not None
        sentence = text.strip().split("\n\n")[0].strip().strip("`")
        assert sentence[0].isupper(), sentence
        assert sentence.endswith((".", "…")), sentence
        assert len(sentence.split()) > 2, sentence
