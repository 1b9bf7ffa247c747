"""Records to people: terminal tables, progress, the text of each warning; and to programs: JSON.

    a sweep as it runs  ──▶  progress.py        a warning's code  ──▶  warnings.py, its text
    measurements        ──▶  probing.py         what is built in  ──▶  catalogue.py
    CostModel, Estimate ──▶  estimate.py        any record        ──▶  document.py, JSON
    Plan                ──▶  plan.py, plan_tables.py
    Footprint           ──▶  footprint.py       tables.py: what the tables share
    GradientNoise       ──▶  noise.py           sentences.py: lines that fit a terminal
    Compared            ──▶  calibration.py
    RunEvent            ──▶  following.py, epoch_line.py, run_summary.py

Everything is written to a rich ``Console`` or a function that the caller passes, so that a test can
capture it.
"""
