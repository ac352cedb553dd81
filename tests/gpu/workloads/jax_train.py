# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Trains a small model with JAX, which takes a part of the card's memory before it needs it.

How and how much, its environment says: XLA_PYTHON_CLIENT_ALLOCATOR, XLA_PYTHON_CLIENT_MEM_FRACTION. JAX's wheels come
without libdevice, the compiler's library of functions, which XLA reads from a folder of CUDA's layout; here that is
made of what Triton brings.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import pathlib
import tempfile
from typing import Any

import steps


def provide_compiler() -> None:
    """Tell XLA where libdevice is; before JAX is imported."""
    found = importlib.util.find_spec("triton")
    folders = [pathlib.Path(place) / "backends/nvidia" for place in (found and found.submodule_search_locations) or []]
    libraries = [path for folder in folders for path in folder.glob("lib/libdevice*.bc")]
    if not libraries:
        raise SystemExit("There is no Triton with libdevice here.")
    folder = pathlib.Path(tempfile.mkdtemp())
    (folder / "nvvm/libdevice").mkdir(parents=True)
    (folder / "nvvm/libdevice/libdevice.10.bc").symlink_to(libraries[0])
    (folder / "bin").symlink_to(libraries[0].parent.parent / "bin")
    os.environ["PATH"] = f"{folder}/bin:{os.environ['PATH']}"
    # JAX prefers it to XLA_FLAGS, and to its own wheels' folder, in which there is no compiler.
    os.environ["CUDA_ROOT"] = str(folder)


provide_compiler()

import jax  # noqa: E402
import jax.numpy as jnp  # noqa: E402


def loss(weights: Any, values: Any, wanted: Any) -> Any:
    """Mean square error of two layers."""
    return jnp.mean((jnp.tanh(values @ weights[0]) @ weights[1] - wanted) ** 2)


@jax.jit
def update(weights: Any, key: Any) -> tuple[Any, Any]:
    """One step of gradient descent on noise from ``key``."""
    values = jax.random.normal(key, (256, 512))
    found, slopes = jax.value_and_grad(loss)(weights, values, jnp.sin(3 * values))
    return [weight - 0.1 * slope for weight, slope in zip(weights, slopes)], found


def main() -> None:
    options = steps.arguments(argparse.ArgumentParser())
    first, second = jax.random.split(jax.random.key(7))
    weights = [jax.random.normal(first, (512, 1024)) / 20, jax.random.normal(second, (1024, 512)) / 30]
    with steps.Log(options) as log:
        for number in range(options.steps):
            weights, found = update(weights, jax.random.key(number))
            log.step(float(found).hex())


if __name__ == "__main__":
    main()
