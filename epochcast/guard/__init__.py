"""Inside the real run: compare it with its plan, save in time, stop where it must; no torch here.

    begin_epoch ─▶ step … step ─▶ due("evaluate")? ─▶ report ─▶ end_epoch ─┐        guard.py
         ▲               │                                                 │
         └───────────────┼─────────────────────────────────────────────────┘
                         ▼
    progress  epochs and steps done, and what they took     progress.py, watching.py, stepping.py
    course    begin? evaluate? save? where to end?          course.py, deciding.py
    pace      what the rest takes, as learned so far        level.py, pace.py
    limits    what may still be used                        timekeeping.py, limits.py
    schedule  where to evaluate, save and end               schedule.py
    ledger    what must survive: time spent, what was learned, why it ended     ledger.py, books.py
    archive   checkpoints, whole or not at all              archive.py, keeping.py
    holding   one process at a time                         holding.py

``integrations/`` puts this into a plain loop and into the callbacks of frameworks.
"""
