"""Short real training steps of a user's workload, measured in worker processes.

sweep.py ── rounds, order, resume ──▶ process.py ══ JSON lines ══▶ worker.py
  (no torch up to here)                                              │
                   target.py: find the workload ◀── visit.py ───────┤
                   loop.py: step it, clock.py: time it               ├── trace.py
                   tracker.py: count its operators and live tensors  ┘
"""
