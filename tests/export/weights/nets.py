"""A small network and its files, for the tests of weights."""

import pathlib

import torch
from torch import nn

from export import preprocessing, zoo
from export.weights import initial

LENET5 = zoo.find("lenet5")
GRAY_8 = preprocessing.plain((1, 8, 8))


class Small(nn.Module):
    """(N, 1, 8, 8) to (N, 5), with a batch norm."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 4, 3)
        self.norm = nn.BatchNorm2d(4)
        self.fc = nn.Linear(4, 5)

    def forward(self, images_nchw: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.fc(torch.relu(self.norm(self.conv(images_nchw))).mean((2, 3)))
        return logits


def small(seed: int = 0) -> Small:
    network = Small()
    initial.fill(network, GRAY_8, seed)
    return network


def saved(content: object, path: pathlib.Path) -> str:
    torch.save(content, path)
    return str(path)
