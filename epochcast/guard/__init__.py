"""Inside the real run: compare it with its plan, save in time, stop where it must; no torch here.

    begin_epoch ─▶ step … step ─▶ due("evaluate")? ─▶ report ─▶ end_epoch ─┐     guard.py: the shell
         ▲                                                                 │
         └─────────────────────────────────────────────────────────────────┘

    pure      controller.py     begin? evaluate? save? where to end?
              run_state.py      one immutable state of the run, and how it changes
              metrics.py        the plan's metric: stop rules and the best value
              forecast.py       what the rest takes, as learned so far
              limits.py         what may still be used; the clocks
              events.py         the events of a run, and who receives them
    on disk   run_folder.py     the ledger of the time used, the lock, a sign of life
              checkpoints.py    each whole or not there
              log.py            events as lines, written and read
    the rest  step_timer.py     what the next step may take; mutable, for every step pays for it
              ranks.py          several processes do the same; signals that ask to leave

``integrations/`` puts this into a plain loop and into the callbacks of frameworks.
"""
