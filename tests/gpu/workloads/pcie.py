# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Copies between pinned host memory and each card, alone and all at once: what PCIe and host memory give, as JSON.

Runs on the host. {"to host": {"alone": [GB/s of each card], "together": GB/s of all}, "to cards": ...}
"""

from __future__ import annotations

import argparse
import importlib
import json
import time
from typing import Any

SIZE = 1 << 30
ROUNDS = 6


class Card:
    """One card, with memory on it, pinned memory of the host, and a stream, so that no copy waits for another card."""

    def __init__(self, driver: Any, ordinal: int) -> None:
        self._driver = driver
        self._context = self._call(driver.cuDevicePrimaryCtxRetain, self._call(driver.cuDeviceGet, ordinal))
        self._enter()
        self._host = self._call(driver.cuMemHostAlloc, SIZE, 1)
        self._device = self._call(driver.cuMemAlloc, SIZE)
        self._stream = self._call(driver.cuStreamCreate, 0)

    def copy(self, to_host: bool) -> None:
        """Begin it."""
        self._enter()
        if to_host:
            self._call(self._driver.cuMemcpyDtoHAsync, self._host, self._device, SIZE, self._stream)
        else:
            self._call(self._driver.cuMemcpyHtoDAsync, self._device, self._host, SIZE, self._stream)

    def wait(self) -> None:
        """Until all that was begun is done."""
        self._enter()
        self._call(self._driver.cuStreamSynchronize, self._stream)

    def _enter(self) -> None:
        self._call(self._driver.cuCtxSetCurrent, self._context)

    def _call(self, function: Any, *arguments: Any) -> Any:
        status, *rest = function(*arguments)
        if int(status):
            raise SystemExit(f"{function.__name__} answered {status}")
        return rest[0] if rest else None


def rate(cards: list[Card], to_host: bool) -> float:
    """GB/s of all these cards at once, after a first copy that is not counted."""
    begun = 0.0
    for rounds in (1, ROUNDS):
        begun = time.monotonic()
        for _ in range(rounds):
            for card in cards:
                card.copy(to_host)
        for card in cards:
            card.wait()
    return round(len(cards) * ROUNDS * SIZE / (time.monotonic() - begun) / 1e9, 2)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--cards", type=int, required=True)
    options = parser.parse_args()
    driver: Any = importlib.import_module("cuda.bindings.driver")
    (error,) = driver.cuInit(0)
    if int(error):
        raise SystemExit(f"cuInit answered {error}")
    cards = [Card(driver, ordinal) for ordinal in range(options.cards)]
    found = {}
    for name, to_host in (("to host", True), ("to cards", False)):
        found[name] = {"alone": [rate([card], to_host) for card in cards], "together": rate(cards, to_host)}
    print(json.dumps(found))


if __name__ == "__main__":
    main()
