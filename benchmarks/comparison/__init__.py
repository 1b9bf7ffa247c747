"""What the benchmarks of accuracy share: ``accuracy.py``, ``public_a100.py``, ``public_memory.py``.

grids ─▶ measuring ─▶ recording ─┐                         measure
         memory_tools ───────────┤                         count
                                 ▼
splits, alternatives ─▶ evaluation ─▶ cases                evaluate: predicted beside measured
                                        ▼
                        scores ─▶ scoreboard ─▶ report     numbers, then text and a figure
"""
