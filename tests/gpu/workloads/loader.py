# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Trains with a DataLoader of several worker processes and pinned memory, and writes every loss to the last bit.

--start-method: how PyTorch starts the workers; ``fork`` is its default on Linux. CUDA is in use before the first worker
is forked, as in most trainings.
"""

from __future__ import annotations

import argparse

import steps
import torch
from torch.utils.data import DataLoader, Dataset


class Noise(Dataset):  # type: ignore[type-arg]
    """Samples that depend on their number alone."""

    def __init__(self, length: int) -> None:
        self.length = length

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        generator = torch.Generator().manual_seed(index)
        values = torch.randn(256, generator=generator)
        return values, torch.sin(3 * values)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--start-method", choices=["fork", "spawn", "forkserver"], required=True)
    options = steps.arguments(parser)
    device = steps.deterministic(torch, options.cpu)
    model = torch.nn.Sequential(torch.nn.Linear(256, 1024), torch.nn.GELU(), torch.nn.Linear(1024, 256)).to(device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    # The context exists before a worker does.
    torch.zeros(1, device=device).add_(1).cpu()
    batch = 32
    loader = DataLoader(
        Noise(batch * options.steps),
        batch_size=batch,
        num_workers=4,
        pin_memory=not options.cpu,
        persistent_workers=True,
        multiprocessing_context=options.start_method,
    )
    with steps.Log(options) as log:
        for values, wanted in loader:
            optimizer.zero_grad()
            found = model(values.to(device, non_blocking=True))
            loss = torch.nn.functional.mse_loss(found, wanted.to(device, non_blocking=True))
            loss.backward()
            optimizer.step()
            log.step(loss.item().hex())


if __name__ == "__main__":
    main()
