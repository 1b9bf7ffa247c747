"""Scripts of other people, run unchanged: priced by a few short epochs, and watched as they run.

    command ──▶ process ──(EPOCHCAST_SCRIPT)──▶ the script's own Python: bootstrap/
                                                     │ lines of JSON, a file for each process
                    observed, watch ◀── events ◀─────┘

``bootstrap/`` is not imported from here: it is what goes into the script's process.
"""
