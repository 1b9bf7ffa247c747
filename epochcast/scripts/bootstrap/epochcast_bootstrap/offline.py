"""Nothing leaves the machine: experiment trackers work offline, uploads to hubs are refused.

Trackers are told by their environment variables where that is not answered by a line of output; or
the call that starts them is changed. What they write goes to our folder where they can be told so.
"""

from __future__ import annotations

import functools
import os

UPLOADS = (  # of huggingface_hub.HfApi
    "create_branch",
    "create_commit",
    "create_discussion",
    "create_pull_request",
    "create_repo",
    "create_tag",
    "delete_file",
    "delete_folder",
    "delete_repo",
    "preupload_lfs_files",
    "super_squash_history",
    "update_repo_settings",
    "update_repo_visibility",
    "upload_file",
    "upload_folder",
    "upload_large_folder",
)


def keep_offline(watch):
    """Set the variables, and wait for what does not obey them.

    Args:
        watch: what this is part of.
    """
    folder = os.path.join(watch.settings["folder"], "trackers")
    os.environ.update(variables(folder))
    when = watch.waiting.when
    when("wandb", functools.partial(_hook_wandb, watch))
    when("mlflow", functools.partial(_hook_mlflow, watch, f"file:{folder}/mlruns"))
    when("comet_ml", functools.partial(_hook_comet, watch))
    when("neptune", functools.partial(_hook_neptune, watch))
    when("huggingface_hub.hf_api", functools.partial(_hook_hub, watch))


def variables(folder):
    """Of the environment.

    Args:
        folder: for what the trackers write.
    """
    return {
        "WANDB_DIR": folder,
        "WANDB_CACHE_DIR": os.path.join(folder, "wandb-cache"),
        "WANDB_DATA_DIR": os.path.join(folder, "wandb-data"),
        "WANDB_SILENT": os.environ.get("WANDB_SILENT", "true"),
        "MLFLOW_TRACKING_URI": f"file:{folder}/mlruns",
        "MLFLOW_ALLOW_FILE_STORE": "true",  # since 3.7 or so it asks for that
        "COMET_MODE": "offline",
        "COMET_START_ONLINE": "0",
        "COMET_OFFLINE_DIRECTORY": folder,
        "NEPTUNE_MODE": "offline",
        "CLEARML_OFFLINE_MODE": "1",
        "SWANLAB_MODE": "offline",
        "DVCLIVE_TEST": "true",
    }


def _changed(watch, owner, name, keyword, value):
    """Have a function called with another value of an argument."""
    original = getattr(owner, name, None)
    if original is None:
        return

    @functools.wraps(original)
    def call(*args, **kwargs):
        if kwargs.get(keyword) != value:
            kwargs[keyword] = value
        watch.writer.once("feature", name="offline", detail=f"{owner.__name__}.{name}")
        return original(*args, **kwargs)

    setattr(owner, name, call)


def _hook_wandb(watch, module):
    os.makedirs(os.environ["WANDB_DIR"], exist_ok=True)
    original = module.init

    @functools.wraps(original)
    def init(*args, **kwargs):
        if (kwargs.get("mode") or os.environ.get("WANDB_MODE")) != "disabled":
            kwargs["mode"] = "offline"
        kwargs.pop("resume", None)  # needs the server
        watch.writer.once("feature", name="offline", detail="wandb.init")
        return original(*args, **kwargs)

    module.init = init


def _hook_mlflow(watch, place, module):
    original = module.set_tracking_uri

    @functools.wraps(original)
    def set_tracking_uri(uri, *args, **kwargs):
        if str(uri).startswith(("http", "databricks")):
            watch.writer.once("feature", name="offline", detail="mlflow.set_tracking_uri")
            uri = place
        return original(uri, *args, **kwargs)

    module.set_tracking_uri = set_tracking_uri


def _hook_comet(watch, module):
    offline = getattr(module, "OfflineExperiment", None)
    if offline is not None:
        module.Experiment = offline
    _changed(watch, module, "start", "online", False)


def _hook_neptune(watch, module):
    _changed(watch, module, "init_run", "mode", "offline")


def _hook_hub(watch, module):
    for name in UPLOADS:
        if hasattr(module.HfApi, name):
            setattr(module.HfApi, name, _refusing(watch, name, getattr(module.HfApi, name)))
        if hasattr(module, name):  # bound methods of one HfApi
            setattr(module, name, functools.partial(getattr(module.HfApi, name), module.api))


def _refusing(watch, name, original):
    @functools.wraps(original)
    def refuse(self, *args, **kwargs):
        watch.writer.once("refused", what=f"huggingface_hub.{name}")
        return Refused(str(kwargs.get("repo_id") or (args[0] if args else "")))

    return refuse


class Refused(str):
    """Stands for what an upload returns: text, a future that is done, an object of such."""

    __slots__ = ()

    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)
        return Refused(self)

    def __call__(self, *args, **kwargs):
        return self

    def done(self):
        """As of a future."""
        return True

    def result(self, timeout=None):
        """As of a future."""
        return self
