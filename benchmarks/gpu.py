"""Everything that a CUDA device can tell this project, in one command of at most eight minutes.

    python benchmarks/gpu.py --out FOLDER             from the repository root, on a quiet GPU
    python benchmarks/gpu.py --out FOLDER --dry       in miniature on a CPU; says what it skips
    python benchmarks/gpu.py --replay FOLDER          what a folder tells, read again

Parts, the most valuable first; ``gpu_parts/catalogue.py`` lists what each of them does:

    device      versions, clocks, speeds, bytes of the context    ──▶ device.json.gz
    probes      probe ─▶ predict ─▶ plan ─▶ a real epoch          ──▶ probes.json.gz, traces.json.gz
    snapshots   the allocator's history from its first allocation ──▶ snapshots.json.gz
    scripts     ordinary scripts: probe ─▶ predict ─▶ run         ──▶ scripts.json.gz
    guard       a run under a deadline; energy counters           ──▶ guard.json.gz
    accuracy    predictions of held-out configurations            ──▶ accuracy.json.gz

Every scenario runs in a process of its own, which is ended when its time is over, so that a crash,
a hang or an exhausted memory costs nothing else. What is known is written after each scenario;
``summary.json`` and the text printed at the end say what succeeded and what did not.
"""

from __future__ import annotations

import argparse
import signal
import sys
import tempfile
import time
from importlib.util import find_spec
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from gpu_parts import catalogue, summary  # noqa: E402
from gpu_parts.launching import Launcher  # noqa: E402
from gpu_parts.results import Recording, read_folder  # noqa: E402
from gpu_parts.running import run_parts  # noqa: E402

MOST_SECONDS = 480
BEGAN = time.monotonic()


def main() -> int:
    options = parse()
    if options.replay:
        print("\n".join(summary.lines(read_folder(options.replay), predict_again=True)))
        return 0
    parts = catalogue.chosen(options.only)
    if lacking := missing(parts):
        print(
            f"not installed: {', '.join(lacking)}. They are needed by the parts asked for; "
            f"install them, or name others with --only {catalogue.TORCH_ALONE}",
            file=sys.stderr,
        )
        return 2
    if not options.dry and not has_cuda():
        print("torch sees no CUDA device here; --dry runs in miniature on a CPU", file=sys.stderr)
        return 2
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # ends as Ctrl-C does
    recording = Recording(options.out, command=" ".join(["python", *sys.argv]), dry=options.dry)
    with tempfile.TemporaryDirectory(prefix="epochcast-gpu-") as work:
        launcher = Launcher(Path(work), device="cpu" if options.dry else "cuda", dry=options.dry)
        try:
            left = options.seconds - (time.monotonic() - BEGAN)
            run_parts(parts, recording, launcher, seconds=left, dry=options.dry)
        except KeyboardInterrupt:
            recording.close("interrupted")
        else:
            recording.close("complete")
    print("\n".join(summary.lines(read_folder(options.out))))
    return 0


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    names = [part.name for part in catalogue.PARTS]
    names += [f"{part.name}/{s.name}" for part in catalogue.PARTS for s in part.scenarios]
    parser.add_argument("--out", type=Path, help="folder to write to; made if there is none")
    parser.add_argument("--dry", action="store_true", help="in miniature, on a CPU")
    parser.add_argument("--only", nargs="+", choices=names, metavar="PART[/SCENARIO]")
    parser.add_argument("--seconds", type=float, default=MOST_SECONDS, help="for all of it")
    parser.add_argument("--replay", type=Path, help="a folder written earlier: print its summary")
    options = parser.parse_args()
    if not 0 < options.seconds <= MOST_SECONDS:
        parser.error(f"--seconds must be above 0 and at most {MOST_SECONDS}")
    if (options.out is None) == (options.replay is None):
        parser.error("give either --out or --replay")
    return options


def missing(parts: list[catalogue.Part]) -> list[str]:
    """Packages that the parts need and that are not installed."""
    needed = dict.fromkeys(name for part in parts for name in part.needs)
    return [name for name in needed if find_spec(name) is None]


def has_cuda() -> bool:
    """Whether torch sees a CUDA device; this makes no context on it."""
    import torch

    return torch.cuda.is_available()


if __name__ == "__main__":
    sys.exit(main())
