"""Simulated training steps whose true time is known: nobody tuned the cost model to them.

kinds      a kind of truth, drawn from a seed            ──▶ seconds of a step, and its counts
designs    what is measured of it, and what is asked     ──▶ measurements, places
trials     fit, ask, check the laws                      ──▶ predictions beside the truth
scoring    many predictions                              ──▶ errors, coverage, widths
tables     rows of scores                                ──▶ text, Markdown, old beside new
growth     fits of 10 to 5,000 configurations            ──▶ seconds and bytes
"""
