"""A step of one's own: two networks, two optimizers, two updates per batch.

    epochcast probe examples/gan.py:workload --batch-sizes 32,64 --set width=32,64

``train_step(batch)`` does the whole iteration: forward, backward and both updates. Precision and
accumulation would be its own business, too. Given both optimizers, a dry run and a probe count
its updates as they do those of any other step. The architecture follows DCGAN (Radford et al. 2015,
arXiv:1511.06434) on 32×32 images.
"""

import torch
from torch import Tensor, nn

from epochcast import Workload
from epochcast.datasets.catalogue import find
from epochcast.datasets.samples import SyntheticImages

NOISE = 64  # features of the generator's input


def signed(image: Tensor) -> Tensor:
    """Bytes as floats in [-1, 1], the range of the generator's tanh."""
    return image / 127.5 - 1


def build_generator(width: int) -> nn.Module:
    return nn.Sequential(
        nn.ConvTranspose2d(NOISE, 4 * width, 4),
        nn.BatchNorm2d(4 * width),
        nn.ReLU(),
        nn.ConvTranspose2d(4 * width, 2 * width, 4, stride=2, padding=1),
        nn.BatchNorm2d(2 * width),
        nn.ReLU(),
        nn.ConvTranspose2d(2 * width, width, 4, stride=2, padding=1),
        nn.BatchNorm2d(width),
        nn.ReLU(),
        nn.ConvTranspose2d(width, 3, 4, stride=2, padding=1),
        nn.Tanh(),
    )


def build_critic(width: int) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, width, 4, stride=2, padding=1),
        nn.LeakyReLU(0.2),
        nn.Conv2d(width, 2 * width, 4, stride=2, padding=1),
        nn.LeakyReLU(0.2),
        nn.Conv2d(2 * width, 4 * width, 4, stride=2, padding=1),
        nn.LeakyReLU(0.2),
        nn.Conv2d(4 * width, 1, 4),
        nn.Flatten(0),
    )


def judge(scores: Tensor, real: bool) -> Tensor:
    """How far the critic's scores are from calling all images real, or all of them generated."""
    wanted = torch.full_like(scores, float(real))
    return nn.functional.binary_cross_entropy_with_logits(scores, wanted)


def workload(width: int = 32) -> Workload:
    generator, critic = build_generator(width), build_critic(width)
    model = nn.ModuleDict({"generator": generator, "critic": critic})  # moved and saved as one
    of_generator = torch.optim.Adam(generator.parameters(), lr=2e-4, betas=(0.5, 0.999))
    of_critic = torch.optim.Adam(critic.parameters(), lr=2e-4, betas=(0.5, 0.999))

    def train_step(batch: tuple[Tensor, Tensor]) -> None:
        images, _ = batch
        fakes = generator(torch.randn(len(images), NOISE, 1, 1, device=images.device))
        critic_loss = judge(critic(images), real=True) + judge(critic(fakes.detach()), real=False)
        of_critic.zero_grad()
        critic_loss.backward()
        of_critic.step()
        generator_loss = judge(critic(fakes), real=True)
        of_generator.zero_grad()
        generator_loss.backward()
        of_generator.step()

    return Workload(
        model=model,
        train_data=SyntheticImages(find("CIFAR-10"), transform=signed),
        optimizer=[of_generator, of_critic],
        train_step=train_step,
        batch_size=64,
    )
