"""Where a store is: a path or a URL to an address, and what lies there before it is opened.

None  (.epochcast/measurements.sqlite)     ─┐
"probes.sqlite", "sqlite:///probes.sqlite" ─┼─ locate() ─▶ Address ─ check_file() ─▶ Database
"postgresql+psycopg://user@host/name"      ─┘
"""

from __future__ import annotations

import shlex
from dataclasses import dataclass, replace
from pathlib import Path

from sqlalchemy import URL, make_url
from sqlalchemy.exc import ArgumentError

from epochcast.errors import StoreError

DEFAULT_FOLDER = Path(".epochcast")
FILE_NAME = "measurements.sqlite"
APPLICATION_ID = 0x45504F43  # "EPOC": marks our SQLite files (https://sqlite.org/fileformat.html)

_POSTGRESQL = "postgresql+psycopg"
_DRIVERS = {"sqlite": "sqlite", "sqlite+pysqlite": "sqlite"} | dict.fromkeys(
    ("postgres", "postgresql", _POSTGRESQL), _POSTGRESQL
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Address:
    """Where a store is.

    Attributes:
        url: for SQLAlchemy; may hold a password, so never shown.
        label: for people; holds no password.
        folder: for the files that go with the store, such as logs and traces; absolute.
        path: of a SQLite file, absolute; None for a server.
        option: what names the store on a command line; empty for the default one.
    """

    url: URL
    label: str
    folder: Path
    path: Path | None = None
    option: str = ""


def locate(url: str | None = None, folder: Path | None = None) -> Address:
    """The store that a user means by a path or URL; without one, the default file in ``folder``.

    Files that go with the store live in ``folder`` if given; else beside a SQLite file (for
    ``probes.sqlite`` in ``probes.files/``), or for a server in the default folder.

    Raises:
        StoreError: neither a path nor a URL of a supported database.
    """
    if url is None:
        home = folder or DEFAULT_FOLDER
        return _file_address(home / FILE_NAME, home, str(home))
    address = _named(url, folder)
    return replace(address, option=f" --store {shlex.quote(address.label)}")


def _named(url: str, folder: Path | None) -> Address:
    if "://" not in url:
        return _file_address(Path(url).expanduser(), folder, url)
    parsed = _parse_url(url)
    if parsed.drivername == _POSTGRESQL:
        home = (folder or DEFAULT_FOLDER).absolute()
        return Address(url=parsed, label=_server_label(parsed), folder=home)
    if "?" in url or parsed.database in (None, "", ":memory:"):
        raise StoreError("a SQLite store is a file: use sqlite:///PATH, without options")
    return _file_address(Path(str(parsed.database)), folder, str(parsed.database))


def _parse_url(text: str) -> URL:
    scheme = text.split("://")[0]
    try:
        url = make_url(text)
    except (ArgumentError, ValueError):  # "from None": their messages may quote a password
        raise StoreError(
            f"not a database URL: use {_POSTGRESQL}://USER@HOST/NAME, but got {scheme}://…"
        ) from None
    if url.drivername not in _DRIVERS:
        raise StoreError(
            f"a store is a path, sqlite:///PATH or {_POSTGRESQL}://USER@HOST/NAME, "
            f"but got {scheme}://…"
        )
    return url.set(drivername=_DRIVERS[url.drivername])


def _file_address(path: Path, folder: Path | None, label: str) -> Address:
    path = path.absolute()
    beside = path.parent if path.name == FILE_NAME else path.with_suffix(".files")
    url = URL.create("sqlite", database=str(path))
    return Address(url=url, label=label, folder=(folder or beside).absolute(), path=path)


def _server_label(url: URL) -> str:
    bare = URL.create(url.drivername, url.username, None, url.host, url.port, url.database)
    return bare.render_as_string()


def make_folders(address: Address) -> None:
    """Make the folders of a store.

    Raises:
        StoreError: they cannot be made.
    """
    folders = [address.folder] + ([address.path.parent] if address.path else [])
    for folder in folders:
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StoreError(
                f"the store {address.label}: cannot make its folder {folder}: {error.strerror}; "
                "name another with --store"
            ) from error


def check_file(address: Address) -> bool:
    """Whether there is a SQLite store to open; looks at the file's first bytes only.

    Raises:
        StoreError: there is something else, or it cannot be read.
    """
    if address.path is None:
        return True
    head = _head(address.path, address.label)
    foreign = "name another with --store; this one is left untouched"
    if head and not head.startswith(b"SQLite format 3\0"):
        raise StoreError(f"the store {address.label}: not an epochcast store; {foreign}")
    if head and head[68:72] != APPLICATION_ID.to_bytes(4, "big"):
        raise StoreError(
            f"the store {address.label}: a SQLite database of another program; {foreign}"
        )
    return bool(head)


def _head(path: Path, label: str) -> bytes:
    try:
        if path.exists() and not path.is_file():
            raise StoreError(
                f"the store {label}: a file is expected, but this is a folder or device; "
                f"did you mean {Path(label) / FILE_NAME}?"
            )
        with path.open("rb") as file:
            return file.read(100)
    except (FileNotFoundError, NotADirectoryError):
        return b""
    except OSError as error:
        raise StoreError(
            f"the store {label}: cannot be read: {error.strerror}; "
            "check the permissions of the file and of its folder"
        ) from error
