"""What is saved: seconds and bytes. A save inside another, such as Trainer's, is part of it."""

from __future__ import annotations

import functools
import os
import threading


class _Open(threading.local):
    depth = 0
    began = 0.0
    bytes = 0
    inside = None  # path of the first save inside of the outermost


class Saves:
    """Saves of this process.

    Args:
        watch: what they are part of.
    """

    def __init__(self, watch):
        self._watch = watch
        self._open = _Open()
        self._last = ""  # path

    def hook(self, torch):
        """Watch torch, and what else saves once it is imported."""
        when = self._watch.waiting.when
        self.wrap(torch, "save", "torch", 1)
        self.wrap(torch.jit, "save", "jit", 1)
        for name in ("rename", "replace"):
            self._hook_rename(name)
        when("pickle", self._hook_pickle)
        when("safetensors.torch", self._hook_safetensors)
        when("torch.distributed.checkpoint.state_dict_saver", self._hook_dcp)

    def _hook_rename(self, name):
        """Watch a function of ``os``: what is saved under another name is put in place so."""
        original, saves = getattr(os, name), self

        @functools.wraps(original)
        def rename(src, dst, **kwargs):
            original(src, dst, **kwargs)
            if saves._last:
                saves._watch.guarded("rename", lambda: saves._renamed(src, dst))

        setattr(os, name, rename)

    def _renamed(self, src, dst):
        before, after = (os.path.abspath(os.fsdecode(path)) for path in (src, dst))
        inside = os.path.relpath(self._last, before)
        if inside.startswith(os.pardir):
            return
        self._last = os.path.normpath(os.path.join(after, inside))
        self._watch.writer.event("save-renamed", path=self._last)

    def _hook_safetensors(self, module):
        for name in ("save_file", "save_model"):
            self.wrap(module, name, "safetensors", 1)

    def _hook_dcp(self, module):
        for name in ("save", "async_save"):
            self.wrap(module, name, "dcp", None, "checkpoint_id")

    def _hook_pickle(self, pickle):
        self.wrap(pickle, "dump", "pickle", 1, "file", only=self._holds_tensors)

    def _holds_tensors(self, thing, depth=2):
        """Whether something is a state: tensors, modules, or a few layers of containers of them."""
        torch = self._watch.torch
        if torch is None:
            return False
        if isinstance(thing, (torch.Tensor, torch.nn.Module)):
            return True
        inner = thing.values() if isinstance(thing, dict) else thing
        if depth == 0 or not isinstance(thing, (dict, list, tuple)):
            return False
        return any(self._holds_tensors(one, depth - 1) for one, _ in zip(inner, range(64)))

    def wrap(self, owner, name, writer, position, keyword=None, only=None):
        """Watch a function that saves.

        Args:
            owner: module or class that has it.
            name: of the function.
            writer: as in the event.
            position: of the path or file among its arguments, counting ``self``; None without.
            keyword: the name that it may have instead.
            only: says of the first argument whether such a call saves.
        """
        original = getattr(owner, name, None)
        if original is None:
            return
        keywords = (keyword,) if keyword else ("f", "filename", "path", "save_directory")

        @functools.wraps(original)
        def save(*args, **kwargs):
            if not self._watch.guarded("save", lambda: self._is_save(only, args, kwargs)):
                return original(*args, **kwargs)
            place = next((kwargs[key] for key in keywords if key in kwargs), None)
            if place is None and position is not None and len(args) > position:
                place = args[position]
            start = self._watch.guarded("save", lambda: self._begin(place))
            try:
                return original(*args, **kwargs)
            finally:
                self._watch.guarded("save", lambda: self._end(writer, place, start))

        setattr(owner, name, save)

    def _is_save(self, only, args, kwargs):
        """Whether a call saves: a storage that is pickled is saved into a buffer, the old way."""
        if kwargs.get("_use_new_zipfile_serialization") is False and hasattr(args[1], "getvalue"):
            return False
        return only is None or not args or only(args[0])

    def _begin(self, place):
        this = self._open
        this.depth += 1
        if this.depth == 1:
            this.began, this.bytes, this.inside = self._watch.device_time(), 0, None
        return _tell(place)

    def _end(self, writer, place, start):
        this = self._open
        this.depth -= 1
        path, size = _written(place, start)
        if path is None or not os.path.isdir(path):
            this.bytes += size
        elif not this.bytes:
            this.bytes = size
        if this.depth:
            this.inside = this.inside or path
            return
        if path is None and this.inside is not None:
            path = os.path.dirname(this.inside)
        self._last = path or self._last
        self._watch.writer.event(
            "save", began=this.began, bytes=this.bytes, path=path, writer=writer
        )
        self._watch.memory("save")


def _tell(place):
    """Where a file-like object stands; None where it does not say."""
    try:
        return place.tell()
    except Exception:  # noqa: BLE001  a path, a pipe, a closed file
        return None


def _written(place, start):
    """Absolute path (None for a buffer) and bytes that were written to it."""
    if isinstance(place, (str, os.PathLike)):
        path = os.path.abspath(os.fspath(place))
        return path, _size(path)
    name = getattr(place, "name", None)
    path = os.path.abspath(name) if isinstance(name, str) else None
    end = _tell(place)
    if start is not None and end is not None:
        return path, max(0, end - start)
    return path, _size(path) if path else 0


def _size(path):
    """Bytes of a file, or of all files in a folder."""
    try:
        if not os.path.isdir(path):
            return os.stat(path).st_size
        inside = (os.path.join(at, name) for at, _, names in os.walk(path) for name in names)
        return sum(os.stat(file).st_size for file in inside)
    except OSError:
        return 0
