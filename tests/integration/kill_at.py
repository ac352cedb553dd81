# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Runs one module and kills it, by its own hand, at a function: ``kill_at.py MODULE FUNCTION WHEN [SIGNAL]``.

MODULE is a module's name; FUNCTION is ``<package.file below module_utils>:<function or Class.method>``; WHEN is
``enter``, ``leave`` (after it has taken effect), or milliseconds after it was entered; SIGNAL is SIGKILL if not given.
Options come on standard input, as for the module.
"""

from __future__ import annotations

import functools
import importlib
import os
import runpy
import signal
import sys
import threading
from typing import Any

_PACKAGE = "ansible_collections.gpuops.restore.plugins"


def arm(path: str, when: str, number: signal.Signals) -> None:
    """Replace the function by one that kills this process."""

    def die() -> None:
        os.kill(os.getpid(), number)

    file, _colon, names = path.partition(":")
    owner: Any = importlib.import_module(f"{_PACKAGE}.module_utils.{file}")
    *outer, name = names.split(".")
    for part in outer:
        owner = getattr(owner, part)
    original = getattr(owner, name)

    @functools.wraps(original)
    def deadly(*arguments: Any, **options: Any) -> Any:
        if when == "enter":
            die()
        if when != "leave":
            threading.Timer(int(when) / 1000, die).start()
        found = original(*arguments, **options)
        if when == "leave":
            die()
        return found

    setattr(owner, name, deadly)


if __name__ == "__main__":
    arm(sys.argv[2], sys.argv[3], signal.Signals[sys.argv[4]] if len(sys.argv) > 4 else signal.SIGKILL)
    module = sys.argv[1]
    # Ansible would take a word on the command line for a file with options.
    del sys.argv[1:]
    runpy.run_module(f"{_PACKAGE}.modules.{module}", run_name="__main__")
