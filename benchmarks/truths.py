"""Predictions beside simulated truths that nobody tuned to.

    run       fit and ask, kind × noise × rounds × design × place          ──▶ a file of results
    show      the tables of such a file, as Markdown
    compare   two of them, old → new
    growth    seconds of a fit and bytes of its model, 10 to 5,000 configurations

    python benchmarks/truths.py run --out FILE [--kinds r4,waves] [--noise 2] [--rounds 2]
                                    [--seeds 25] [--jobs 1] [--quick]
    python benchmarks/truths.py compare OLD NEW [--by kind,noise,where]

What is simulated is in ``truth_parts/``. Each case depends on its own name alone: the same with any
number of jobs, of other kinds, and on any machine.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from truth_parts.designs import Case
    from truth_parts.tables import Results
    from truth_parts.trials import Outcome

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
    run.add_argument("--jobs", type=int, default=1, help="processes")
    run.add_argument("--quick", action="store_true", help="one truth of each kind, usual noise")
    show = steps.add_parser("show")
    show.set_defaults(do=_show)
    show.add_argument("results", type=Path)
    compare = steps.add_parser("compare")
    compare.set_defaults(do=_compare)
    compare.add_argument("old", type=Path)
    compare.add_argument("new", type=Path)
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
    results = run_cases(cases, options.jobs)
    results.about = {
        "seeds": QUICK_SEEDS if quick else options.seeds,
        "fits": len(cases),
        "seconds": round(time.monotonic() - started, 1),
        "jobs": options.jobs,
    }
    options.out.write_text(json.dumps(results.document(), separators=(",", ":")) + "\n")
    print(f"{len(cases)} fits in {results.about['seconds']} s: {options.out}")


def run_cases(cases: Sequence[Case], jobs: int) -> Results:
    """Try all cases, in processes of their own, which end with it.

    Args:
        cases: of ``truth_parts.designs``.
        jobs: processes.
    """
    from truth_parts.tables import Results

    found = Results()
    for case, outcome in zip(cases, _outcomes(cases, jobs), strict=True):
        found.add(case, outcome)
    return found


def _outcomes(cases: Sequence[Case], jobs: int) -> Iterator[Outcome]:
    from truth_parts.trials import try_case

    with ProcessPoolExecutor(jobs, mp_context=get_context("spawn")) as pool:
        yield from pool.map(try_case, cases, chunksize=4)


# -- tables -------------------------------------------------------------------------------------


def read(path: Path) -> Results:
    """A file that ``run`` wrote."""
    from truth_parts.tables import Results

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
