"""Short real training steps of a user's workload, measured in worker processes.

request.py: what is asked, checked ─▶ sweep.py: rounds, gradient noise, traces
                                         │    adaptive.py: rounds that choose their trials
                                      process.py ══ JSON lines (protocol.py) ══▶ worker.py
(no torch up to here)                                                                │
        target.py: find and build a workload (workload.py) ◀── trial.py ─────┤
                          loop.py: step it, timing.py: time it         noise.py      │
                          device.py: its timer, memory and name                      │
                          footprint/: count a step, run or not ──────────────────────┘
"""
