"""Waits for modules to be imported, and does something right after."""

from __future__ import annotations

import sys


class Waiting:
    """A finder in front of ``sys.meta_path`` that finds nothing itself."""

    def __init__(self, failed):
        self._failed = failed
        self._calls = {}
        sys.meta_path.insert(0, self)

    def when(self, name, call, before=None):
        """Call ``call(module)`` after module ``name`` ran, at once where it already has.

        Args:
            name: of the module, with its packages.
            call: given the module.
            before: called without arguments just before the module runs.
        """
        module = sys.modules.get(name)
        if module is not None and not getattr(module.__spec__, "_initializing", False):
            self._call(name, call, module)
        else:
            self._calls.setdefault(name, []).append((before, call))

    def find_spec(self, name, path=None, target=None):
        """The module as the other finders find it, with a loader that tells us."""
        calls = self._calls.get(name)
        if not calls:
            return None
        for finder in sys.meta_path:
            find = None if finder is self else getattr(finder, "find_spec", None)
            spec = find(name, path, target) if find is not None else None
            if spec is not None:
                if hasattr(spec.loader, "exec_module"):
                    spec.loader = _Telling(spec.loader, self, name)
                return spec
        return None

    def run(self, name, execute, module):
        """Run a module, and what waits for it."""
        calls = self._calls.get(name, [])
        for before, _ in calls:
            if before is not None:
                self._call(name, lambda _, before=before: before(), module)
        execute(module)  # an error leaves them waiting for another try
        self._calls.pop(name, None)
        for _, call in calls:
            self._call(name, call, module)

    def _call(self, name, call, module):
        try:
            call(module)
        except Exception as error:  # noqa: BLE001  ours, not the script's
            self._failed(f"import {name}", error)


class _Telling:
    """The loader of one module; the module itself keeps the loader that it would have."""

    def __init__(self, loader, waiting, name):
        self._loader, self._waiting, self._name = loader, waiting, name

    def create_module(self, spec):
        create = getattr(self._loader, "create_module", None)
        return None if create is None else create(spec)

    def exec_module(self, module):
        module.__loader__ = module.__spec__.loader = self._loader
        self._waiting.run(self._name, self._loader.exec_module, module)

    def __getattr__(self, name):
        return getattr(self._loader, name)
