"""Plans of very many moments: small documents that say as much as if all were listed."""

import known
import pytest

from epochcast.planning import timeline
from epochcast.planning.planner import plan
from epochcast.planning.stopping import Patience
from epochcast.records import Budget, EpochRange, LearningCurve, Plan, from_json, to_json
from epochcast.records.moments import actions_at, checkpoint_at, moments_of

EXAMPLE = known.model(**known.EXAMPLE)
MILLION = 1_000_000
PILOT = LearningCurve(
    epochs=tuple(range(1, 31)), validation=tuple(0.2 + 1.5 / e for e in range(1, 31))
)


def test_a_plan_of_a_million_epochs_is_a_small_document() -> None:
    found = plan(EXAMPLE, Budget(price_per_hour=3.0), epochs=MILLION, evaluate=1, save=7)
    document = to_json(found)
    assert len(document) < 100_000
    assert from_json(document.encode(), Plan) == found
    assert found.evaluations == (EpochRange(first=1, last=MILLION),)
    assert found.saves == (
        EpochRange(first=7, last=MILLION - 1, every=7),
        EpochRange(first=MILLION, last=MILLION),
    )
    assert len(moments_of(found)) == len(found.epochs_of("evaluate")) == MILLION
    assert actions_at(found, 700_000) == ("evaluate", "save")
    ends = found.timeline[-1]
    assert (ends.epoch, checkpoint_at(found, MILLION)) == (MILLION, ends)


def test_what_lies_between_is_as_if_it_had_been_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a run that rules may end, too: chances exactly, times and money nearly."""
    budget = Budget(price_per_hour=3.0)
    asked = {"epochs": 1000, "evaluate": 2, "save": 3, "curves": (PILOT,)}
    rules = (Patience(checks=2, min_delta=0.002),)
    found = plan(EXAMPLE, budget, rules=rules, **asked)
    monkeypatch.setattr(timeline, "DRAWN", 10_000)
    listed = plan(EXAMPLE, budget, rules=rules, **asked).timeline
    assert [c.epoch for c in listed] == moments_of(found)
    assert len(found.timeline) < len(listed) / 2
    for exact in listed:
        mine = checkpoint_at(found, exact.epoch)
        assert mine.reach_probability == exact.reach_probability
        assert mine.stop_probability == exact.stop_probability
        assert mine.regret == exact.regret
        assert mine.money == pytest.approx(exact.money, rel=3e-3)
        assert mine.seconds.p90 == pytest.approx(exact.seconds.p90, rel=3e-3)
        end = listed[-1].seconds.p50
        for name, scale in (("saved_seconds", end), ("saved_money", exact.money)):
            assert getattr(mine, name) == pytest.approx(getattr(exact, name), abs=3e-3 * scale)
    assert sum(c.stop_probability or 0 for c in found.timeline[:-1]) > 0
