# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A module that kills itself at a function: what the child of warm.py calls first, so that no test has to hit a moment.

The function is ``<package.file below module_utils>:<function or Class.method>``.
"""

from __future__ import annotations

import functools
import importlib
import itertools
import os
import sys
import threading
from typing import Any, Callable

_PACKAGE = "ansible_collections.gpuops.restore.plugins"


def arm(path: str, when: str, number: int) -> None:
    """Replace the function by one that sends this process the signal ``number``.

    ``when``: ``enter``, ``leave`` (after it has taken effect), ``#N`` (when it is entered for the Nth time), or
    milliseconds after it was entered.
    """

    def die() -> None:
        os.kill(os.getpid(), number)

    def deadly_form(original: Any) -> Any:
        calls = itertools.count(1)

        @functools.wraps(original)
        def deadly(*arguments: Any, **options: Any) -> Any:
            if when == "enter" or when == f"#{next(calls)}":
                die()
            if when.isdigit():
                threading.Timer(int(when) / 1000, die).start()
            found = original(*arguments, **options)
            if when == "leave":
                die()
            return found

        return deadly

    replace(path, deadly_form)


def replace(path: str, form: Callable[[Any], Any]) -> None:
    """Put what ``form`` makes of the function in its place, by whatever name it is known."""
    file, _colon, names = path.partition(":")
    owner: Any = importlib.import_module(f"{_PACKAGE}.module_utils.{file}")
    *outer, name = names.split(".")
    for part in outer:
        owner = getattr(owner, part)
    original = getattr(owner, name)
    other = form(original)
    setattr(owner, name, other)
    # Files that were imported before know it by a name of their own.
    for module in [found for key, found in sys.modules.items() if key.startswith(_PACKAGE)]:
        for key in [key for key, value in vars(module).items() if value is original]:
            setattr(module, key, other)
