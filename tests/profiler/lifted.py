"""Nine kinds of other people's training, each lifted into a workload as its author wrote it.

Small stand-ins: what is peculiar to a kind is here, its size is not.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional
from torch.utils.data import Dataset, TensorDataset

from epochcast import Workload


def clip_and_sgd(width: int = 8) -> Workload:
    """Clipped gradients, momentum, a schedule for each step and an average of the weights."""
    model = nn.Sequential(nn.Linear(6, width), nn.Tanh(), nn.Linear(width, 3))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, nesterov=True)
    average = torch.optim.swa_utils.AveragedModel(model)
    return Workload(
        model=model,
        train_data=TensorDataset(torch.randn(40, 6), torch.randint(0, 3, (40,))),
        eval_data=TensorDataset(torch.randn(10, 6), torch.randint(0, 3, (10,))),
        optimizer=optimizer,
        loss=functional.cross_entropy,
        clip_norm=1.0,
        scheduler=torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=0.1, total_steps=500),
        after_update=average.update_parameters,
        batch_size=8,
    )


def gan(noise: int = 4) -> Workload:
    """Two networks that are updated one after the other, and losses that are noted."""
    generator = nn.Sequential(nn.Linear(noise, 8), nn.ReLU(), nn.Linear(8, 6))
    critic = nn.Sequential(nn.Linear(6, 8), nn.LeakyReLU(0.2), nn.Linear(8, 1))
    of_generator = torch.optim.Adam(generator.parameters(), lr=2e-4, betas=(0.5, 0.999))
    of_critic = torch.optim.Adam(critic.parameters(), lr=2e-4, betas=(0.5, 0.999))
    judge = nn.BCEWithLogitsLoss()
    notes = {"critic": 0.0, "generator": 0.0}

    def train_step(batch: list[torch.Tensor]) -> None:
        (real,) = batch
        ones, zeros = real.new_ones(len(real), 1), real.new_zeros(len(real), 1)
        made = generator(torch.randn(len(real), noise, device=real.device))
        of_critic.zero_grad()
        loss = judge(critic(real), ones) + judge(critic(made.detach()), zeros)
        loss.backward()
        of_critic.step()
        notes["critic"] += loss.item()
        of_generator.zero_grad()
        loss = judge(critic(made), ones)
        loss.backward()
        of_generator.step()
        notes["generator"] += loss.item()

    return Workload(
        model=nn.ModuleList([generator, critic]),
        train_data=TensorDataset(torch.randn(40, 6)),
        optimizer=[of_generator, of_critic],
        train_step=train_step,
        batch_size=8,
    )


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(20, 8)
        self.lstm = nn.LSTM(8, 8, batch_first=True)
        self.head = nn.Linear(8, 20)

    def forward(self, tokens, hidden):
        out, hidden = self.lstm(self.embed(tokens), hidden)
        return self.head(out), hidden


def lstm_with_state() -> Workload:
    """The hidden state of one batch begins the next one, without its history."""
    model, kept = Recurrent(), {"hidden": None}

    def forward(model, batch):
        tokens, targets = batch
        hidden = kept["hidden"]
        if hidden is not None and hidden[0].shape[1] != len(tokens):
            hidden = None
        out, hidden = model(tokens, hidden)
        kept["hidden"] = tuple(h.detach() for h in hidden)
        return functional.cross_entropy(out.flatten(0, 1), targets.flatten())

    text = torch.randint(0, 20, (24, 11))
    return Workload(
        model=model,
        train_data=TensorDataset(text[:, :-1], text[:, 1:]),
        optimizer=torch.optim.SGD(model.parameters(), lr=1.0),
        forward=forward,
        shuffle=False,
        clip_norm=0.25,
        batch_size=4,
    )


class Sentences(Dataset):
    """Token lists of many lengths."""

    def __len__(self):
        return 32

    def __getitem__(self, index):
        return torch.arange(1, 5 + index % 6)


def masked(sentences):
    """Pads, and hides a third of the tokens, as a collator for language modelling does."""
    tokens = nn.utils.rnn.pad_sequence(sentences, batch_first=True)
    hidden = (torch.rand(tokens.shape) < 0.3) & (tokens > 0)
    labels = torch.where(hidden, tokens, torch.full_like(tokens, -100))
    return {
        "input_ids": torch.where(hidden, torch.full_like(tokens, 19), tokens),
        "labels": labels,
    }


def masked_lm() -> Workload:
    """Padded batches that a collator makes; the loss is in a dict."""
    layer = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True)
    model = nn.Sequential(nn.Embedding(20, 8), layer, nn.Linear(8, 20))

    def forward(model, batch):
        logits = model(batch["input_ids"])
        return functional.cross_entropy(logits.flatten(0, 1), batch["labels"].flatten())

    return Workload(
        model=model,
        train_data=Sentences(),
        eval_data=Sentences(),
        optimizer=torch.optim.AdamW(model.parameters()),
        forward=forward,
        collate=masked,
        accumulation=2,
        batch_size=4,
    )


def sparse_embeddings() -> Workload:
    """Sparse gradients have an optimizer of their own; both are stepped together."""
    model = nn.ModuleDict({"words": nn.EmbeddingBag(50, 8, sparse=True), "head": nn.Linear(8, 3)})

    def forward(model, batch):
        return functional.cross_entropy(model["head"](model["words"](batch[0])), batch[1])

    return Workload(
        model=model,
        train_data=TensorDataset(torch.randint(0, 50, (40, 5)), torch.randint(0, 3, (40,))),
        optimizer=[
            torch.optim.SparseAdam(model["words"].parameters()),
            torch.optim.Adam(model["head"].parameters()),
        ],
        forward=forward,
        batch_size=8,
    )


class TwoViews(Dataset):
    def __len__(self):
        return 40

    def __getitem__(self, index):
        image = torch.ones(3, 8, 8)
        return (image + torch.randn(3, 8, 8), image + torch.randn(3, 8, 8)), index


def contrastive() -> Workload:
    """Each sample is two views; a batch is compared with itself, and accumulates nothing."""
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.LazyLinear(8))
    model(torch.zeros(1, 3, 8, 8))

    def forward(model, batch):
        views, _ = batch
        features = functional.normalize(model(torch.cat(views)), dim=1)
        likeness = features @ features.T / 0.1
        own = torch.eye(len(features), dtype=torch.bool, device=features.device)
        likeness = likeness.masked_fill(own, float("-inf"))
        partner = torch.arange(len(features), device=features.device).roll(len(views[0]))
        return functional.cross_entropy(likeness, partner)

    return Workload(
        model=model,
        train_data=TwoViews(),
        optimizer=torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9),
        forward=forward,
        drop_last=True,
        batch_size=8,
    )


class UNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.down = nn.Conv2d(1, 4, 3, padding=1)
        self.bottom = nn.Conv2d(4, 8, 3, padding=1)
        self.up = nn.ConvTranspose2d(8, 4, 2, stride=2)
        self.head = nn.Conv2d(8, 1, 1)

    def forward(self, image):
        skipped = functional.relu(self.down(image))
        below = functional.relu(self.bottom(functional.max_pool2d(skipped, 2)))
        return self.head(torch.cat([skipped, self.up(below)], 1))


class Masks(Dataset):
    def __len__(self):
        return 20

    def __getitem__(self, index):
        return {"image": torch.randn(1, 8, 8), "mask": torch.rand(1, 8, 8) > 0.5}


def unet() -> Workload:
    """Images and masks in a dict; a loss of two parts."""
    model = UNet()

    def forward(model, batch):
        logits, mask = model(batch["image"]), batch["mask"].float()
        share = torch.sigmoid(logits)
        dice = 1 - 2 * (share * mask).sum() / (share.sum() + mask.sum() + 1)
        return functional.binary_cross_entropy_with_logits(logits, mask) + dice

    return Workload(
        model=model,
        train_data=Masks(),
        eval_data=Masks(),
        optimizer=torch.optim.RMSprop(model.parameters(), momentum=0.9),
        forward=forward,
        clip_value=0.5,
        precision="bf16",
        batch_size=4,
    )


def lbfgs() -> Workload:
    """An optimizer that evaluates the loss as often as it likes, on all the data."""
    model = nn.Sequential(nn.Linear(2, 8), nn.Tanh(), nn.Linear(8, 1))
    return Workload(
        model=model,
        train_data=TensorDataset(torch.randn(16, 2), torch.randn(16, 1)),
        optimizer=torch.optim.LBFGS(model.parameters(), max_iter=4),
        loss=functional.mse_loss,
        batch_size=16,
    )


class Graph(Dataset):
    """One graph, which is all the data: its nodes, its edges, and which nodes train."""

    def __len__(self):
        return 1

    def __getitem__(self, index):
        nodes = 20
        return {
            "x": torch.randn(nodes, 6),
            "edges": torch.stack([torch.arange(nodes), torch.arange(nodes).roll(1)]),
            "y": torch.arange(nodes) % 3,
            "train_mask": torch.arange(nodes) < 12,
        }


def full_batch_gnn() -> Workload:
    """A step is an epoch; the loss is that of the nodes behind a mask."""
    model = nn.ModuleList([nn.Linear(6, 8), nn.Linear(8, 3)])

    def spread(x, edges):
        return torch.zeros_like(x).index_add(0, edges[1], x[edges[0]]) + x

    def forward(model, graph):
        hidden = functional.relu(spread(model[0](graph["x"]), graph["edges"]))
        out = spread(model[1](hidden), graph["edges"])
        return functional.cross_entropy(out[graph["train_mask"]], graph["y"][graph["train_mask"]])

    return Workload(
        model=model,
        train_data=Graph(),
        optimizer=torch.optim.Adam(model.parameters(), weight_decay=5e-4),
        forward=forward,
        batch_from_data=True,
        batch_size=1,
    )
