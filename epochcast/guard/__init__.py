"""Inside the real run: compare it with its plan, save in time, stop where it must; no torch here.

    begin_epoch ─▶ step … step ─▶ due("evaluate")? ─▶ report ─▶ end_epoch ─┐        guard.py
         ▲               │                                                 │
         └───────────────┼─────────────────────────────────────────────────┘
                         ▼
    pace      what the rest takes, as learned so far        level.py, pace.py
    limits    what may still be used                        limits.py
    schedule  where to evaluate, save and end               schedule.py
    ledger    what must survive: time spent, what was learned, why it ended     ledger.py
    archive   checkpoints, whole or not at all              archive.py
    holding   one process at a time                         holding.py

``integrations/`` puts this into a plain loop and into the callbacks of frameworks.
"""
