# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Inference through torch.compile with CUDA graphs (reduce-overhead); its workers are forks of a CUDA process."""

from __future__ import annotations

import argparse
import hashlib

import steps
import torch


def main() -> None:
    options = steps.arguments(argparse.ArgumentParser())
    device = steps.deterministic(torch, options.cpu)
    model = torch.nn.Sequential(
        torch.nn.Linear(512, 2048), torch.nn.GELU(), torch.nn.LayerNorm(2048), torch.nn.Linear(2048, 512)
    )
    compiled = torch.compile(model.to(device).eval(), mode="reduce-overhead")
    with steps.Log(options) as log, torch.inference_mode():
        values = torch.randn(64, 512, device=device)
        for _number in range(options.steps):
            # What a graph gives lies in its own memory, and the next replay writes there.
            values = torch.tanh(compiled(values)).clone()
            log.step(hashlib.sha256(values.cpu().numpy().tobytes()).hexdigest())


if __name__ == "__main__":
    main()
