"""Results as tables: alone, old beside new, and what goes into the documentation.

summary   a few rows that say most
matrix    kind and noise × place: median error (P90), share held
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import astuple, dataclass
from itertools import chain
from math import expm1
from typing import Any

import numpy as np

from . import designs as d
from .kinds import KINDS
from .results import Key, Results
from .scoring import Row
from .trials import Law

CHEAPER = ("patch", "stride", "frozen", "sparsity")
TAILED = tuple(name for name, kind in KINDS.items() if kind.tail)


# -- a few rows that say most -------------------------------------------------------------------


def _smooth(key: Key) -> bool:
    return key.kind not in TAILED and key.rounds > 1


def _place(where: str) -> Callable[[Key], bool]:
    return lambda key: _smooth(key) and key.where == where and key.kind not in CHEAPER


def _one_round(device: str, noise: float) -> Callable[[Key], bool]:
    return lambda key: (
        key.rounds == 1
        and (key.device, key.noise) == (device, noise)
        and key.where in (d.MEASURED, d.INSIDE)
    )


def _steps(kind: str, steps: int) -> Callable[[Key], bool]:
    return lambda key: (
        key.kind == kind
        and key.design.startswith(f"{steps} steps")
        and key.where in (d.MEASURED, d.INSIDE)
    )


SUMMARY: tuple[tuple[str, Callable[[Key], bool]], ...] = (
    *((where, _place(where)) for where in d.PLACES),
    *(
        (f"{where}, {'with' if counted else 'without'} counts", belongs)
        for where in (d.INSIDE, d.BETWEEN, d.BEYOND)
        for counted in (False, True)
        for belongs in [
            lambda key, w=where, c=counted: (
                _place(w)(key) and key.counted == c and key.design.startswith("3 x")
            )
        ]
    ),
    (
        "cheaper knob inside",
        lambda key: _smooth(key) and key.kind in CHEAPER and key.where == d.BETWEEN,
    ),
    (
        "cheaper knob beyond, no counts",
        lambda key: (
            _smooth(key)
            and key.kind in CHEAPER
            and key.where in (d.BEYOND, d.BELOW)
            and not key.counted
        ),
    ),
    *(
        (f"one round, {device}, noise {noise:.1%}", _one_round(device, noise))
        for device in d.DEVICES
        for noise in (0.005, 0.02, 0.08)
    ),
    *(
        (f"{kind}, {steps} steps a trial", _steps(kind, steps))
        for kind in TAILED
        for steps in d.STEPS
    ),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class LawRow:
    """All paths of a law: neighbours that fall though measured times rise; jumps of log time."""

    pairs: int
    falling: int
    jump_p90: float
    jump_max: float


def law_row(by_kind: Mapping[str, Sequence[Law]]) -> LawRow:
    """Of all kinds together."""
    laws = list(chain.from_iterable(by_kind.values()))
    jumps = [jump for law in laws for jump in law.jumps] or [0.0]
    return LawRow(
        pairs=sum(law.pairs for law in laws),
        falling=sum(law.falling for law in laws),
        jump_p90=expm1(float(np.quantile(jumps, 0.9))),
        jump_max=expm1(max(jumps)),
    )


# -- text ---------------------------------------------------------------------------------------


def percent(value: float) -> str:
    """Two digits, or whole per cents from ten on."""
    return f"{value:.0%}" if abs(value) >= 0.0995 else f"{value:.1%}"


COLUMNS: tuple[tuple[str, Callable[[Row], str]], ...] = (
    ("n", lambda r: f"{r.count}"),
    ("median", lambda r: percent(r.median)),
    ("P90", lambda r: percent(r.p90)),
    ("bias", lambda r: f"{r.bias:+.1%}"),
    ("in P10–P90", lambda r: f"{r.p10_p90:.0%}"),
    ("in P5–P95", lambda r: f"{r.p05_p95:.0%}"),
    ("P95/P5", lambda r: f"{r.width:.2f}"),
    ("above P90", lambda r: f"{r.above_p90:.0%}"),
    ("refused", lambda r: f"{r.refused or ''}"),
)


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Markdown, in columns that can be read as they are."""
    lines = [list(head), *map(list, rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    lines.insert(1, ["-" * max(3, widths[0]), *("-" * max(2, w - 1) + ":" for w in widths[1:])])
    return "\n".join(
        "| " + " | ".join(cell.ljust(w) for cell, w in zip(line, widths, strict=True)) + " |"
        for line in lines
    )


def show(results: Results, by: Sequence[str]) -> str:
    """The summary, the laws and every row, as Markdown.

    Args:
        results: of one run.
        by: fields of a key that tell rows apart.
    """
    rows = results.rows(by)
    every = [[*map(_name, key), *_cells(rows[key])] for key in sorted(rows, key=_order)]
    head = [*by, *(name for name, _ in COLUMNS)]
    return "\n\n".join([summary_text(results), laws_text(results), table(head, every)])


def laws_text(results: Results) -> str:
    """How often neighbours fall, kind by kind."""
    rows = [[f"{name} {kind}", *cells] for name, kind, cells in _law_rows(results)]
    return table(LAW_HEAD, rows)


def summary_text(results: Results) -> str:
    """A few rows that say most."""
    found = [(name, results.pooled(of)) for name, of in SUMMARY]
    rows = [[name, *_cells(row)] for name, row in found if row is not None]
    return table(["where", *(name for name, _ in COLUMNS)], rows)


def matrix(results: Results, by: Sequence[str], belongs: Callable[[Key], bool]) -> str:
    """Median error (P90) and the share held by P5–P95, at every place.

    Args:
        results: of one run.
        by: fields of a key that tell lines apart.
        belongs: which groups.
    """
    some = results.where(belongs).rows([*by, "where"])
    lines = sorted({key[:-1] for key in some}, key=_order)
    rows = [
        [*map(_name, line), *(_short(some.get((*line, place))) for place in d.PLACES)]
        for line in lines
    ]
    return table([*by, *d.PLACES], rows)


def _short(found: Row | None) -> str:
    if found is None:
        return "–"
    return f"{percent(found.median)} ({percent(found.p90)}) {found.p05_p95:.0%}"


def document(results: Results) -> str:
    """What goes into the documentation."""
    about = results.about
    return "\n\n".join(
        [
            f"{about['seeds']} truths of each kind, {about['fits']:,} fits. "
            "`python benchmarks/truths.py run`",
            summary_text(results),
            "Neighbours that are predicted to take less though all that was measured takes more:",
            laws_text(results),
            "Each kind by noise, from two and three rounds: median error (P90), and the share that "
            "P5–P95 holds:",
            matrix(results, ["kind", "noise"], lambda key: key.rounds > 1),
            "One round alone, over all kinds:",
            matrix(results, ["device", "noise"], lambda key: key.rounds == 1),
        ]
    )


def compare(old: Results, new: Results, by: Sequence[str]) -> str:
    """The same with two values in each cell, of the kinds that both have.

    Args:
        old, new: results of two versions.
        by: fields of a key that tell rows apart.
    """
    both = {key.kind for key in old.groups} & {key.kind for key in new.groups}
    old, new = old.only(both), new.only(both)
    head = [name for name, _ in COLUMNS]
    short = [
        [name, *_changes(_cells(before), _cells(after))]
        for name, of in SUMMARY
        if (before := old.pooled(of)) and (after := new.pooled(of))
    ]
    before_rows, after_rows = old.rows(by), new.rows(by)
    every = [
        [*map(_name, key), *_changes(_cells(before_rows[key]), _cells(after_rows[key]))]
        for key in sorted(before_rows.keys() & after_rows.keys(), key=_order)
    ]
    before_laws = {tuple(name): cells for *name, cells in _law_rows(old)}
    laws = [
        [" ".join(name), *_changes(before_laws[tuple(name)], cells)]
        for *name, cells in _law_rows(new)
        if tuple(name) in before_laws
    ]
    return "\n\n".join(
        [
            table(["where", *head], short),
            table(LAW_HEAD, laws),
            table([*by, *head], every),
        ]
    )


LAW_HEAD = ("law", "pairs", "falling", "jump P90", "jump max")


def _law_rows(results: Results) -> list[tuple[str, str, list[str]]]:
    """The laws over all kinds, and over each that is measured in epochs."""
    named = (
        ("never falls along the knob", results.along_knob),
        ("never falls along the batch", results.along_batch),
    )
    return [
        (name, kind, [_law_cell(v) for v in astuple(law_row(laws))])
        for name, by_kind in named
        for kind, laws in (
            ("", by_kind),
            *((f"({kind})", {kind: of}) for kind, of in by_kind.items() if kind not in TAILED),
        )
    ]


def _law_cell(value: float) -> str:
    return f"{value}" if isinstance(value, int) else percent(value)


def _order(key: Sequence[Any]) -> list[Any]:
    """Places as one meets them, anything else by its own order."""
    return [d.PLACES.index(part) if part in d.PLACES else part for part in key]


def _cells(found: Row) -> list[str]:
    return [text(found) for _, text in COLUMNS]


def _changes(before: Sequence[str], after: Sequence[str]) -> list[str]:
    return [a if a == b else f"{a} → {b}" for a, b in zip(before, after, strict=True)]


def _name(value: object) -> str:
    if isinstance(value, bool):
        return "counts" if value else "no counts"
    return f"{value:.1%}" if isinstance(value, float) else str(value)
