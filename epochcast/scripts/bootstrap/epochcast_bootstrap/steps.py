"""Optimizer steps and backward calls, in blocks.

A step costs a stamp here; a block is written when it is full, when half a second has passed, or
when something else is to be said. On an accelerator the end of a block waits for the device, so
that the mean step of a block is true although kernels run behind.
"""

from __future__ import annotations

import functools
import threading
import weakref

from epochcast_bootstrap.loaders import type_name
from epochcast_bootstrap.writing import now

BLOCK = 256  # steps
BLOCK_SECONDS = 0.5
MOST_OPTIMIZERS = 64  # that are described


class Steps:
    """All steps of this process.

    Args:
        watch: what they are part of.
    """

    def __init__(self, watch):
        self._watch = watch
        self.count = 0
        self.backwards = 0
        self.skipped = 0
        self.waited = 0.0  # seconds in loaders
        self.inside = []  # optimizers that are stepping: one may call another
        self._in_backward = False
        self._numbers = weakref.WeakKeyDictionary()
        self._described = 0
        self._block = []
        self._kind = "steps"
        self._pass = None
        self._written_at = now()
        self._synchronized = False
        self.device = None  # of the first parameter that was seen
        self.thread = None  # that made the last one

    def hook_optimizers(self, module):
        """Watch ``torch.optim.optimizer``."""
        module.register_optimizer_step_pre_hook(lambda opt, args, kwargs: self.stepping(opt))
        module.register_optimizer_step_post_hook(lambda opt, args, kwargs: self.stepped(opt))

    def hook_dynamo(self, module):
        """Before torch 2.4 or so dynamo takes the global hooks away from torch's optimizers."""
        patcher, steps = module.TorchPatcher, self
        original = patcher.patch

        @functools.wraps(original)
        def patch(*args, **kwargs):
            result = original(*args, **kwargs)
            steps._watch.guarded("dynamo", steps._hook_again)
            return result

        patcher.patch = staticmethod(patch)

    def _hook_again(self):
        optim = self._watch.torch.optim
        for kind in list(vars(optim).values()):
            if isinstance(kind, type) and issubclass(kind, optim.Optimizer):
                step = vars(kind).get("step")
                if getattr(step, "hooked", False) and not calls_hooks(step):
                    kind.step = self._hooked(step)

    def _hooked(self, original):
        steps = self

        @functools.wraps(original)
        def step(self, *args, **kwargs):
            steps.stepping(self)
            result = original(self, *args, **kwargs)
            steps.stepped(self)
            return result

        return step

    def hook_backward(self, autograd):
        """Watch ``torch.autograd``: ``Tensor.backward`` calls its ``backward``."""
        backward, grad, steps = autograd.backward, autograd.grad, self

        @functools.wraps(backward)
        def counted_backward(*args, **kwargs):
            if steps._in_backward:  # of a reentrant checkpoint
                return backward(*args, **kwargs)
            steps._in_backward = True
            try:
                result = backward(*args, **kwargs)
            finally:
                steps._in_backward = False
            steps.went_back()
            return result

        @functools.wraps(grad)
        def counted_grad(*args, **kwargs):
            result = grad(*args, **kwargs)
            if not (kwargs.get("create_graph") or steps._in_backward):  # else a penalty's
                steps.went_back()
            return result

        autograd.backward, autograd.grad = counted_backward, counted_grad

    def hook_scaler(self, scaler):
        """Watch a class of gradient scalers."""
        original, steps, watch = scaler.step, self, self._watch

        @functools.wraps(original)
        def step(self, optimizer, *args, **kwargs):
            if self.is_enabled():
                watch.writer.once("feature", name="grad-scaler", detail="")
            before = steps.count
            result = original(self, optimizer, *args, **kwargs)
            if steps.count == before and not steps.inside:  # infinite gradients
                steps.skipped += 1
                steps.stepped(optimizer)
            return result

        scaler.step = step

    def hook_keras(self, module):
        """Watch Keras's optimizers, which are none of torch."""
        kind = module.BaseOptimizer
        original, steps = kind.apply, self

        @functools.wraps(original)
        def apply(self, *args, **kwargs):
            steps.stepping(self)
            result = original(self, *args, **kwargs)
            if steps.updates(self):
                steps.stepped(self)
            elif self in steps.inside:
                steps.inside.remove(self)
            return result

        kind.apply = apply

    def updates(self, optimizer):
        """Whether the call of a Keras optimizer that just ended updated the weights."""
        every = getattr(optimizer, "gradient_accumulation_steps", None)
        return not every or int(optimizer._iterations.value) % every == 0

    def stepping(self, optimizer):
        """An optimizer begins a step."""
        inside = self.inside
        for place, other in enumerate(inside):
            if other is optimizer:  # an exception ended its last step
                del inside[place:]
                break
        inside.append(optimizer)

    def stepped(self, optimizer):
        """An optimizer has made a step."""
        inside = self.inside
        if inside and inside[-1] is optimizer:
            inside.pop()
        if inside:
            return  # part of another's step
        try:
            self._stepped(optimizer)
        except Exception as error:  # noqa: BLE001
            self._watch.writer.failed("step", error)
        self._watch.after_step()

    def _stepped(self, optimizer):
        if self._watch.is_compiling():
            return
        number = self._numbers.get(optimizer)
        if number is None:
            number = self._describe(optimizer)
        self.count += 1
        self._put("steps", number)
        this = self._pass
        if this is None:
            return
        this.steps += 1
        this.step_at = self._block[-1][0] if self._block else now()
        if this.batches != this.batches_at_step and this.outcome is None:
            this.stride = max(1, this.batches - (this.batches_at_step or 0))
            this.batches_at_step = this.batches

    def went_back(self):
        """A backward call is over."""
        self.backwards += 1
        this = self._watch.loaders.current
        if this is not None:
            this.backwards += 1
        if self.count:
            return
        try:
            if not self._watch.is_compiling():
                self._put("backwards", -1)
        except Exception as error:  # noqa: BLE001
            self._watch.writer.failed("backward", error)
        if not self.inside and self.backwards > BLOCK:  # no optimizer is coming
            self._watch.after_step()

    def _put(self, kind, number):
        this = self._watch.loaders.stepping()
        if this is not self._pass or kind != self._kind:
            self.drain()
            self._pass, self._kind = this, kind
        at = now()
        if len(self._block) >= BLOCK or at - self._written_at > BLOCK_SECONDS:
            self._synchronized = self._watch.synchronize()
            at = now()
        self.thread = threading.get_ident()
        self._block.append((at, number, this.batches if this else 0, self.backwards, self.waited))
        if len(self._block) > BLOCK or at - self._written_at > BLOCK_SECONDS:
            self.drain()
            self._watch.after_block()

    def forget(self):
        """Leave the block to the process that this one was forked from."""
        self._block = []

    def drain(self):
        """Write the block as it is."""
        block, self._block = self._block, []
        self._written_at = now()
        if not block:
            return
        this, kind = self._pass, self._kind
        fields = {"skipped": self.skipped} if kind == "steps" else {}
        self._watch.writer.event(
            kind,
            soon=True,
            loader=this.seen.number if this else None,
            steps=block,
            synchronized=self._synchronized,
            **{"pass": this.number if this else None},
            **fields,
        )
        self._synchronized = False

    def _describe(self, optimizer):
        number = self._numbers[optimizer] = self._described
        self._described += 1
        if self._described > MOST_OPTIMIZERS:
            return number
        parameters = _parameters(optimizer)
        if not parameters:
            return number
        device = getattr(parameters[0], "device", "cpu")
        if self.device is None:
            self.device = device
        name, memory = self._watch.describe_device(device)
        self._watch.writer.event(
            "optimizer",
            number=number,
            name=type_name(optimizer),
            parameters=sum(p.numel() for p in parameters),
            device=str(device),
            device_name=name,
            device_memory=memory,
        )
        return number


def calls_hooks(step):
    """Whether an optimizer's ``step`` is wrapped in what calls the global hooks."""
    while step is not None:
        code = getattr(step, "__code__", None)
        if code is not None and code.co_name == "wrapper" and "optimizer" in code.co_filename:
            return True
        step = getattr(step, "__wrapped__", None)
    return False


def _parameters(optimizer):
    groups = getattr(optimizer, "param_groups", None)
    if groups is not None:
        return [parameter for group in groups for parameter in group["params"]]
    variables = getattr(optimizer, "_trainable_variables", ())
    return [v.value for v in variables if hasattr(getattr(v, "value", None), "numel")]
