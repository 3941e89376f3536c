"""A method and a data set small enough that a training run takes a blink; importable, so that child processes can use them too."""
import torch
import torch.nn.functional as F
from torch import nn

from pixcl_nb.losses.collapse import embedding_spread


class ToyData(torch.utils.data.Dataset):
    "64 random images of 4×4 pixels."
    extents = None
    def __init__(self): self.images = torch.randint(0, 256, (64, 3, 4, 4), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    def __len__(self): return len(self.images)
    def __getitem__(self, i): return self.images[i], torch.zeros(4, 4, dtype=torch.long)


class ToyMethod(nn.Module):
    "Two noisy copies of each image should keep their distance to a fixed target; a mean over images, so that shares of a batch add up."
    def __init__(self, noise=.1):
        super().__init__()
        with torch.random.fork_rng(): torch.manual_seed(0); self.encoder = nn.Linear(48, 8)
        self.register_buffer("steps", torch.zeros((), dtype=torch.long))
        self.head, self.settings, self.noise = None, {"noise": noise}, noise

    def loss(self, images, masks=None, generator=None, extents=None):
        pixels = images.flatten(1).float() / 255
        dropped = F.dropout(pixels, .1) if self.noise else pixels                    # torch's own generator
        noisy = dropped + self.noise * torch.randn(pixels.shape, generator=generator)    # the step's generator
        rows = self.encoder(noisy)
        return {"loss": (rows - pixels[:, :8]).square().mean(), "spread": embedding_spread(rows)}

    def after_step(self): self.steps += 1


def few_to_measure(demo_data, count=12):
    "`demo_data` with few images to measure on: asked is whether a score is made, and made again, not what it is."
    def few(config):
        train, labelled, test = demo_data(config)
        return train, labelled, test.subset(range(count)).cache()
    return few
