"""Whatever a script is seen to write is put back: contents, permissions, times, names, links."""

from __future__ import annotations

import json
import os
import shutil
import stat
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from epochcast.scripts import events as e
from epochcast.scripts.side_effects import PREFIX, put_back, recover, working_place


def tree(folder: Path) -> dict[str, tuple[object, ...]]:
    """Everything in a folder, times of change to the nanosecond."""
    found = {}
    for path in [folder, *sorted(folder.rglob("*"))]:
        status = path.lstat()
        text = os.readlink(path) if path.is_symlink() else path.is_file() and path.read_bytes()
        name = path.relative_to(folder).as_posix()
        found[name] = (stat.S_IMODE(status.st_mode), status.st_mtime_ns, text)
    return found


class Script:
    """Writes files, and says so before as the bootstrap does."""

    def __init__(self, folder: Path, kept: Path) -> None:
        self.folder, self.kept = folder, kept
        self.events: list[e.Event] = []
        self.said: set[Path] = set()

    def tell(self, kind: str, path: Path, *, keep: bool = False, target: str = "") -> str:
        known = os.lstat(path) if os.path.lexists(path) else None
        kept = str(self.kept / str(len(self.events))) if keep and known else ""
        above = os.stat(path.parent) if path.parent not in self.said else None
        self.said.add(path.parent)
        self.events.append(
            e.Wrote(
                at=float(len(self.events)),
                kind=kind,  # type: ignore[arg-type]
                path=str(path),
                target=target,
                kept=kept,
                size=known.st_size if known else None,
                permissions=stat.S_IMODE(known.st_mode) if known else None,
                times=(known.st_atime_ns, known.st_mtime_ns) if known else None,
                folder_times=(above.st_atime_ns, above.st_mtime_ns) if above else None,
                link=os.readlink(path) if path.is_symlink() else None,
            )
        )
        return kept

    def write(self, name: str, text: str) -> None:
        path = self.folder / name
        if path.is_dir() or not path.parent.is_dir():
            return
        if not os.path.lexists(path):
            self.tell("created", path)
        else:
            kept = self.tell("changed", path, keep=True)
            if kept and not path.is_symlink():
                shutil.copy2(path, kept)
            path.unlink()
        path.write_text(text)

    def append(self, name: str, text: str) -> None:
        path = self.folder / name
        if path.is_file() and not path.is_symlink():
            self.tell("appended", path)
            with path.open("a") as file:
                file.write(text)

    def remove(self, name: str, _: str) -> None:
        path = self.folder / name
        if not os.path.lexists(path) or path.is_dir():
            return
        kept = self.tell("removed", path, keep=True)
        if path.is_symlink():
            path.unlink()
        else:
            path.rename(kept)

    def rename(self, name: str, text: str) -> None:
        path, target = self.folder / name, self.folder / f"renamed-{len(text)}"
        if path.exists() and not os.path.lexists(target):
            self.tell("renamed", path, target=str(target))
            path.rename(target)

    def folder_made(self, name: str, text: str) -> None:
        path = self.folder / f"{name}-folder"
        if not os.path.lexists(path):
            self.tell("folder-created", path)
            path.mkdir()
            (path / "unseen").write_text(text)  # as another program would

    def touch(self, name: str, _: str) -> None:
        path = self.folder / name
        if path.is_file() and not path.is_symlink():
            self.tell("touched", path)
            os.utime(path, (1, 1))
            path.chmod(0o600)


ACTIONS = ("write", "append", "remove", "rename", "folder_made", "touch")
NAMES = ("a.txt", "b.bin", "sub/c", "link", "new", "renamed-1")


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(st.sampled_from(ACTIONS), st.sampled_from(NAMES), st.sampled_from(("", "x"))),
        max_size=12,
    )
)
def test_everything_is_as_it_was(tmp_path_factory: pytest.TempPathFactory, did: list) -> None:
    root = tmp_path_factory.mktemp("place")
    folder, kept = root / "folder", root / "kept"
    for one in (folder, folder / "sub", kept):
        one.mkdir()
    (folder / "a.txt").write_text("a" * 100)
    (folder / "b.bin").write_bytes(bytes(range(256)))
    (folder / "sub" / "c").write_text("c")
    (folder / "link").symlink_to("a.txt")
    for number, path in enumerate([*folder.rglob("*"), folder]):
        os.utime(path, ns=(10**18 + number, 10**18 + number), follow_symlinks=False)
    before = tree(folder)
    script = Script(folder, kept)
    for action, name, text in did:
        getattr(script, action)(name, text)
    undone = put_back(script.events)
    assert undone.left == ()
    after = tree(folder)
    del before["link"], after["link"]  # a link has times of its own, which are not kept
    assert after == before
    assert os.readlink(folder / "link") == "a.txt"


def wrote(path: Path, kind: str, **fields: object) -> e.Wrote:
    return e.Wrote(at=0.0, kind=kind, path=str(path), **fields)  # type: ignore[arg-type]


def test_what_cannot_be_put_back_is_listed(tmp_path: Path) -> None:
    (tmp_path / "large").write_text("new")
    undone = put_back(
        [
            wrote(tmp_path / "large", "changed", size=3),
            e.NotKept(at=1.0, what="rsync -a here there", reason="a program was started"),
            e.NotKept(at=1.0, what="/usr/bin/nvidia-smi -q", reason="a program was started"),
        ]
    )
    assert undone.left == (
        f"{tmp_path / 'large'}: its former content was not kept",
        "rsync -a here there: a program was started",
    )


def test_nothing_is_undone_in_a_folder_that_was_overlaid(tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("x")
    assert put_back([wrote(tmp_path / "mine", "created")], [str(tmp_path)]).places == 0
    assert (tmp_path / "mine").exists()


def test_a_place_is_gone_afterwards_and_so_is_its_ticket(tmp_path: Path) -> None:
    folder, tickets = tmp_path / "folder", tmp_path / "store" / "scripts"
    folder.mkdir()
    with working_place(folder, tickets, overlay=True) as place:
        assert place.events.is_dir()
        assert list(tickets.glob(f"{PREFIX}*.json"))
        (place.temporary / "shared").symlink_to(folder)
        layers = place.layers
        assert layers is None or layers.is_dir()
    assert not place.root.exists()
    assert not tickets.exists()
    assert layers is None or not layers.exists()
    assert set(tmp_path.rglob("*")) == {folder, tmp_path / "store"}


def test_a_folder_that_holds_temporary_files_is_not_overlaid(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "project"
    (folder / "tmp").mkdir(parents=True)
    monkeypatch.setattr(tempfile, "tempdir", str(folder / "tmp"))
    with working_place(folder, tmp_path / "scripts", overlay=True) as place:
        assert place.root.is_relative_to(folder)
        assert place.overlays == ()


KILLED = """
import os, signal, sys
from pathlib import Path
from epochcast.scripts.side_effects import working_place
folder, tickets = Path(sys.argv[1]), Path(sys.argv[2])
with working_place(folder, tickets, overlay=False) as place:
    path, size = folder / "log.txt", (folder / "log.txt").stat().st_size
    line = '{"event":"wrote","at":1.0,"kind":"appended","path":"%s","size":%d}'
    (place.events / "1.jsonl").write_text(line % (path, size) + "\\n")
    path.open("a").write("more")
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_what_a_killed_probe_left_is_put_back_by_the_next(tmp_path: Path) -> None:
    tickets = tmp_path / "scripts"
    log = tmp_path / "log.txt"
    log.write_text("before")
    arguments = [sys.executable, "-c", KILLED, str(tmp_path), str(tickets)]
    assert subprocess.run(arguments, check=False).returncode == -9
    assert log.read_text() == "beforemore"
    (ticket,) = tickets.glob("*.json")
    root = Path(json.loads(ticket.read_text())["root"])
    assert root.is_dir()
    undone = recover(tickets)
    assert (undone.places, undone.left) == (1, ())
    assert log.read_text() == "before"
    assert not root.exists()
    assert not list(tickets.glob("*"))


def test_a_probe_that_is_under_way_is_left_alone(tmp_path: Path) -> None:
    with working_place(tmp_path, tmp_path / "scripts", overlay=False) as place:
        assert recover(tmp_path / "scripts").places == 0
        assert place.root.is_dir()


def test_what_lies_in_an_overlaid_folder_need_not_be_kept(tmp_path: Path) -> None:
    large = tmp_path / "over" / "large.bin"
    events = [
        e.NotKept(at=1.0, what=str(large), reason="too large to copy"),
        e.NotKept(at=1.0, what=str(tmp_path / "overt.bin"), reason="too large to copy"),
    ]
    undone = put_back(events, [str(tmp_path / "over")])
    assert undone.left == (f"{tmp_path / 'overt.bin'}: too large to copy",)
