"""Run in a process of its own: follows steps on devices that are not there, one JSON line each.

python followed_on_cards.py MODULE      of each name that this test module asks for, prints
                               {"name", "sequence"}, or {"name", "error"}
"""

from __future__ import annotations

import contextlib
import json
import sys
import traceback
from copy import deepcopy
from dataclasses import replace
from functools import partial

import torch
from recorded_gpt import run as run_recorded_gpt
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn import functional
from torch.utils.checkpoint import checkpoint
from torch.utils.data import TensorDataset

from epochcast.profiler.footprint.cuda.sequence import claim, sequence
from epochcast.profiler.footprint.cuda.watcher import CUBLAS, CudaWatcher
from epochcast.profiler.workload import Workload
from epochcast.records import DeviceSpec, to_builtins

T4 = DeviceSpec(
    name="t4",
    memory_bytes=15_634_661_376,
    capability=(7, 5),
    multiprocessors=40,
    threads_per_multiprocessor=1024,
)
A100 = replace(T4, name="a100", capability=(8, 0), multiprocessors=108)
A100 = replace(A100, threads_per_multiprocessor=2048, memory_bytes=42_298_834_944)
H100 = replace(A100, name="h100", capability=(9, 0), multiprocessors=132)
RTX_4090 = replace(A100, name="rtx-4090", capability=(8, 9), multiprocessors=128)
RTX_4090 = replace(RTX_4090, threads_per_multiprocessor=1536)


# -- as somebody recorded it -----------------------------------------------------------------------


def watched(device, run):
    """Allocations of a program that makes its own tensors on the device."""
    claim(device)
    mode = FakeTensorMode(allow_non_fake_inputs=True)
    watcher = CudaWatcher(device, mode)
    with mode, watcher:
        run(watcher)
        return watcher.blocks.sequence(device)


def recorded(context, trains, autocast):
    return watched(RTX_4090, lambda _: run_recorded_gpt(context, trains=trains, autocast=autocast))


def transformer(kind, batch, tokens):
    """A step of torch-preflight's measurement: the handles of cuBLAS were there from others."""
    import transformers

    nn.init.trunc_normal_ = lambda tensor, *_, **__: tensor
    configs = {
        "gpt2": transformers.GPT2Config,
        "distilbert-base-uncased": transformers.DistilBertConfig,
        "bert-base-uncased": transformers.BertConfig,
    }
    config = configs[kind]()
    auto = transformers.AutoModelForCausalLM if kind == "gpt2" else transformers.AutoModel

    def run(watcher):
        for name in CUBLAS:
            watcher.blocks.keep(name, 8_519_680, "aten.mm.default")
        model = auto.from_config(config).cuda().train()
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5)
        ids = torch.randint(0, config.vocab_size - 1, (batch, tokens), device="cuda")
        for step in (1, 2):
            watcher.blocks.mark("forward", step)
            optimizer.zero_grad(set_to_none=True)
            with torch.autocast("cuda", dtype=torch.bfloat16):
                out = model(input_ids=ids, labels=ids) if kind == "gpt2" else model(input_ids=ids)
                loss = out.loss if kind == "gpt2" else out.last_hidden_state.float().pow(2).mean()
            loss.backward()
            optimizer.step()

    return watched(T4, run)


# -- small networks --------------------------------------------------------------------------------


def mlp(optimizer=torch.optim.AdamW, **settings):
    model = nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Dropout(0.1), nn.Linear(128, 10))
    data = TensorDataset(torch.zeros(64, 64), torch.zeros(64, dtype=torch.long))
    return Workload(
        model=model,
        train_data=data,
        optimizer=optimizer(model.parameters(), lr=0.1),
        loss=functional.cross_entropy,
        batch_size=32,
        **settings,
    )


class Encoder(nn.Module):
    """Layers of attention with dropout, each recomputed in the backward pass if asked for."""

    def __init__(self, layers, width, dropout, recomputed=False):
        super().__init__()
        self.recomputed = recomputed
        self.layers = nn.ModuleList(
            nn.TransformerEncoderLayer(width, 8, 4 * width, dropout, batch_first=True)
            for _ in range(layers)
        )

    def forward(self, x):
        for layer in self.layers:
            x = checkpoint(layer, x, use_reentrant=False) if self.recomputed else layer(x)
        return x


def encoder(dropout, *, layers=1, tokens=1024, width=512, batch=8, recomputed=False, **settings):
    model = Encoder(layers, width, dropout, recomputed)
    data = TensorDataset(torch.zeros(batch, tokens, width))
    return Workload(
        model=model,
        train_data=data,
        optimizer=torch.optim.SGD(model.parameters(), lr=0.1),
        forward=lambda model, batch: model(batch[0]).float().sum(),
        batch_size=batch,
        **settings,
    )


class Classifier(nn.Module):
    """As github.com/itu-rad/GPUMemNet trained it, in float32 with Adam (transformer.py)."""

    def __init__(self, tokens, width, layers, heads, hidden, dropout, length, classes):
        super().__init__()
        self.embedding = nn.Embedding(tokens, width)
        self.positions = nn.Parameter(torch.zeros(1, length, width))
        layer = nn.TransformerEncoderLayer(width, heads, hidden, dropout, batch_first=True)
        self.body = nn.TransformerEncoder(layer, layers)
        self.head = nn.Linear(width, classes)

    def forward(self, x):
        return self.head(self.body(self.embedding(x) + self.positions).mean(1))


def mlp_by_itself():
    work = mlp()

    def train_step(batch):
        functional.cross_entropy(work.model(batch[0]), batch[1]).backward()
        work.optimizer.step()
        work.optimizer.zero_grad()

    return replace(work, loss=None, train_step=train_step)


class Averaging:
    """Makes a copy of a model's weights at the first update, and keeps an average of them in it."""

    def __init__(self):
        self.average = None

    def __call__(self, model):
        if self.average is None:
            self.average = deepcopy(model).requires_grad_(False)
        for mine, theirs in zip(self.average.parameters(), model.parameters(), strict=True):
            mine.lerp_(theirs.detach(), 0.01)


def averaged_by_itself():
    work, average = mlp(), Averaging()

    def train_step(batch):
        functional.cross_entropy(work.model(batch[0]), batch[1]).backward()
        work.optimizer.step()
        average(work.model)

    return replace(work, loss=None, train_step=train_step)


def of_another():
    """Its optimizer updates another model."""
    return replace(mlp(), optimizer=torch.optim.SGD(nn.Linear(4, 3).parameters()))


def cell():
    """Steps of a GRU's cell, one by one."""
    cell = nn.GRUCell(64, 32)

    def loss(cell, batch):
        state = cell(batch[0])
        return cell(batch[0], state).sum()

    return replace(mlp(), model=cell, loss=None, forward=loss, optimizer=_adam(cell))


def _adam(model):
    return torch.optim.Adam(model.parameters())


def classifier(batch, length, classes, *sizes):
    tokens, width, layers, heads, hidden, dropout = sizes
    model = Classifier(tokens, width, layers, heads, hidden, dropout, length, classes)
    inputs = torch.zeros(batch, length, dtype=torch.long)
    return Workload(
        model=model,
        train_data=TensorDataset(inputs, torch.zeros(batch, dtype=torch.long)),
        optimizer=torch.optim.Adam(model.parameters()),
        loss=functional.cross_entropy,
        batch_size=batch,
    )


# batch, tokens, classes, vocabulary, width, layers, heads, hidden, dropout
CLASSIFIERS = {
    "classifier 2807": (8, 512, 948, 482062, 128, 4, 8, 404, 0.226),
    "classifier 5217": (64, 512, 273, 553893, 128, 8, 8, 332, 0.165),
    "classifier 5633": (64, 512, 521, 334696, 128, 10, 8, 487, 0.342),
}


class Convolutions(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(3, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(), nn.MaxPool2d(2)
        )
        self.head = nn.Linear(16, 10)

    def forward(self, x):
        with torch.cuda.device(0), torch.cuda.nvtx.range("body"):
            x = self.body(x)
        return self.head(x.mean((2, 3)))


def gated():
    """SiLU and a root-mean-square norm, as in Llama."""
    model = nn.Sequential(nn.RMSNorm(64), nn.Linear(64, 64), nn.SiLU(), nn.Mish(), nn.Linear(64, 8))
    return Workload(
        model=model,
        train_data=TensorDataset(torch.zeros(64, 64), torch.zeros(64, dtype=torch.long)),
        optimizer=torch.optim.SGD(model.parameters(), lr=0.1),
        loss=functional.cross_entropy,
        batch_size=64,
    )


def spectral():
    """A Fourier transform, for whose FLOPs there is no formula."""

    def loss(model, batch):
        return torch.fft.rfft(model(batch[0])).abs().sum()

    return replace(mlp(), loss=None, forward=loss)


def cnn():
    model = Convolutions()
    data = TensorDataset(torch.zeros(16, 3, 32, 32), torch.zeros(16, dtype=torch.long))
    return Workload(
        model=model,
        train_data=data,
        optimizer=torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9),
        loss=functional.cross_entropy,
        batch_size=8,
    )


class Recurrent(nn.Module):
    def __init__(self, kind, **settings):
        super().__init__()
        self.body = kind(32, 64, 2, dropout=0.1, batch_first=True, **settings)
        self.head = nn.Linear(64, 10)

    def forward(self, x):
        return self.head(self.body(x)[0][:, -1])


def recurrent(kind=nn.LSTM, **settings):
    model = Recurrent(kind)
    data = TensorDataset(torch.zeros(32, 20, 32), torch.zeros(32, dtype=torch.long))
    return Workload(
        model=model,
        train_data=data,
        optimizer=torch.optim.SGD(model.parameters(), lr=0.1),
        loss=functional.cross_entropy,
        batch_size=16,
        **settings,
    )


def _workload(build, device=A100, source="device"):
    return lambda: sequence(build, None, device, source)


RECORDED = {
    "recorded 100": lambda: recorded(100, True, False),
    "recorded 200 mixed": lambda: recorded(200, True, True),
    "recorded 200 forward mixed": lambda: recorded(200, False, True),
    "gpt2 8 256": lambda: transformer("gpt2", 8, 256),
    "distilbert-base-uncased 4 128": lambda: transformer("distilbert-base-uncased", 4, 128),
    **{name: _workload(partial(classifier, *sizes)) for name, sizes in CLASSIFIERS.items()},
}
SMALL = {
    "mlp": _workload(mlp),
    "mlp on cpu": _workload(mlp, source="cpu"),
    "mlp by itself": _workload(mlp_by_itself),
    "mlp of another": _workload(of_another),
    "mlp averaged": _workload(lambda: mlp(after_update=Averaging())),
    "mlp averaged by itself": _workload(averaged_by_itself),
    "gru cell": _workload(cell),
    "mlp accumulated": _workload(partial(mlp, accumulation=2)),
    "mlp fp16": _workload(partial(mlp, precision="fp16")),
    "mlp compiled": _workload(partial(mlp, compile=True)),
    "mlp h100": _workload(mlp, H100),
    "cnn": _workload(cnn),
    "spectral": _workload(spectral),
    "gated": _workload(gated),
    "gated on cpu": _workload(gated, source="cpu"),
    "lstm": _workload(recurrent),
    "lstm on cpu": _workload(recurrent, source="cpu"),
    "gru": _workload(partial(recurrent, nn.GRU)),
    "encoder": _workload(partial(encoder, 0.0)),
    "encoder dropout": _workload(partial(encoder, 0.1)),
    "encoder dropout on cpu": _workload(partial(encoder, 0.1), source="cpu"),
    "encoder dropout bf16": _workload(partial(encoder, 0.1, precision="bf16")),
    "encoders": _workload(partial(encoder, 0.1, layers=3, tokens=128, width=64)),
    "encoders recomputed": _workload(
        partial(encoder, 0.1, layers=3, tokens=128, width=64, recomputed=True)
    ),
}


CASES = {"test_recorded": RECORDED, "test_sequence": SMALL}  # each module may have a process


def main(module):
    for name, case in CASES[module].items():
        try:
            line = {"name": name, "sequence": to_builtins(case())}
        except Exception as error:  # noqa: BLE001 - said by the test that wants it
            traceback.print_exc()
            line = {"name": name, "error": f"{type(error).__name__}: {error}"}
        yield json.dumps(line)


if __name__ == "__main__":
    answers = sys.stdout
    with contextlib.redirect_stdout(sys.stderr):  # what libraries print
        for line in main(sys.argv[1]):
            print(line, file=answers, flush=True)
