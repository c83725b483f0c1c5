"""A small diffusion model on digits, some of them repeated -> which it gives back, and a remedy.

Run: python examples/diffusion.py FOLDER. Takes a minute or two on two cores; draws diffusion.png.
"""

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray
from sklearn.datasets import load_digits
from torch import Tensor, nn

import gdc

NUM_IMAGES, NUM_REPEATED, NUM_COPIES = 300, 5, 60
NUM_STEPS, BATCH, NUM_PROBES = 3000, 128, 6
NUM_TIMES, NUM_GENERATED = 100, 1000
# Root mean square over the pixels, which are in [-1, 1].
SAME_IMAGE: Final = 0.2
LOOKS: Final = ((5, 0), (15, 1), (30, 2), (50, 3), (70, 4))  # time and seed of the noise


class Denoiser(nn.Module):
    """Predicts the noise in images of 64 pixels at a time of the diffusion."""

    frequencies: Tensor

    def __init__(self, width: int = 256) -> None:
        super().__init__()
        self.register_buffer("frequencies", torch.exp(torch.linspace(0, -5, 16)))
        self.layers = nn.Sequential(
            nn.Linear(64 + 32, width), nn.SiLU(), nn.Linear(width, width), nn.SiLU(),
            nn.Linear(width, width), nn.SiLU(), nn.Linear(width, 64),
        )  # fmt: skip

    def forward(self, images: Tensor, times: Tensor) -> Tensor:
        """Noise of each image, B x 64, at times B."""
        angles = times[:, None] * self.frequencies
        noise: Tensor = self.layers(torch.cat([images, angles.sin(), angles.cos()], dim=1))
        return noise


BETAS = torch.linspace(1e-3, 0.1, NUM_TIMES)
KEPT = (1 - BETAS).cumprod(dim=0)  # share of the image's variance that is left


def noised(images: Tensor, times: Tensor, noise: Tensor) -> Tensor:
    """Images at times of the diffusion."""
    kept = KEPT[times][:, None]
    return kept.sqrt() * images + (1 - kept).sqrt() * noise


def losses(model: nn.Module, rows: list[Any]) -> tuple[Tensor, Tensor]:
    """Squared error of each image, summed over looks at fixed times and noise, and of how many."""
    images = torch.stack([row["image"] for row in rows])
    total = torch.zeros(len(images))
    for time, seed in LOOKS:
        noise = torch.randn(64, generator=torch.Generator().manual_seed(seed)).expand_as(images)
        times = torch.full((len(images),), time)
        found = model(noised(images, times, noise), times)
        total += (found - noise).square().sum(dim=1)
    return total, torch.full((len(images),), 64 * len(LOOKS))


def train(images: Tensor, folder: Path | None = None) -> nn.Module:
    """Train from the same start; with a folder, record each image's loss on the way."""
    torch.manual_seed(0)
    model = Denoiser()
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3, weight_decay=0.0)
    rows = [{"id": f"image-{i}", "image": image} for i, image in enumerate(images)]
    recorder = None if folder is None else gdc.TraceRecorder(folder, rows)
    for step in range(NUM_STEPS + 1):
        if recorder is not None and step % (NUM_STEPS // NUM_PROBES) == 0:
            recorder.probe(model, list, losses=losses, step=step, epoch=step * BATCH / len(images))
        batch = images[torch.randint(len(images), (BATCH,))]
        times, noise = torch.randint(NUM_TIMES, (BATCH,)), torch.randn(BATCH, 64)
        loss = (model(noised(batch, times, noise), times) - noise).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        for group in optimizer.param_groups:
            group["lr"] = 2e-3 * (1 - step / (NUM_STEPS + 1))
    if recorder is not None:
        recorder.close()
    return model


@torch.no_grad()
def generate(model: nn.Module) -> Tensor:
    """Images from noise alone."""
    torch.manual_seed(1)
    images = torch.randn(NUM_GENERATED, 64)
    for time in reversed(range(NUM_TIMES)):
        noise = model(images, torch.full((NUM_GENERATED,), time))
        clean = ((images - (1 - KEPT[time]).sqrt() * noise) / KEPT[time].sqrt()).clamp(-1, 1)
        left = KEPT[time - 1] if time else torch.ones(())
        images = (
            left.sqrt() * BETAS[time] * clean + (1 - BETAS[time]).sqrt() * (1 - left) * images
        ) / (1 - KEPT[time])
        if time:
            images += BETAS[time].sqrt() * torch.randn_like(images)
    return images


def nearest(images: Tensor, known: Tensor) -> NDArray[Any]:
    """Distance of each image to the nearest known one, root mean square over its pixels."""
    return (torch.cdist(images, known).min(dim=1).values / 8).numpy()


def prune(folder: Path, num_dropped: int) -> NDArray[Any]:
    """Rows that lost most of their loss, by the trace alone."""
    table = gdc.map_trace(folder / "trace", folder / "map", mode="probe", scores=["total_drop"])
    return np.argsort(-table.collect()["total_drop"].to_numpy(), kind="stable")[:num_dropped]


def draw(made: Mapping[str, Tensor], repeated: Tensor, path: Path) -> None:
    """The repeated images, and below each the generated one that is nearest to it, by data set."""
    rows = {"repeated": repeated} | {
        f"from {name}": of[torch.cdist(repeated, of).argmin(dim=1)] for name, of in made.items()
    }
    figure = Figure(figsize=(len(repeated), len(rows)))
    FigureCanvasAgg(figure)
    axes = figure.subplots(len(rows), len(repeated))
    for axes_of_row, (name, images) in zip(axes, rows.items(), strict=True):
        for axis, image in zip(axes_of_row, images, strict=True):
            axis.imshow(image.reshape(8, 8), cmap="gray_r", vmin=-1, vmax=1)
            axis.set(xticks=[], yticks=[])
        axes_of_row[0].set_ylabel(name, rotation=0, ha="right", va="center")
    figure.savefig(path, dpi=100, bbox_inches="tight")


def main() -> None:
    """Train, map, prune by the map and at random, train again, compare."""
    folder = Path(sys.argv[1])
    torch.set_num_threads(1)
    digits = torch.from_numpy(load_digits().data).float() / 8 - 1
    digits = digits[torch.randperm(len(digits), generator=torch.Generator().manual_seed(0))]
    repeated, once, unseen = digits.tensor_split([NUM_REPEATED, NUM_IMAGES])
    images = torch.cat([repeated.repeat(NUM_COPIES, 1), once])
    num_copies = NUM_REPEATED * NUM_COPIES
    made = {"all": generate(train(images, folder / "trace"))}
    top = prune(folder, num_copies)
    share = (top < num_copies).mean()
    sys.stdout.write(f"of the {num_copies} rows that lost most, {share:.0%} are copies\n")
    some = np.random.default_rng(0).choice(len(images), num_copies, replace=False)
    for name, dropped in (("pruned by the map", top), ("pruned at random", some)):
        kept = np.delete(np.arange(len(images)), dropped)
        made[name] = generate(train(images[kept]))
    for name, of in made.items():
        shares = [(nearest(of, known) < SAME_IMAGE).mean() for known in (repeated, once, unseen)]
        sys.stdout.write(
            f"from {name}: {shares[0]:.1%} of the generated images are a repeated one, "
            f"{shares[1]:.1%} one of the others, {shares[2]:.1%} one never trained on\n"
        )
    draw(made, repeated, folder / "diffusion.png")


if __name__ == "__main__":
    main()
