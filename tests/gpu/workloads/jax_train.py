# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Trains a small model with JAX, which takes a part of the card's memory before it needs it.

How much, its environment says: XLA_PYTHON_CLIENT_MEM_FRACTION.
"""

from __future__ import annotations

import argparse
from typing import Any

import jax
import jax.numpy as jnp
import steps


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
