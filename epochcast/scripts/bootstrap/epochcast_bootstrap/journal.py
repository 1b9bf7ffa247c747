"""What the script writes, removes and renames, told before it happens, with what was there kept.

Python's audit events tell of every ``open``, ``os.remove``, ``os.rename`` …; what is written by C
or Rust alone (torch's zip files, h5py, safetensors) is wrapped. Programs that are started are not
seen: they are named. Going through the events backwards restores the first state:

    created    not there before: remove                 known from then on, and no more told
    changed    replaced or changed in place: kept       known from then on, and no more told
    appended   cut to its size                          told again if it is changed otherwise
    removed    kept                                     known from then on, and no more told
    renamed    rename back                              both names unknown again

A file is kept by moving it aside, or by another link to it where it will be removed: nothing is
copied unless it is changed in place, or the file system leaves no other way.
"""

from __future__ import annotations

import functools
import itertools
import os
import shutil
import stat
import sys
import threading

COPY_MOST = 1 << 30  # bytes of a file that is copied, where it cannot be moved or linked
NO_FILES = ("/dev/", "/proc/", "/sys/")
WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
HARMLESS = {  # programs that are asked something, or write to a folder of ours
    "fc-list",
    "file",
    "getconf",
    "hostname",
    "ldconfig",
    "lscpu",
    "nvidia-smi",
    "rocm-smi",
    "rocminfo",
    "uname",
    "wandb-core",
    "which",
}
CACHES = {  # of downloads and compilers: theirs to keep
    "XDG_CACHE_HOME": "~/.cache",
    "HF_HOME": "~/.cache/huggingface",
    "HF_HUB_CACHE": "~/.cache/huggingface",
    "HF_DATASETS_CACHE": "~/.cache/huggingface",
    "TORCH_HOME": "~/.cache/torch",
    "TRITON_CACHE_DIR": "~/.triton",
    "TORCHINDUCTOR_CACHE_DIR": "~/.cache/torch",
    "KERAS_HOME": "~/.keras",
}


class Journal:
    """Tells what is about to be written.

    Args:
        watch: what it is part of.
    """

    def __init__(self, watch):
        self._watch = watch
        settings = watch.settings
        self._keep = settings["keep"] or os.path.join(settings["folder"], "kept")
        places = [os.path.expanduser(os.environ.get(k) or v) for k, v in CACHES.items()]
        ours = [settings["folder"], self._keep]
        self._left_alone = NO_FILES + tuple(
            os.path.join(os.path.realpath(place), "") for place in ours + places
        )
        self._known = set()
        self._appended = set()
        self._folders = set()  # whose times were noted
        self._unsaid = {}  # folder: its times, to go with the next event of something in it
        self._linked = set()  # (device, inode) of files that are kept by a second link
        self._aside = {}  # device: a folder on it for what is kept
        self._count = itertools.count()
        self._busy = threading.local()

    def start(self):
        """From now on."""
        sys.dont_write_bytecode = True
        handlers = {
            "open": self._open,
            "os.remove": lambda path, fd: self._remove(at(path, fd)),
            "os.rename": lambda old, new, a, b: self._rename(at(old, a), at(new, b)),
            "os.rmdir": lambda path, fd: self._remove_folder(at(path, fd)),
            "os.mkdir": lambda path, mode, fd: self._make_folder(at(path, fd)),
            "os.link": lambda old, new, a, b: self._create(at(new, b)),
            "os.symlink": lambda old, new, fd: self._create(at(new, fd)),
            "os.truncate": lambda path, size: self.will_write(at(path)),
            "os.chmod": lambda path, mode, fd: self._touch(at(path, fd)),
            "os.chown": lambda path, user, group, fd: self._touch(at(path, fd)),
            "os.utime": lambda path, times, ns, fd: self._touch(at(path, fd)),
            "sqlite3.connect": self._connect,
            "socket.bind": lambda socket, address: self._bind(address),
            "subprocess.Popen": lambda program, args, folder, env: self._program(args or program),
            "os.system": self._program,
            "os.posix_spawn": lambda path, args, env: self._program(args or path),
            "os.exec": lambda path, args, env: self._replaced(args or path),
        }
        sys.addaudithook(functools.partial(self._hook, handlers))
        when = self._watch.waiting.when
        when("torch", self._hook_torch)
        when("safetensors", self._hook_safetensors)
        when("h5py", self._hook_h5py)

    def _hook(self, handlers, event, args):
        handler = handlers.get(event)
        if handler is None or getattr(self._busy, "now", False):
            return
        self._busy.now = True
        try:
            handler(*args)
        except Exception as error:  # noqa: BLE001  raising here would stop the script's own doing
            self._watch.writer.failed(f"journal {event}", error)
        finally:
            self._busy.now = False

    def told(self, call):
        """Do something of ours, unseen by the audit hook."""
        before, self._busy.now = getattr(self._busy, "now", False), True
        try:
            return self._watch.guarded("journal", call)
        finally:
            self._busy.now = before

    def _hook_torch(self, torch):
        journal, original = self, torch._C.PyTorchFileWriter

        class PyTorchFileWriter(original):  # type: ignore[misc, valid-type]
            def __init__(self, file, *args, **kwargs):
                journal._by_path(file)
                super().__init__(file, *args, **kwargs)

        torch._C.PyTorchFileWriter = PyTorchFileWriter
        self._wrap(torch.jit, "save", 1)
        self._wrap(torch, "from_file", 0, lambda kwargs: kwargs.get("shared"))

    def _hook_safetensors(self, module):
        self._wrap(module, "serialize_file", 1)

    def _hook_h5py(self, module):
        original, journal = module.File.__init__, self

        @functools.wraps(original)
        def __init__(self, name, mode="r", *args, **kwargs):
            if mode != "r":
                journal._by_path(name, truncates=mode in ("w", "w-", "x"))
            original(self, name, mode, *args, **kwargs)

        module.File.__init__ = __init__

    def _wrap(self, owner, name, position, only=None):
        original, journal = getattr(owner, name, None), self
        if original is None:
            return

        @functools.wraps(original)
        def call(*args, **kwargs):
            place = args[position] if len(args) > position else kwargs.get("filename")
            if only is None or only(kwargs):
                journal._by_path(place)
            return original(*args, **kwargs)

        setattr(owner, name, call)

    def _by_path(self, path, truncates=True):
        if isinstance(path, (str, bytes, os.PathLike)):
            self.told(lambda: self.will_write(at(path), truncates))

    def _open(self, path, mode, flags):
        if not (isinstance(flags, int) and flags & WRITES) or isinstance(path, int):
            return
        path = at(path)
        if flags & os.O_EXCL and os.path.lexists(path):
            return  # it will fail
        if flags & getattr(os, "O_TMPFILE", 0) == getattr(os, "O_TMPFILE", -1):
            return  # it has no name
        self.will_write(path, bool(flags & os.O_TRUNC), bool(flags & os.O_APPEND))

    def will_write(self, path, truncates=False, appends=False):
        """A file is about to be written.

        Args:
            path: absolute.
            truncates: whether it is emptied first.
            appends: whether it is only added to.
        """
        path = os.path.realpath(path)
        if self._is_left_alone(path):
            return
        found = _stat(path)
        if found is not None and (found.st_dev, found.st_ino) in self._linked:
            self._unlink_kept(path, truncates)
        if path in self._known or (appends and path in self._appended):
            return
        if found is None:
            self._created(path)
        elif not stat.S_ISREG(found.st_mode) or not os.access(path, os.W_OK):
            return  # no file, or it will fail
        elif appends and not truncates:
            self._appended.add(path)
            self._tell("appended", path, found)
        else:
            self._changed(path, found, truncates)

    def _created(self, path, kind="created"):
        self._known.add(path)
        self._tell(kind, path, None)

    def _changed(self, path, found, truncates):
        self._known.add(path)
        self._note_folder(path)
        move = truncates and found.st_nlink == 1
        kept = self._move_aside(path, found) if move else self._copy_aside(path, found)
        self._tell("changed", path, found, kept=kept)

    def _move_aside(self, path, found):
        kept = self._place(path, found)
        try:
            os.rename(path, kept)
        except OSError:
            return self._copy_aside(path, found)
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT, stat.S_IMODE(found.st_mode)))
        os.chmod(path, stat.S_IMODE(found.st_mode))
        return kept

    def _link_aside(self, path, found):
        kept = self._place(path, found)
        try:
            os.link(path, kept, follow_symlinks=False)
        except OSError:
            return self._copy_aside(path, found)
        self._linked.add((found.st_dev, found.st_ino))
        return kept

    def _copy_aside(self, path, found):
        if found.st_size > COPY_MOST:
            self._watch.writer.event("not-kept", what=path, reason="too large to copy")
            return ""
        kept = self._place(path, found)
        try:
            shutil.copy2(path, kept)
        except OSError as error:
            self._watch.writer.event("not-kept", what=path, reason=str(error))
            return ""
        return kept

    def _unlink_kept(self, path, truncates):
        """Writing to a file that is kept by a second link would change what is kept."""
        copy = f"{path}.epochcast"
        shutil.copy2(path, copy)
        os.replace(copy, path)

    def _place(self, path, found):
        """A new path for something to be kept, on the same file system where that can be."""
        folder = self._aside.get(found.st_dev)
        if folder is None:
            folder = self._aside[found.st_dev] = self._folder_on(found.st_dev, path)
        name = os.path.basename(path)[-100:]
        return os.path.join(folder, f"{os.getpid()}-{next(self._count)}-{name}")

    def _folder_on(self, device, path):
        os.makedirs(self._keep, exist_ok=True)
        if os.stat(self._keep).st_dev == device:
            return self._keep
        above, best = os.path.dirname(path), None
        while True:  # the highest folder that may be written: far from what the script looks at
            if os.stat(above).st_dev != device:
                break
            best = above if os.access(above, os.W_OK) else best
            if above == os.path.dirname(above):
                break
            above = os.path.dirname(above)
        if best is None:
            return self._keep
        folder = os.path.join(best, f".epochcast-kept-{os.getpid()}")
        if not os.path.isdir(folder):
            self._created(folder, "folder-created")
            os.mkdir(folder)
        self._left_alone += (os.path.join(folder, ""),)
        return folder

    def _remove(self, path):
        if self._is_left_alone(path) or path in self._known:
            return
        found = _stat(path, links=True)
        if found is None:
            return
        self._known.add(path)
        self._note_folder(path)
        link = os.readlink(path) if stat.S_ISLNK(found.st_mode) else None
        kept = self._link_aside(path, found) if stat.S_ISREG(found.st_mode) else ""
        self._tell("removed", path, found, kept=kept, link=link)

    def _rename(self, old, new):
        if self._is_left_alone(new) and self._is_left_alone(old):
            return
        found = _stat(old, links=True)
        if found is None or old == new:
            return
        there = _stat(new, links=True)
        if there is not None and not stat.S_ISDIR(there.st_mode):
            self._remove(new)
        elif there is None and new not in self._known and not self._is_left_alone(new):
            self._created(new) if old in self._known else None
        elif there is not None and new not in self._known:
            self._remove_folder(new)
        if old not in self._known and not self._is_left_alone(old):
            self._tell("renamed", old, found, target=new)
            self._known.discard(new)
        elif stat.S_ISDIR(found.st_mode):
            inside = os.path.join(old, "")
            moved = [path for path in self._known if path.startswith(inside)]
            self._known.update(os.path.join(new, path[len(inside) :]) for path in moved)

    def _remove_folder(self, path):
        if self._is_left_alone(path) or path in self._known:
            return
        found = _stat(path, links=True)
        if found is not None and stat.S_ISDIR(found.st_mode) and not os.listdir(path):
            self._known.add(path)
            self._tell("folder-removed", path, found)

    def _make_folder(self, path):
        if not (self._is_left_alone(path) or path in self._known or os.path.lexists(path)):
            self._created(path, "folder-created")

    def _create(self, path):
        if not (self._is_left_alone(path) or path in self._known or os.path.lexists(path)):
            self._created(path)

    def _touch(self, path):
        found = _stat(path)
        if found is None or self._is_left_alone(path) or path in self._known:
            return
        if ("touched", path) not in self._folders:
            self._folders.add(("touched", path))
            self._tell("touched", path, found)

    def _connect(self, database):
        if isinstance(database, int) or str(database) in ("", ":memory:"):
            return
        path = at(str(database).split("?")[0][5:] if str(database)[:5] == "file:" else database)
        for end in ("", "-journal", "-wal", "-shm"):
            if end == "" or os.path.exists(path):
                self.will_write(path + end)

    def _bind(self, address):
        if isinstance(address, (str, bytes)) and address and address[:1] not in ("\0", b"\0"):
            self._create(at(address))

    def _program(self, command):
        listed = command if isinstance(command, (list, tuple)) else os.fsdecode(command).split()
        words = [os.fsdecode(w) if isinstance(w, (bytes, os.PathLike)) else str(w) for w in listed]
        if not words or os.path.basename(words[0]) in HARMLESS:
            return
        text = " ".join(words)
        self._watch.writer.once(
            "not-kept", what=text[:500], reason="a program was started: its files are not seen"
        )

    def _replaced(self, command):
        self._program(command)
        self._watch.steps.drain()
        self._watch.writer.event("ended", why="exec", error="")

    def _is_left_alone(self, path):
        return path.startswith(self._left_alone)

    def _tell(self, kind, path, found, **fields):
        if found is not None:
            fields["size"] = found.st_size
            fields["permissions"] = stat.S_IMODE(found.st_mode)
            fields["times"] = (found.st_atime_ns, found.st_mtime_ns)
        self._note_folder(path)
        times = self._unsaid.pop(os.path.dirname(path), None)
        self._watch.writer.event("wrote", kind=kind, path=path, folder_times=times, **fields)

    def _note_folder(self, path):
        """The times of its folder, before anything is moved."""
        folder = os.path.dirname(path)
        if folder in self._folders:
            return
        self._folders.add(folder)
        above = _stat(folder)
        if above is not None:
            self._unsaid[folder] = (above.st_atime_ns, above.st_mtime_ns)


def at(path, folder=-1):
    """A path as audit events tell it, absolute; the last part may still be a link.

    Args:
        path: or the number of an open file.
        folder: number of an open folder that it is relative to; negative for the current one.
    """
    if isinstance(path, int):
        return os.readlink(f"/proc/self/fd/{path}")
    text = os.fsdecode(path)
    if isinstance(folder, int) and folder >= 0 and not os.path.isabs(text):
        text = os.path.join(os.readlink(f"/proc/self/fd/{folder}"), text)
    head, tail = os.path.split(os.path.abspath(text))
    return os.path.join(os.path.realpath(head), tail)


def _stat(path, links=False):
    """Of a file, None where there is none; of a link itself where asked."""
    try:
        return os.lstat(path) if links else os.stat(path)
    except OSError:
        return None
