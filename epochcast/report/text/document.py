"""Records to programs: one JSON document, with a schema number."""

from __future__ import annotations

from typing import Any

from epochcast.records import SCHEMA, to_builtins


def document(**contents: Any) -> dict[str, Any]:
    """A JSON document: records as objects, knobs as an object by name, a schema number."""
    return {"schema": SCHEMA, **{name: _plain(value) for name, value in contents.items()}}


def _plain(value: Any) -> Any:
    plain = to_builtins(value)
    return _with_named_sizes(plain)


def _with_named_sizes(value: Any) -> Any:
    if isinstance(value, dict):
        named = {k: _with_named_sizes(v) for k, v in value.items()}
        for pairs in ("sizes", "details"):
            if isinstance(named.get(pairs), list | tuple):
                named[pairs] = dict(named[pairs])
        return named
    if isinstance(value, list | tuple):
        return [_with_named_sizes(item) for item in value]
    return value
