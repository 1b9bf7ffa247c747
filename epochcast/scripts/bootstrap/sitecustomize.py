"""Starts epochcast's bootstrap in a Python that was started with this folder in PYTHONPATH.

Python imports ``sitecustomize`` before anything of the script. One that this file hides is run as
it would have been; no error of ours reaches the script.
"""

import importlib.machinery
import importlib.util
import os
import sys

_HERE = os.path.dirname(os.path.abspath(__file__))


def _start():
    try:
        import epochcast_bootstrap

        epochcast_bootstrap.start()
    except Exception as error:  # noqa: BLE001  whatever it is, the script must run
        if os.environ.get("EPOCHCAST_SCRIPT_DEBUG"):
            sys.stderr.write(f"epochcast bootstrap: {error!r}\n")


def _chain():
    elsewhere = [p for p in sys.path if os.path.abspath(p or os.curdir) != _HERE]
    spec = importlib.machinery.PathFinder.find_spec("sitecustomize", elsewhere)
    if spec is not None and spec.loader is not None:
        module = importlib.util.module_from_spec(spec)
        sys.modules["sitecustomize"] = module
        spec.loader.exec_module(module)


if os.environ.get("EPOCHCAST_SCRIPT"):
    _start()
_chain()
