"""Predictions beside simulated truths that nobody tuned to.

    run       fit and ask, kind × noise × rounds × design × place          ──▶ a file of results
    show      the tables of such a file, as Markdown
    compare   two of them, old → new
    publish   its rows       ──▶ results/truths.json, docs/accuracy.md
    growth    seconds of a fit and bytes of its model, 10 to 5,000 configurations

    python benchmarks/truths.py run --out FILE [--kinds r4,waves] [--noise 2] [--rounds 2]
                                    [--seeds 25] [--jobs 1] [--minutes 20] [--quick]
    python benchmarks/truths.py compare OLD NEW [--by kind,noise,where]

What is simulated is in ``truth_parts/``. Each case depends on its own name alone: the same with any
number of jobs, of other kinds, and on any machine.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict
from math import inf
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from truth_parts.designs import Case
    from truth_parts.results import Results
    from truth_parts.trials import Outcome

HERE = Path(__file__).resolve().parent
RESULT, DOCS = HERE / "results" / "truths.json", HERE.parent / "docs"
MARK = "benchmarks/truths.py"
SEEDS, QUICK_SEEDS = 25, 1
BY = "kind,where"


def main(arguments: Sequence[str] | None = None) -> None:
    os.environ["OMP_NUM_THREADS"] = "1"  # of the processes started here
    options = _parser().parse_args(arguments)
    options.do(options)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    steps = parser.add_subparsers(required=True)
    run = steps.add_parser("run")
    run.set_defaults(do=_run)
    run.add_argument("--out", type=Path, required=True)
    run.add_argument("--kinds", type=lambda text: text.split(","), default=[], help="r4,waves")
    run.add_argument("--noise", type=_percents, default=[], help="per cent: 0.5,2,8")
    run.add_argument("--rounds", type=_numbers, default=[], help="1,2,3")
    run.add_argument("--seeds", type=int, default=SEEDS, help="truths of each kind")
    run.add_argument("--minutes", type=float, default=inf, help="then the last truth is left out")
    run.add_argument("--jobs", type=int, default=1, help="processes")
    run.add_argument("--quick", action="store_true", help="one truth of each kind, usual noise")
    show = steps.add_parser("show")
    show.set_defaults(do=_show)
    show.add_argument("results", type=Path)
    compare = steps.add_parser("compare")
    compare.set_defaults(do=_compare)
    compare.add_argument("old", type=Path)
    compare.add_argument("new", type=Path)
    publish = steps.add_parser("publish")
    publish.set_defaults(do=_publish)
    publish.add_argument("results", type=Path)
    growth = steps.add_parser("growth")
    growth.set_defaults(do=_growth)
    growth.add_argument("--most", type=int, default=5000, help="configurations")
    growth.add_argument("--out", type=Path)
    for step in (show, compare):
        step.add_argument("--by", default=BY, help="kind,design,counted,noise,rounds,device,where")
        step.add_argument("--kinds", type=lambda text: text.split(","), default=[])
    return parser


def _percents(text: str) -> list[float]:
    return [float(part) / 100 for part in text.split(",")]


def _numbers(text: str) -> list[int]:
    return [int(part) for part in text.split(",")]


# -- run ----------------------------------------------------------------------------------------


def _run(options: argparse.Namespace) -> None:
    from truth_parts import designs
    from truth_parts.kinds import KINDS

    quick = options.quick
    cases = list(
        designs.cases(
            options.kinds or list(KINDS),
            QUICK_SEEDS if quick else options.seeds,
            [designs.USUAL.noise] if quick else options.noise,
            [designs.USUAL.rounds] if quick else options.rounds,
        )
    )
    started = time.monotonic()
    results, tried = run_cases(cases, options.jobs, started + 60 * options.minutes)
    results.about = {
        "seeds": len({case.seed for case in tried}),
        "fits": len(tried),
        "seconds": round(time.monotonic() - started, 1),
        "jobs": options.jobs,
    }
    options.out.write_text(json.dumps(results.document(), separators=(",", ":")) + "\n")
    print(f"{len(tried)} fits in {results.about['seconds']} s: {options.out}")


def run_cases(
    cases: Sequence[Case], jobs: int, until: float = inf
) -> tuple[Results, Sequence[Case]]:
    """Try cases, in processes of their own, which end with it; and which were tried.

    Args:
        cases: ordered by seed.
        jobs: processes.
        until: by the monotonic clock; then only whole seeds count.
    """
    from truth_parts.designs import whole_seeds
    from truth_parts.results import Results
    from truth_parts.trials import try_case

    outcomes: list[Outcome] = []
    with ProcessPoolExecutor(jobs, mp_context=get_context("spawn")) as pool:
        for outcome in pool.map(try_case, cases, chunksize=4):
            outcomes.append(outcome)
            if time.monotonic() > until:
                pool.shutdown(cancel_futures=True)
                break
    tried = whole_seeds(cases, len(outcomes))
    found = Results()
    for case, outcome in zip(tried, outcomes, strict=False):
        found.add(case, outcome)
    return found, tried


# -- tables -------------------------------------------------------------------------------------


def read(path: Path) -> Results:
    """A file that ``run`` wrote."""
    from truth_parts.results import Results

    return Results.of(json.loads(path.read_text()))


def _show(options: argparse.Namespace) -> None:
    from truth_parts import tables

    found = read(options.results)
    chosen = found.only(options.kinds) if options.kinds else found
    print(tables.show(chosen, options.by.split(",")))


def _compare(options: argparse.Namespace) -> None:
    from truth_parts import tables

    old, new = read(options.old), read(options.new)
    if options.kinds:
        old, new = old.only(options.kinds), new.only(options.kinds)
    print(tables.compare(old, new, options.by.split(",")))


def _publish(options: argparse.Namespace) -> None:
    from comparison import report
    from truth_parts import tables

    found = read(options.results)
    report.insert(DOCS / "accuracy.md", tables.document(found), MARK)
    by = ("kind", "noise", "rounds", "device", "where")
    rows = [
        dict(zip(by, key, strict=True)) | {k: _rounded(v) for k, v in asdict(row).items()}
        for key, row in sorted(found.rows(by).items())
    ]
    lines = ",\n".join(json.dumps(row) for row in rows)
    RESULT.write_text(f'{{"about": {json.dumps(found.about)},\n"rows": [\n{lines}\n]}}\n')


def _rounded(value: float) -> float:
    return value if isinstance(value, int) else float(f"{value:.4g}")


def _growth(options: argparse.Namespace) -> None:
    from truth_parts import growth

    found = []
    for grown in growth.grow([n for n in growth.COUNTS if n <= options.most]):
        found.append(grown)
        print(grown, flush=True)
    print(growth.text(found))
    if options.out:
        options.out.write_text(json.dumps([asdict(g) for g in found], indent=1) + "\n")


if __name__ == "__main__":
    main()
