"""From a cost model and a budget to what to run; pure functions of records, no clock, no disk.

    planner      ec.plan: CostModel + Budget + request ──▶ Plan
    request      what to plan for, and how people say it        batch    what another batch changes
    pricing      which configurations there are, what each costs, which are worth a closer look
    simulation   what a run takes in a thousand draws; how many epochs fit
    failures     what interruptions of a run cost, draw by draw
    evaluation   one candidate: its cadences, its epochs, its saves ──▶ Option
    shortfall    when nothing fits: the nearest thing that would
    timeline     what happens when, and what stop rules will do
    notes        what a plan assumes, as warnings
    cadence      when to evaluate and save                      limits   when a budget is used up
    stopping     rules that end a run early                     curves   learning curves

The guard asks ``cadence``, ``limits`` and ``stopping`` too. Nothing here imports torch.
"""
