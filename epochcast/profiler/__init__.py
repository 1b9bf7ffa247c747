"""Short real training steps of a user's workload, measured in worker processes.

prepare.py: check ─▶ sweep.py: rounds ─▶ follow_ups.py: noise, traces
                        │  chosen.py: rounds of a sweep that chooses
                     trials.py: one trial ──▶ process.py ══ JSON lines ══▶ worker.py
  archive.py, observer.py: what it needs of the store, and who is told      │
  (no torch up to here)                                                     │
                         target.py: find the workload ◀── trial.py ─────────┤
                         loop.py: step it, timing.py: time it               ├── trace.py
                         tracker.py: count its operators and live tensors   ┘
"""
