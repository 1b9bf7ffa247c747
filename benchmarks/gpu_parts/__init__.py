"""What ``benchmarks/gpu.py`` consists of.

catalogue.py ── parts and scenarios: names, time, needs; no torch ──┐
running.py   ── which scenario next, until when ◀───────────────────┘
   │   ▲
   ▼   └── records ── launching.py ══ process ══ child.py ──▶ device.py   snapshots.py
results.py                                                    probes.py   guard.py  grid.py
   │   ▲                                                      (training.py, sensors.py)
   ▼   │
the folder ──▶ summary.py ──▶ the text
"""
