# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Trains a model whose layers lie on two cards of one process, and writes each loss to the last bit."""

from __future__ import annotations

import argparse

import steps
import torch


class Halves(torch.nn.Module):
    """One half of the layers on each device."""

    def __init__(self, first: str, second: str) -> None:
        super().__init__()
        self.devices = (first, second)
        self.lower = torch.nn.Sequential(torch.nn.Linear(512, 2048), torch.nn.GELU()).to(first)
        self.upper = torch.nn.Sequential(torch.nn.LayerNorm(2048), torch.nn.Linear(2048, 512)).to(second)

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        return self.upper(self.lower(values.to(self.devices[0])).to(self.devices[1]))


def main() -> None:
    options = steps.arguments(argparse.ArgumentParser())
    one = steps.deterministic(torch, options.cpu)
    first, second = ("cpu", "cpu") if one == "cpu" else ("cuda:0", "cuda:1")
    model = Halves(first, second)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    with steps.Log(options) as log:
        for number in range(options.steps):
            values = torch.randn(64, 512, generator=torch.Generator().manual_seed(number))
            optimizer.zero_grad()
            loss = torch.nn.functional.mse_loss(model(values), torch.sin(3 * values).to(second))
            loss.backward()
            optimizer.step()
            log.step(loss.item().hex())


if __name__ == "__main__":
    main()
