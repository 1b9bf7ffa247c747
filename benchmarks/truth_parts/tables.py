"""A file of results, and its rows as tables: alone, or old beside new.

group     kind, design, counted, noise, rounds, device, where   ──▶ predictions, refusals
rows      groups that agree in some of these, pooled            ──▶ scoring.Row
summary   a few rows that say most
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import astuple, dataclass, field
from itertools import chain
from math import expm1
from typing import Any, NamedTuple

import numpy as np

from . import designs as d
from .kinds import KINDS
from .scoring import Row, Scored, row
from .trials import Law, Outcome

CHEAPER = ("patch", "stride")
TAILED = tuple(name for name, kind in KINDS.items() if kind.tail)


class Key(NamedTuple):
    """What is alike in a group of predictions."""

    kind: str
    design: str
    counted: bool
    noise: float
    rounds: int
    device: str
    where: str


@dataclass(slots=True)
class Group:
    """Predictions, and how many questions were refused."""

    scored: list[Scored] = field(default_factory=list)
    refused: int = 0


@dataclass(slots=True)
class Results:
    """Everything of one run of the benchmark."""

    about: dict[str, Any] = field(default_factory=dict)
    groups: dict[Key, Group] = field(default_factory=dict)
    along_knob: dict[str, list[Law]] = field(default_factory=dict)  # by kind
    along_batch: dict[str, list[Law]] = field(default_factory=dict)

    def add(self, case: d.Case, outcome: Outcome) -> None:
        """What came of one case."""
        condition, design = case.condition, case.design
        for where in outcome.scored:
            key = Key(
                case.kind,
                design.name,
                design.counted,
                condition.noise,
                condition.rounds,
                condition.device,
                where,
            )
            group = self.groups.setdefault(key, Group())
            group.scored += outcome.scored[where]
            group.refused += outcome.refused.get(where, 0)
        for name in ("along_knob", "along_batch"):
            law = getattr(outcome, name)
            if law is not None:
                getattr(self, name).setdefault(case.kind, []).append(law)

    def document(self) -> dict[str, Any]:
        """As JSON takes it."""
        groups = [
            [*key, group.refused, *(n for s in group.scored for n in s.packed())]
            for key, group in sorted(self.groups.items())
        ]
        laws = {
            name: {kind: [_packed(law) for law in found] for kind, found in by_kind.items()}
            for name, by_kind in (("knob", self.along_knob), ("batch", self.along_batch))
        }
        return {"about": self.about, "laws": laws, "groups": groups}

    @classmethod
    def of(cls, document: Mapping[str, Any]) -> Results:
        """What ``document`` wrote."""
        found = cls(about=document["about"])
        for parts in document["groups"]:
            key, refused, numbers = Key(*parts[:7]), parts[7], parts[8:]
            scored = [Scored.unpacked(numbers[i : i + 5]) for i in range(0, len(numbers), 5)]
            found.groups[key] = Group(scored, refused)
        for name, into in (("knob", found.along_knob), ("batch", found.along_batch)):
            for kind, laws in document["laws"][name].items():
                into[kind] = [Law(pairs=p, falling=f, jumps=tuple(j)) for p, f, *j in laws]
        return found

    def only(self, kinds: Iterable[str]) -> Results:
        """The part on some kinds of truth."""
        some = set(kinds)
        return Results(
            about=self.about,
            groups={key: group for key, group in self.groups.items() if key.kind in some},
            along_knob={k: v for k, v in self.along_knob.items() if k in some},
            along_batch={k: v for k, v in self.along_batch.items() if k in some},
        )

    def pooled(self, belongs: Callable[[Key], bool]) -> Row | None:
        """All predictions of some groups."""
        some = [group for key, group in self.groups.items() if belongs(key)]
        scored = chain.from_iterable(group.scored for group in some)
        return row(scored, sum(group.refused for group in some))

    def rows(self, by: Sequence[str]) -> dict[tuple[Any, ...], Row]:
        """Predictions pooled over everything but some fields of their key."""
        pools: dict[tuple[Any, ...], Group] = {}
        for key, group in self.groups.items():
            pool = pools.setdefault(tuple(getattr(key, name) for name in by), Group())
            pool.scored += group.scored
            pool.refused += group.refused
        found = {key: row(pool.scored, pool.refused) for key, pool in pools.items()}
        return {key: found_row for key, found_row in found.items() if found_row}


def _packed(law: Law) -> list[float]:
    return [law.pairs, law.falling, *(round(jump, 4) for jump in law.jumps)]


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
        (f"{kind}, {steps} steps a visit", _steps(kind, steps))
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
    head = [name for name, _ in COLUMNS]
    short = [
        [name, *_cells(found)] for name, of in SUMMARY if (found := results.pooled(of)) is not None
    ]
    rows = results.rows(by)
    every = [[*map(_name, key), *_cells(rows[key])] for key in sorted(rows, key=_order)]
    return "\n\n".join(
        [
            table(["where", *head], short),
            table(LAW_HEAD, _law_cells(results)),
            table([*by, *head], every),
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
        [name, *_changes(before, after)]
        for name, of in SUMMARY
        if (before := old.pooled(of)) and (after := new.pooled(of))
    ]
    before_rows, after_rows = old.rows(by), new.rows(by)
    every = [
        [*map(_name, key), *_changes(before_rows[key], after_rows[key])]
        for key in sorted(before_rows.keys() & after_rows.keys(), key=_order)
    ]
    laws = [
        [cells[0], *(_change(a, b) for a, b in zip(cells[1:], after[1:], strict=True))]
        for cells, after in zip(_law_cells(old), _law_cells(new), strict=True)
    ]
    return "\n\n".join(
        [
            table(["where", *head], short),
            table(LAW_HEAD, laws),
            table([*by, *head], every),
        ]
    )


LAW_HEAD = ("law", "pairs", "falling", "jump P90", "jump max")


def _law_cells(results: Results) -> list[list[str]]:
    """The laws over all kinds, and over each that is measured in epochs."""
    named = (
        ("never falls along the knob", results.along_knob),
        ("never falls along the batch", results.along_batch),
    )
    return [
        [text, *(f"{v}" if isinstance(v, int) else percent(v) for v in astuple(law_row(laws)))]
        for name, by_kind in named
        for text, laws in (
            (name, by_kind),
            *((f"… {kind}", {kind: of}) for kind, of in by_kind.items() if kind not in TAILED),
        )
    ]


def _order(key: Sequence[Any]) -> list[Any]:
    """Places as one meets them, anything else by its own order."""
    return [d.PLACES.index(part) if part in d.PLACES else part for part in key]


def _cells(found: Row) -> list[str]:
    return [text(found) for _, text in COLUMNS]


def _changes(before: Row, after: Row) -> list[str]:
    return [_change(a, b) for a, b in zip(_cells(before), _cells(after), strict=True)]


def _change(before: str, after: str) -> str:
    return before if before == after else f"{before} → {after}"


def _name(value: object) -> str:
    if isinstance(value, bool):
        return "counts" if value else "no counts"
    return f"{value:.1%}" if isinstance(value, float) else str(value)
