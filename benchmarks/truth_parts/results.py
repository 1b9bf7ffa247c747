"""All predictions of one run of the benchmark, in groups, and as a file.

group     kind, design, counted, noise, rounds, device, where   ──▶ predictions, refusals
rows      groups that agree in some of these, pooled            ──▶ scoring.Row
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from .designs import Case
from .scoring import Row, Scored, row
from .trials import Law, Outcome


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

    def add(self, case: Case, outcome: Outcome) -> None:
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

    def where(self, belongs: Callable[[Key], bool]) -> Results:
        """Some groups, with the laws of the kinds that are left."""
        groups = {key: group for key, group in self.groups.items() if belongs(key)}
        kinds = {key.kind for key in groups}
        return Results(
            about=self.about,
            groups=groups,
            along_knob={k: v for k, v in self.along_knob.items() if k in kinds},
            along_batch={k: v for k, v in self.along_batch.items() if k in kinds},
        )

    def only(self, kinds: Iterable[str]) -> Results:
        """The part on some kinds of truth."""
        some = set(kinds)
        return self.where(lambda key: key.kind in some)

    def pooled(self, belongs: Callable[[Key], bool]) -> Row | None:
        """All predictions of some groups."""
        found = self.where(belongs).rows([])
        return found.get(())

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
