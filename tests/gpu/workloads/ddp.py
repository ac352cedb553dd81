# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Trains with DistributedDataParallel over --ranks ranks, and writes each loss to the last bit.

NCCL's transport is what the environment says. --shm-mib: wait until /dev/shm is that large, for NCCL's buffers.
--launcher: torchrun, whose store is libuv's, or this program, whose ranks make a store as USE_LIBUV says.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time

import steps


def start_ranks(ranks: int) -> None:
    """Start this program again, once for each rank. Returns when one has ended."""
    shared = {"WORLD_SIZE": str(ranks), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29500"}
    for rank in range(ranks):
        environment = {**os.environ, **shared, "RANK": str(rank), "LOCAL_RANK": str(rank)}
        subprocess.Popen([sys.executable, *sys.argv], env=environment)
    os.wait()


def become_torchrun(ranks: int) -> None:
    """It starts this program again, once for each rank."""
    torchrun = ["-m", "torch.distributed.run", "--nproc-per-node", str(ranks), "--master-addr", "127.0.0.1"]
    os.execv(sys.executable, [sys.executable, *torchrun, __file__, *sys.argv[1:]])


def train(options: argparse.Namespace) -> None:
    """One rank; the first one writes."""
    import torch
    import torch.distributed as dist

    rank = int(os.environ["LOCAL_RANK"])
    device = "cpu" if steps.deterministic(torch, options.cpu) == "cpu" else f"cuda:{rank}"
    if not options.cpu:
        torch.cuda.set_device(rank)
    dist.init_process_group("gloo" if options.cpu else "nccl")
    width = 128 if options.cpu else 2048
    model = torch.nn.Sequential(torch.nn.Linear(512, width), torch.nn.GELU(), torch.nn.Linear(width, 512)).to(device)
    model = torch.nn.parallel.DistributedDataParallel(model)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    log = steps.Log(options) if rank == 0 else None
    for number in range(options.steps):
        generator = torch.Generator().manual_seed(options.ranks * number + rank)
        values = torch.randn(64, 512, generator=generator).to(device)
        optimizer.zero_grad()
        loss = torch.nn.functional.mse_loss(model(values), torch.sin(3 * values))
        loss.backward()
        optimizer.step()
        total = loss.detach().clone()
        dist.all_reduce(total)
        if log:
            # The others wait for this one, most of the time within a collective.
            log.step(total.item().hex())
    if log:
        log.end()
    while True:
        time.sleep(1)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--ranks", type=int, default=2)
    parser.add_argument("--shm-mib", type=int, default=0)
    parser.add_argument("--launcher", choices=["torchrun", "own"], default="torchrun")
    options = steps.arguments(parser)
    if "LOCAL_RANK" in os.environ:
        train(options)
    while os.statvfs("/dev/shm").f_blocks * os.statvfs("/dev/shm").f_frsize < options.shm_mib << 20:
        time.sleep(0.05)
    if options.launcher == "own":
        start_ranks(options.ranks)
    else:
        become_torchrun(options.ranks)


if __name__ == "__main__":
    main()
