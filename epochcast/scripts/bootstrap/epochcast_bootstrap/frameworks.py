"""Lightning, Trainer, Keras, accelerate: what they declare, how they end early; ``ec.follow``, too.

After the last wanted epoch each is told to stop in its own way, as by early stopping: what a script
does after its training (a last evaluation, an export) is then seen. Where it trains on, such as in
a second ``fit``, it is ended there.
"""

from __future__ import annotations

import functools
import os

LIGHTNING = ("lightning.pytorch", "pytorch_lightning")


def wait_for_frameworks(watch):
    """Watch frameworks once they are imported."""
    when, saves = watch.waiting.when, watch.saves
    for package in LIGHTNING:
        lightning = Lightning(watch, package)
        when(f"{package}.loops.training_epoch_loop", lightning.hook_epoch)
        when(f"{package}.loops.fit_loop", lightning.hook_epochs)
        when(f"{package}.trainer.trainer", lightning.hook_trainer)
    when("transformers.trainer", functools.partial(_hook_transformers, watch))
    when("transformers.trainer_callback", functools.partial(_hook_callbacks, watch))
    when("transformers.modeling_utils", lambda m: _wrap_class(saves, m.PreTrainedModel))
    when("accelerate.accelerator", functools.partial(_hook_accelerate, watch))
    when("epochcast.guard.guard", functools.partial(_hook_guard, watch))
    when("keras.src.optimizers.base_optimizer", watch.steps.hook_keras)
    when("keras.src.backend.torch.trainer", functools.partial(_hook_keras, watch))
    when("keras.src.models.model", functools.partial(_hook_keras_saves, watch))
    for name in ("torchdata.stateful_dataloader.stateful_dataloader",):
        when(name, watch.loaders.hook)


def _wrap_class(saves, model):
    saves.wrap(model, "save_pretrained", "transformers", 1, "save_directory")


def version_of(name):
    """Of a package that is imported, empty where it does not say."""
    import sys

    return str(getattr(sys.modules.get(name), "__version__", ""))


def _hook_end(watch, kind, name):
    """Say when a framework's training is over: what a script evaluates or saves then is its own.

    Args:
        watch: what this is part of.
        kind: class that has the method.
        name: of what is called at that moment.
    """
    original = getattr(kind, name, None)
    if original is None:
        return

    @functools.wraps(original)
    def ends(self, *args, **kwargs):
        watch.guarded("end", lambda: watch.writer.event("feature", name="trained", detail=""))
        return original(self, *args, **kwargs)

    setattr(kind, name, ends)


class Lightning:
    """Ends an epoch by Lightning's own count: it refuses a loader that ends early.

    Before the batch that is to be the last, the fetcher's length is set to it; Lightning then does
    all that it does after a last batch. Where it evaluates once or more in an epoch, it does so
    once, after that batch.

    Args:
        watch: what this is part of.
        package: the name that Lightning goes by.
    """

    def __init__(self, watch, package):
        self._watch, self._package = watch, package
        self._interval = None  # between evaluations, while it is changed
        self._saved = False

    def hook_trainer(self, module):
        """Watch the ``Trainer``."""
        watch, package = self._watch, self._package
        trainer = module.Trainer
        watch.saves.wrap(trainer, "save_checkpoint", "lightning", 1, "filepath")
        original = trainer._run

        @functools.wraps(original)
        def _run(self, *args, **kwargs):
            watch.guarded("lightning", lambda: _declare_lightning(watch, self, package))
            former, watch.stage = watch.stage, lambda: _stage_of(self)
            try:
                return original(self, *args, **kwargs)
            finally:
                watch.stage = former

        trainer._run = _run

    def hook_epochs(self, module):
        """Watch the loop over epochs."""
        loop, watch = module._FitLoop, self._watch
        original = loop.on_advance_end

        @functools.wraps(original)
        def on_advance_end(self):
            original(self)
            if watch.guarded("lightning", watch.stops_now):
                self.trainer.should_stop = True
                watch.ending.stop()

        loop.on_advance_end = on_advance_end
        _hook_end(watch, loop, "on_run_end")

    def hook_epoch(self, module):
        """Watch the loop of an epoch."""
        loop = module._TrainingEpochLoop
        original, lightning, watch = loop.advance, self, self._watch

        @functools.wraps(original)
        def advance(self, data_fetcher, *args, **kwargs):
            last = watch.guarded("lightning", lambda: lightning._before(self, data_fetcher))
            watch.loaders.framework_cuts = data_fetcher.length is not None
            try:
                result = original(self, data_fetcher, *args, **kwargs)
            finally:
                watch.loaders.framework_cuts = False
            if last is not None:
                watch.guarded("lightning", lambda: lightning._after(self, last))
            if watch.is_asked() and self.trainer.should_stop and not lightning._saved:
                watch.guarded("lightning", lambda: lightning._save(self.trainer))
            return result

        loop.advance = advance

    def _before(self, loop, fetcher):
        """The pass that ends with the next batch, None while it goes on."""
        trainer, watch = loop.trainer, self._watch
        if watch.is_asked() and not trainer.should_stop:
            trainer.should_stop = True
        if self._interval is not None:
            trainer.val_check_batch, self._interval = self._interval, None
        this = watch.loaders.current
        if not watch.miniature or this is None or fetcher.length is None:
            return None
        from epochcast_bootstrap.writing import now

        stride = max(this.stride, trainer.accumulate_grad_batches)
        if not watch.loaders.is_due(this, now(), ahead=1) or (this.batches + 1) % stride:
            return None
        fetcher.length = fetcher.fetched + 1
        return this

    def _save(self, trainer):
        """Before a stop that was asked for: Lightning itself only saves when its callbacks do."""
        self._saved = True
        callback = trainer.checkpoint_callback
        if callback is not None:  # else whoever wrote the script wants no checkpoints
            folder = callback.dirpath or trainer.default_root_dir
            trainer.save_checkpoint(os.path.join(str(folder), "stopped.ckpt"))

    def _after(self, loop, this):
        trainer = loop.trainer
        every_epoch = trainer.check_val_every_n_epoch is not None
        if every_epoch and isinstance(trainer.val_check_batch, int):
            self._interval = trainer.val_check_batch
            trainer.val_check_batch = loop.batch_idx + 1
        from epochcast_bootstrap.writing import now

        self._watch.loaders.end(this, "cut", now())


def _stage_of(trainer):
    stage = getattr(getattr(trainer, "state", None), "stage", None)
    return str(getattr(stage, "value", "") or "")


def _declare_lightning(watch, trainer, package):
    watch.writer.once("feature", name="lightning", detail=version_of(package.split(".")[0]))
    if _function_of(trainer) != "fit":
        return
    watch.writer.event(
        "declared",
        framework="lightning",
        epochs=_positive(trainer.max_epochs),
        steps=_positive(trainer.max_steps),
        batches=_limit(trainer.limit_train_batches),
        accumulate=trainer.accumulate_grad_batches,
    )


def _limit(batches):
    return batches if isinstance(batches, int) and not isinstance(batches, bool) else None


def _function_of(trainer):
    return str(getattr(getattr(trainer.state, "fn", None), "value", ""))


def _positive(number):
    return number if isinstance(number, (int, float)) and 0 < number < float("inf") else None


def _hook_transformers(watch, module):
    saves, trainer = watch.saves, module.Trainer
    saves.wrap(trainer, "_save_checkpoint", "transformers", None)
    saves.wrap(trainer, "save_model", "transformers", 1, "output_dir")
    original = trainer.train

    @functools.wraps(original)
    def train(self, *args, **kwargs):
        watch.guarded("transformers", lambda: _declare_transformers(watch, self.args))
        return original(self, *args, **kwargs)

    trainer.train = train
    _hook_end_of_epoch(watch, trainer)


def _hook_end_of_epoch(watch, trainer):
    """A stop that is asked for at the end of an epoch comes after its evaluation and its save."""
    original = getattr(trainer, "_maybe_log_save_evaluate", None)
    if original is None:
        return

    @functools.wraps(original)
    def _maybe_log_save_evaluate(self, *args, **kwargs):
        found = original(self, *args, **kwargs)
        if self.control.should_training_stop and watch.guarded("transformers", watch.stops_now):
            watch.ending.stop()
        return found

    trainer._maybe_log_save_evaluate = _maybe_log_save_evaluate


def _declare_transformers(watch, args):
    watch.writer.once("feature", name="transformers", detail=version_of("transformers"))
    watch.writer.event(
        "declared",
        framework="transformers",
        epochs=_positive(args.num_train_epochs),
        steps=_positive(args.max_steps),
        accumulate=args.gradient_accumulation_steps,
    )


def _hook_callbacks(watch, module):
    handler = module.CallbackHandler
    original = handler.on_step_end

    @functools.wraps(original)
    def on_step_end(self, args, state, control):
        control = original(self, args, state, control)
        if watch.is_asked():
            control.should_training_stop = control.should_save = True
        return control

    end = handler.on_epoch_end

    @functools.wraps(end)
    def on_epoch_end(self, args, state, control):
        control = end(self, args, state, control)
        if watch.guarded("transformers", watch.stops_now):
            control.should_training_stop = True
        return control

    handler.on_step_end, handler.on_epoch_end = on_step_end, on_epoch_end
    _hook_end(watch, handler, "on_train_end")


def _hook_guard(watch, module):
    """A script that follows a plan itself, by a loop or in a framework: its guard is asked."""
    start, step, close = module.Guard.start, module.Guard.step, module.Guard.close

    @functools.wraps(start)
    def counted_start(self):
        watch.followed += 1
        watch.writer.once("feature", name="epochcast", detail=version_of("epochcast"))
        return start(self)

    @functools.wraps(step)
    def asked_step(self):
        if watch.is_asked(by_guard=True):
            self.ask_to_leave()
        return step(self)

    @functools.wraps(close)
    def counted_close(self, *args, **kwargs):
        watch.followed -= 1
        return close(self, *args, **kwargs)

    module.Guard.start, module.Guard.step = counted_start, asked_step
    module.Guard.close = counted_close


def _hook_accelerate(watch, module):
    accelerator = module.Accelerator
    watch.modes.feature_of(accelerator, "accelerate")
    for name, keyword in (("save_state", "output_dir"), ("save_model", "save_directory")):
        position = 1 if name == "save_state" else 2
        watch.saves.wrap(accelerator, name, "accelerate", position, keyword)


def _hook_keras(watch, module):
    """``fit`` tells its callbacks what it was asked for."""
    callbacks = module.callbacks_module.CallbackList
    begin = callbacks.on_train_begin

    @functools.wraps(begin)
    def on_train_begin(self, *args, **kwargs):
        watch.guarded("keras", lambda: _declare_keras(watch, self.params))
        return begin(self, *args, **kwargs)

    step, end = callbacks.on_train_batch_end, callbacks.on_epoch_end

    @functools.wraps(step)
    def on_train_batch_end(self, *args, **kwargs):
        step(self, *args, **kwargs)
        if watch.is_asked():
            self._model.stop_training = True

    @functools.wraps(end)
    def on_epoch_end(self, *args, **kwargs):
        end(self, *args, **kwargs)
        if watch.guarded("keras", watch.stops_now):
            self._model.stop_training = True
            watch.ending.stop()

    callbacks.on_train_begin = on_train_begin
    callbacks.on_train_batch_end, callbacks.on_epoch_end = on_train_batch_end, on_epoch_end
    _hook_end(watch, callbacks, "on_train_end")


def _declare_keras(watch, params):
    watch.writer.once("feature", name="keras", detail=version_of("keras"))
    watch.writer.event(
        "declared",
        framework="keras",
        epochs=_positive(params.get("epochs")),
        batches=_positive(params.get("steps")),
    )


def _hook_keras_saves(watch, module):
    for name in ("save", "save_weights"):
        watch.saves.wrap(module.Model, name, "keras", 1, "filepath")
