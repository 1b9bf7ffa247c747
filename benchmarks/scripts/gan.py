"""A generative adversarial network: a batch is two optimizer steps and three backward passes."""

import argparse

import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

parser = argparse.ArgumentParser()
parser.add_argument("--n_epochs", type=int, default=4)
parser.add_argument("--batch_size", type=int, default=64)
parser.add_argument("--hidden", type=int, default=256)
parser.add_argument("--latent_dim", type=int, default=64)
parser.add_argument("--samples", type=int, default=12000)
opt = parser.parse_args()

torch.manual_seed(0)
pixels = 28 * 28
generator = nn.Sequential(
    nn.Linear(opt.latent_dim, opt.hidden),
    nn.BatchNorm1d(opt.hidden),
    nn.LeakyReLU(0.2),
    nn.Linear(opt.hidden, pixels),
    nn.Tanh(),
)
discriminator = nn.Sequential(
    nn.Linear(pixels, opt.hidden), nn.LeakyReLU(0.2), nn.Linear(opt.hidden, 1)
)
adversarial_loss = nn.BCEWithLogitsLoss()
optimizer_G = torch.optim.Adam(generator.parameters(), lr=2e-4, betas=(0.5, 0.999))
optimizer_D = torch.optim.Adam(discriminator.parameters(), lr=2e-4, betas=(0.5, 0.999))
data = TensorDataset(torch.rand(opt.samples, pixels) * 2 - 1)
dataloader = DataLoader(data, batch_size=opt.batch_size, shuffle=True)
fixed_noise = torch.randn(16, opt.latent_dim)

for epoch in range(opt.n_epochs):
    for (real,) in dataloader:
        valid, fake = torch.ones(len(real), 1), torch.zeros(len(real), 1)
        optimizer_D.zero_grad()
        real_loss = adversarial_loss(discriminator(real), valid)
        real_loss.backward()
        images = generator(torch.randn(len(real), opt.latent_dim))
        fake_loss = adversarial_loss(discriminator(images.detach()), fake)
        fake_loss.backward()
        optimizer_D.step()

        optimizer_G.zero_grad()
        g_loss = adversarial_loss(discriminator(images), valid)
        g_loss.backward()
        optimizer_G.step()
    d_loss = (real_loss + fake_loss).item() / 2
    print(f"[Epoch {epoch + 1}/{opt.n_epochs}] [D {d_loss:.4f}] [G {g_loss.item():.4f}]")
    with torch.no_grad():
        torch.save(generator(fixed_noise), f"samples_{epoch + 1}.pt")
    torch.save(generator.state_dict(), "generator.pth")
    torch.save(discriminator.state_dict(), "discriminator.pth")
