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
import threading
import time
from typing import Any

SIZE = 1 << 30
ROUNDS = 6


class Card:
    """One card, with memory on it and pinned memory of the host."""

    def __init__(self, driver: Any, ordinal: int) -> None:
        self._driver = driver
        self._context = self.call(driver.cuDevicePrimaryCtxRetain, self.call(driver.cuDeviceGet, ordinal))
        self.enter()
        self._host = self.call(driver.cuMemHostAlloc, SIZE, 1)
        self._device = self.call(driver.cuMemAlloc, SIZE)

    def enter(self) -> None:
        """In the thread that copies."""
        self.call(self._driver.cuCtxSetCurrent, self._context)

    def copy(self, to_host: bool) -> None:
        if to_host:
            self.call(self._driver.cuMemcpyDtoH, self._host, self._device, SIZE)
        else:
            self.call(self._driver.cuMemcpyHtoD, self._device, self._host, SIZE)

    def call(self, function: Any, *arguments: Any) -> Any:
        status, *rest = function(*arguments)
        if int(status):
            raise SystemExit(f"{function.__name__} answered {status}")
        return rest[0] if rest else None


def rate(cards: list[Card], to_host: bool) -> float:
    """GB/s of all these cards at once."""
    barrier = threading.Barrier(len(cards) + 1)

    def work(card: Card) -> None:
        card.enter()
        card.copy(to_host)
        barrier.wait()
        for _ in range(ROUNDS):
            card.copy(to_host)

    threads = [threading.Thread(target=work, args=(card,)) for card in cards]
    for thread in threads:
        thread.start()
    barrier.wait()
    begun = time.monotonic()
    for thread in threads:
        thread.join()
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
