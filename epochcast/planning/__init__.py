"""From a cost model and a budget to what to run; pure functions of records, no clock, no disk.

    CostModel ──candidates──▶ pricing ──draws──▶ budget ──▶ planner ──▶ Plan
                                                   ▲            ▲
                          cadence, checkpoints ────┘            └──── curves, stopping, batch

Nothing here imports torch; scipy only where a learning curve is fitted.
"""
