# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Trains a small model with a fixed seed and writes every loss to the last bit, so that two runs can be compared.

``work/losses.txt``: "step loss" with the loss as hexadecimal floating point, and at the end "parameters sha256".
``work/beat.log`` grows as long as the process lives.
--pause: seconds between steps, so that there is time to suspend it; no result depends on it. --cpu: for a rehearsal.
"""

from __future__ import annotations

import argparse
import hashlib
import pathlib
import time

import torch


def batch(generator: torch.Generator, device: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Noise, and a function of it that the model has to find."""
    values = torch.randn(256, 512, generator=generator, device=device)
    return values, torch.sin(3 * values).roll(1, dims=1) * values


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--steps", type=int, required=True)
    parser.add_argument("--pause", type=float, default=0.0)
    parser.add_argument("--work", type=pathlib.Path, required=True)
    parser.add_argument("--cpu", action="store_true")
    options = parser.parse_args()
    device = "cpu" if options.cpu else "cuda"

    torch.use_deterministic_algorithms(True)
    torch.backends.cudnn.benchmark = False
    torch.manual_seed(7)
    generator = torch.Generator(device=device).manual_seed(11)
    width = 256 if options.cpu else 2048
    model = torch.nn.Sequential(
        torch.nn.Linear(512, width),
        torch.nn.GELU(),
        torch.nn.Dropout(0.1),
        torch.nn.Linear(width, width),
        torch.nn.GELU(),
        torch.nn.Linear(width, 512),
    ).to(device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)

    with open(options.work / "losses.txt", "a", encoding="ascii") as log, open(options.work / "beat.log", "a") as beat:
        for step in range(1, options.steps + 1):
            values, wanted = batch(generator, device)
            optimizer.zero_grad()
            loss = torch.nn.functional.mse_loss(model(values), wanted)
            loss.backward()
            optimizer.step()
            log.write(f"{step} {loss.item().hex()}\n")
            log.flush()
            beat.write("beat\n")
            beat.flush()
            time.sleep(options.pause)
        found = hashlib.sha256()
        for parameter in model.parameters():
            found.update(parameter.detach().cpu().numpy().tobytes())
        log.write(f"parameters {found.hexdigest()}\n")
        log.flush()
        # The container stays, so that the second run of the playbook finds it as it was.
        while True:
            beat.write("beat\n")
            beat.flush()
            time.sleep(0.5)


if __name__ == "__main__":
    main()
