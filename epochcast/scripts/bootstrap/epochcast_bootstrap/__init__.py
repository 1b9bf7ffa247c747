"""epochcast inside the process of somebody's script: standard library only, Python 3.9 or newer.

    sitecustomize ──▶ start ──▶ ProcessWatch ─┬─ waiting    modules as they are imported
                                              ├─ loaders    passes: drawn, cut
                                              ├─ steps      optimizer steps, backward calls
                                              ├─ modes      train/eval, no_grad, features, memory
                                              ├─ saves      seconds and bytes
                                              ├─ frameworks Lightning, Trainer, Keras, accelerate
                                              ├─ journal    files written; offline: what is not
                                              ├─ tracing    a profile of a few steps
                                              └─ ending     the end of a miniature
              all of them ──▶ writing ──▶ <folder>/<pid>.jsonl

Whatever goes wrong here is an event, and the script goes on as if it had not happened.
"""

from __future__ import annotations

import os

VARIABLE = "EPOCHCAST_SCRIPT"


def start():
    """Begin to watch, as the settings say."""
    import json

    with open(os.environ[VARIABLE], encoding="utf-8") as file:
        settings = json.load(file)

    from epochcast_bootstrap.watch import ProcessWatch

    ProcessWatch(settings).start()
