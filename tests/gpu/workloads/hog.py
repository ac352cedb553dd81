# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Another program on the GPU: takes all free VRAM but --leave bytes as soon as the file --trigger is there.

Runs on the host. Says "waiting" and, once it has the VRAM, "holding BYTES"; it ends when it is killed.
"""

from __future__ import annotations

import argparse
import importlib
import pathlib
import time
from typing import Any

CHUNK = 256 << 20


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--leave", type=int, required=True)
    parser.add_argument("--trigger", type=pathlib.Path, required=True)
    options = parser.parse_args()
    driver: Any = importlib.import_module("cuda.bindings.driver")

    def call(function: Any, *arguments: Any) -> Any:
        status, *rest = function(*arguments)
        if int(status):
            raise SystemExit(f"{function.__name__} answered {status}")
        return rest[0] if len(rest) == 1 else rest

    call(driver.cuInit, 0)
    context = call(driver.cuDevicePrimaryCtxRetain, call(driver.cuDeviceGet, 0))
    call(driver.cuCtxSetCurrent, context)
    print("waiting", flush=True)
    while not options.trigger.exists():
        time.sleep(0.01)
    held = 0
    while call(driver.cuMemGetInfo)[0] > options.leave + CHUNK:
        call(driver.cuMemAlloc, CHUNK)
        held += CHUNK
    print(f"holding {held}", flush=True)
    while True:
        time.sleep(1)


if __name__ == "__main__":
    main()
