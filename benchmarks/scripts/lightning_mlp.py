"""An autoencoder in Lightning, with its own checkpoints and CSV logs."""

from argparse import ArgumentParser

import lightning as L
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger
from torch import nn
from torch.utils.data import DataLoader, TensorDataset, random_split


class LitAutoEncoder(L.LightningModule):
    def __init__(self, hidden_dim, lr):
        super().__init__()
        self.save_hyperparameters()
        self.encoder = nn.Sequential(
            nn.Linear(784, hidden_dim), nn.ReLU(), nn.Linear(hidden_dim, 16)
        )
        self.decoder = nn.Sequential(
            nn.Linear(16, hidden_dim), nn.ReLU(), nn.Linear(hidden_dim, 784)
        )

    def _loss(self, batch):
        (x,) = batch
        return nn.functional.mse_loss(self.decoder(self.encoder(x)), x)

    def training_step(self, batch, batch_idx):
        loss = self._loss(batch)
        self.log("train_loss", loss)
        return loss

    def validation_step(self, batch, batch_idx):
        self.log("val_loss", self._loss(batch))

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), lr=self.hparams.lr)


class Images(L.LightningDataModule):
    def __init__(self, batch_size, samples):
        super().__init__()
        self.batch_size, self.samples = batch_size, samples

    def setup(self, stage):
        whole = TensorDataset(torch.randn(self.samples, 784))
        held_out = self.samples // 6
        self.train, self.val = random_split(whole, [self.samples - held_out, held_out])

    def train_dataloader(self):
        return DataLoader(self.train, batch_size=self.batch_size, shuffle=True)

    def val_dataloader(self):
        return DataLoader(self.val, batch_size=self.batch_size)


def main():
    parser = ArgumentParser()
    parser.add_argument("--batch_size", type=int, default=64)
    parser.add_argument("--hidden_dim", type=int, default=256)
    parser.add_argument("--max_epochs", type=int, default=4)
    parser.add_argument("--learning_rate", type=float, default=1e-3)
    parser.add_argument("--samples", type=int, default=18000)
    args = parser.parse_args()

    L.seed_everything(0, verbose=False)
    trainer = L.Trainer(
        max_epochs=args.max_epochs,
        accelerator="cpu",
        logger=CSVLogger("."),
        callbacks=[ModelCheckpoint(monitor="val_loss", save_last=True)],
        enable_progress_bar=False,
    )
    trainer.fit(
        LitAutoEncoder(args.hidden_dim, args.learning_rate), Images(args.batch_size, args.samples)
    )


if __name__ == "__main__":
    main()
