"""Where a store is: from what a person says to an address, of which everything shown is harmless.

    None  (.epochcast/measurements.sqlite)     ─┐
    "probes.sqlite", "sqlite:///probes.sqlite" ─┼─ locate() ─▶ Address ─ check_file() ─▶ Database
    "postgresql://user@host/name"              ─┘

Passwords are taken out of a URL at once, into ``Address.secrets``, which nothing prints. Without
one in the URL libpq looks into PGPASSWORD and ~/.pgpass by itself.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from urllib.parse import parse_qsl, quote, unquote, urlencode

from epochcast.errors import StoreError, UsageError

DEFAULT_FOLDER = Path(".epochcast")
FILE_NAME = "measurements.sqlite"
APPLICATION_ID = 0x45504F43  # "EPOC": marks our SQLite files (https://sqlite.org/fileformat.html)

_FILES = ("sqlite", "sqlite+pysqlite")
_SERVERS = ("postgres", "postgresql", "postgresql+psycopg")
_SECRET = ("password", "sslpassword")  # of libpq's parameters
_MASK = "***"
_ALLOWED = "a store is a path, sqlite:///PATH or postgresql://USER@HOST/NAME"
_URL_PASSWORD = re.compile(r"(?P<before>\b[\w+.-]+:/+[^\s:/?#]*:)[^\s]*(?=@)")
_PASSWORD = re.compile(r"(?P<before>[^\s:/?#]*:)(?!//)[^\s]*(?=@)")  # of a URL that is mistyped
_PASSWORD_PARAMETER = re.compile(r"(?i)(?P<before>\b(?:ssl)?password=)[^\s&'\"]+")


@dataclass(frozen=True, slots=True, kw_only=True)
class Address:
    """Where a store is.

    Attributes:
        label: for people, and as ``--store``; holds no password.
        folder: for the files that go with the store, such as logs and traces; absolute.
        path: of a SQLite file, absolute; None for a server.
        option: what names the store on a command line; empty for the default one.
        dsn: of a server, for libpq; holds no password.
        secrets: what else libpq is told; never shown.
    """

    label: str
    folder: Path
    path: Path | None = None
    option: str = ""
    dsn: str = ""
    secrets: Mapping[str, str] = field(default_factory=dict, repr=False)

    def masked(self, text: str) -> str:
        """A text without what must not be shown."""
        for secret in self.secrets.values():
            for form in (secret, quote(secret, safe=""), quote(secret)):
                text = text.replace(form, _MASK) if form else text
        return masked(text)


def masked(text: str) -> str:
    """A text without the passwords of URLs, mistyped ones too: for what repeats what was typed."""
    for password in (_URL_PASSWORD, _PASSWORD):
        text = password.sub(rf"\g<before>{_MASK}", text)
    return _PASSWORD_PARAMETER.sub(rf"\g<before>{_MASK}", text)


def locate(url: str | None = None, folder: Path | None = None) -> Address:
    """The store that a user means by a path or URL; without one, the default file in ``folder``.

    Files that go with the store live in ``folder`` if given; else beside a SQLite file (for
    ``probes.sqlite`` in ``probes.files/``), or for a server in the default folder.

    Raises:
        UsageError: neither a path nor a URL of a supported database.
    """
    if url is None:
        home = folder or DEFAULT_FOLDER
        return _file_address(home / FILE_NAME, home, str(home))
    if not url.strip():
        raise UsageError(f"{_ALLOWED}, but got an empty text")
    if "\0" in unquote(url):
        raise UsageError(f"the name of a store has no NUL character, but got {masked(url)!r}")
    address = _named(url, folder)
    return replace(address, option=f" --store {shlex.quote(address.label)}")


def _named(url: str, folder: Path | None) -> Address:
    scheme, separator, rest = url.partition("://")
    if not separator:
        _refuse_mistyped(url)
        return _file_address(Path(url).expanduser(), folder, url)
    if scheme in _SERVERS:
        return _server_address(rest, (folder or DEFAULT_FOLDER).absolute())
    if scheme not in _FILES:
        shown = scheme if re.fullmatch(r"[\w+.-]+", scheme) else "…"
        raise UsageError(f"{_ALLOWED}, but got {shown}://…")
    path = unquote(rest.removeprefix("/"))
    if "?" in rest or not rest.startswith("/") or path in ("", ":memory:"):
        raise UsageError("a SQLite store is a file: use sqlite:///PATH, without options")
    return _file_address(Path(path), folder, path)


def _refuse_mistyped(path: str) -> None:
    """What looks like a URL with a mistake is no file: it may hold a password, which a path shows.

    Raises:
        UsageError: it does; the text is not repeated.
    """
    scheme = path.partition(":")[0] if ":" in path else path.partition("//")[0]
    if scheme in (*_SERVERS, *_FILES) and scheme != path:
        raise UsageError(f"{_ALLOWED}, but got {scheme} without ://")
    if re.search(r":.*@", path, re.DOTALL):
        raise UsageError(
            f"{_ALLOWED}, but got a text with a : and an @; for a file: sqlite:///PATH"
        )


def _server_address(rest: str, folder: Path) -> Address:
    """Of ``[USER[:PASSWORD]@][HOST[:PORT]][/NAME][?PARAMETER=VALUE…]``."""
    who, at, where = rest.rpartition("@")
    user, colon, password = who.partition(":")
    if re.search(r"[/?#@\[\]\s]", who):  # libpq would take a part of it for a host, and print it
        raise UsageError(
            "the user or password in a store's URL holds one of / ? # @ [ ] or a space: "
            "write it as %2F, %3F, … or leave the password to ~/.pgpass or PGPASSWORD"
        )
    place, _, query = where.partition("?")
    hosts = re.sub(r"\[[^\]]*\]", "", place.partition("/")[0])  # without those of IPv6
    if re.search(r":(?!\d*(,|$))", hosts):
        raise UsageError("the port in a store's URL is a number: postgresql://USER@HOST:PORT/NAME")
    pairs = parse_qsl(query, keep_blank_values=True)
    secrets = {name: value for name, value in pairs if name in _SECRET}
    if colon and password:
        secrets["password"] = unquote(password)
    kept = urlencode(
        [pair for pair in pairs if pair[0] not in _SECRET], safe="/,:", quote_via=quote
    )
    dsn = f"postgresql://{user}{at}{place}{'?' if kept else ''}{kept}"
    return Address(label=dsn, folder=folder, dsn=dsn, secrets=secrets)


def _file_address(path: Path, folder: Path | None, label: str) -> Address:
    path = path.absolute()
    beside = path.parent if path.name == FILE_NAME else path.parent / f"{path.stem}.files"
    return Address(label=label, folder=(folder or beside).absolute(), path=path)


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
