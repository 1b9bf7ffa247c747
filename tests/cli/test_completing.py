"""What a shell completes after a Tab."""

from __future__ import annotations

from pathlib import Path

import pytest
import truths
from click.shell_completion import ShellComplete

from epochcast.cli import cli
from epochcast.devices.cards import CATALOGUE
from epochcast.profiler.builtin import BUILTIN
from epochcast.profiler.target import BUILTIN_NAMES
from epochcast.storage.store import Store


@pytest.fixture(autouse=True)
def there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def completed(line: str) -> list[str]:
    """Of a line whose last word is being typed; empty after a blank."""
    *words, begun = line.split(" ")
    shell = ShellComplete(cli, {}, "epochcast", "_EPOCHCAST_COMPLETE")
    return [item.value for item in shell.get_completions(words, begun)]


def test_where_nothing_was_probed_what_is_built_in_is_completed() -> None:
    Path("train.py").touch()
    assert set(BUILTIN_NAMES) == set(BUILTIN)
    assert completed("predict ") == [*BUILTIN_NAMES, "train.py:"]
    assert completed("predict --set ") == completed("predict --device ") == []
    assert completed("pre") == ["predict"]
    assert completed("dry-run --device a100") == [n for n in CATALOGUE if n.startswith("a100")]
    assert completed("probe --device c") == ["cpu", "cuda"]


def test_workloads_knobs_and_devices_are_those_of_the_store() -> None:
    measured = truths.sweep((32,), (256,), rounds=1)
    for where in (None, "other"):
        with Store.open(where) as store:
            store.add_all(measured)
    device = measured[0].device
    assert completed("plan im") == ["imaginary"]
    assert completed("predict imaginary --set ") == ["depth=", "width="]
    assert completed("predict digits-mlp --set ") == []
    assert completed("fit --device ") == [device.id, device.kind]
    assert completed("predict --store other --set w") == ["width="]
    assert completed("predict --store absent --set w") == []
