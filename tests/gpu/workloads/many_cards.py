# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Trains a model whose layers lie on several cards of one process, and writes each loss to the last bit."""

from __future__ import annotations

import argparse

import steps
import torch


class Spread(torch.nn.Module):
    """A block of layers on each device, one after the other."""

    def __init__(self, devices: list[str], width: int) -> None:
        super().__init__()
        self.devices = devices
        self.first = torch.nn.Sequential(torch.nn.Linear(512, width), torch.nn.GELU()).to(devices[0])
        self.middle = torch.nn.ModuleList(
            torch.nn.Sequential(torch.nn.LayerNorm(width), torch.nn.Linear(width, width), torch.nn.GELU()).to(device)
            for device in devices[1:-1]
        )
        self.last = torch.nn.Sequential(torch.nn.LayerNorm(width), torch.nn.Linear(width, 512)).to(devices[-1])

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        for device, block in zip(self.devices, (self.first, *self.middle, self.last)):
            values = block(values.to(device))
        return values


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--cards", type=int, default=2)
    options = steps.arguments(parser)
    one = steps.deterministic(torch, options.cpu)
    devices = ["cpu" if one == "cpu" else f"cuda:{number}" for number in range(options.cards)]
    model = Spread(devices, 128 if options.cpu else 2048)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    with steps.Log(options) as log:
        for number in range(options.steps):
            values = torch.randn(64, 512, generator=torch.Generator().manual_seed(number))
            optimizer.zero_grad()
            loss = torch.nn.functional.mse_loss(model(values), torch.sin(3 * values).to(devices[-1]))
            loss.backward()
            optimizer.step()
            log.step(loss.item().hex())


if __name__ == "__main__":
    main()
