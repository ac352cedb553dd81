# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Text generation by Transformers with a static cache, and the replay of a CUDA graph; weights are made from a seed.

Static caches are compiled, so this has compile workers: forks of a helper that has CUDA state and no memory.
"""

from __future__ import annotations

import argparse

import steps
import torch
import transformers


def main() -> None:
    options = steps.arguments(argparse.ArgumentParser())
    device = steps.deterministic(torch, options.cpu)
    configuration = transformers.LlamaConfig(
        vocab_size=4096,
        hidden_size=512,
        intermediate_size=1024,
        num_hidden_layers=4,
        num_attention_heads=8,
        num_key_value_heads=8,
        max_position_embeddings=1024,
    )
    model = transformers.LlamaForCausalLM(configuration).to(device=device, dtype=torch.bfloat16).eval()
    tokens = torch.arange(1, 17, device=device).unsqueeze(0)
    graph = Graph(device) if not options.cpu else None
    with steps.Log(options) as log, torch.inference_mode():
        for number in range(options.steps):
            prompt = (tokens + number) % 4096
            found = model.generate(
                prompt,
                attention_mask=torch.ones_like(prompt),
                max_new_tokens=16,
                do_sample=False,
                pad_token_id=0,
                cache_implementation="static",
            )
            log.step(" ".join(map(str, found[0, 16:].tolist())) + (f" {graph.replay(number)}" if graph else ""))


class Graph:
    """A captured CUDA graph, and what it computes of a number."""

    def __init__(self, device: str) -> None:
        self._input = torch.zeros(1024, device=device)
        self._weight = torch.randn(1024, 1024, device=device)
        stream = torch.cuda.Stream()
        with torch.cuda.stream(stream):
            self._compute()
        torch.cuda.current_stream().wait_stream(stream)
        self._graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self._graph):
            self._output = self._compute()

    def _compute(self) -> torch.Tensor:
        return torch.tanh(self._weight @ self._input).sum()

    def replay(self, number: int) -> str:
        """The result as hexadecimal floating point."""
        self._input.fill_(number / 100)
        self._graph.replay()
        return str(float(self._output.item()).hex())


if __name__ == "__main__":
    main()
