# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Cases that are made up: what is read is damaged in all ways, and read or refused in a sentence.

The same few hundred cases each time. ``GPUOPS_FUZZ_CASES=20000`` runs so many for each reader instead, from a random
seed that is printed; with ``GPUOPS_FUZZ_SEED`` set to it the same cases come in the same order.
"""

from __future__ import annotations

import copy
import json
import os
import random
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.gpuops.restore.plugins.module_utils._core.errors import RestoreError

#: One case: it reads what it makes up, below the path if it needs a place.
Reader = Callable[[random.Random, Path], None]
#: Cases for each reader, with the fixed seed.
CASES, SEED = 300, 20261128
#: Calls and returns of functions in one case; the largest of 18000 cases had 170000. What has more does what the size
#: of its input does not ask for.
MAX_EVENTS = 2_000_000
NAMES = [
    "../x",
    "/x",
    "a/../../x",
    "./a",
    "a//b",
    "a/",
    "",
    ".",
    "x" * 300,
    "d/" * 40 + "x",
    "\x07",
    "caf\u00e9",
    "a\nb",
]
VALUES: list[Any] = [
    *(
        None,
        True,
        0,
        -1,
        1.5,
        1 << 40,
        1 << 49,
        1 << 60,
        1 << 70,
        10**400,
        "",
        "x",
        "../../etc/passwd",
        "sha256:",
        [],
        {},
    ),
    *("sha256:" + 64 * "0", "sha256:" + 64 * "G", "/etc/shadow", ["x"] * 100, {"a": {"b": []}}, "\ud800", "\x00"),
]


def damaged(rng: random.Random, data: bytes) -> bytes:
    """Some bytes changed, cut out, doubled, or the end missing."""
    found = bytearray(data)
    for _time in range(rng.choice((1, 1, 2, 8))):
        if not found:
            break
        at, length = rng.randrange(len(found)), rng.choice((1, 2, 8, 100, 512, 513))
        choice = rng.randrange(6)
        if choice == 0:
            found[at] ^= 1 << rng.randrange(8)
        elif choice == 1:
            found[at : at + length] = rng.randbytes(length)
        elif choice == 2:
            del found[at : at + length]
        elif choice == 3:
            found[at:at] = found[at : at + length]
        elif choice == 4:
            del found[at:]
        else:
            found[at : at + length] = bytes(length)
    return bytes(found)


def changed(rng: random.Random, document: Any) -> Any:
    """The same document with one of its values replaced, removed or doubled, or another one altogether."""
    if rng.random() < 0.1:
        return rng.choice(VALUES)
    made = copy.deepcopy(document)
    holder, where = made, None
    while isinstance(holder, (dict, list)) and holder:
        where = rng.choice(list(holder) if isinstance(holder, dict) else range(len(holder)))
        if not isinstance(holder[where], (dict, list)) or rng.random() < 0.4:
            break
        holder = holder[where]
    if where is None or not isinstance(holder, (dict, list)) or not holder:
        return rng.choice(VALUES)
    if rng.random() < 0.2:
        del holder[where]
    elif isinstance(holder, list) and rng.random() < 0.3:
        holder.extend([holder[where]] * rng.choice((1, 50)))
    else:
        holder[where] = rng.choice(VALUES)
    return made


def written(rng: random.Random, document: Any) -> bytes:
    data = json.dumps(document).encode()
    return b"[" * 20000 if rng.random() < 0.01 else data


@contextmanager
def bounded() -> Iterator[None]:
    """Ends what calls functions without end."""
    left = MAX_EVENTS

    def count(_frame: Any, _event: str, _arg: Any) -> None:
        nonlocal left
        left -= 1
        if left < 0:
            sys.setprofile(None)
            raise AssertionError(f"more than {MAX_EVENTS} calls and returns")

    before = sys.getprofile()
    sys.setprofile(count)
    try:
        yield
    finally:
        sys.setprofile(before)


def refused(reader: Reader, place: Path, capsys: pytest.CaptureFixture[str]) -> int:
    """Run all cases of a reader; how many of them were refused. Anything but a refusal in a sentence fails the test."""
    count, seed = CASES, SEED
    if "GPUOPS_FUZZ_CASES" in os.environ:
        count = int(os.environ["GPUOPS_FUZZ_CASES"])
        seed = int(os.environ.get("GPUOPS_FUZZ_SEED") or random.SystemRandom().randrange(1 << 32))
        with capsys.disabled():
            print(f"\n{reader.__name__}: {count} cases, GPUOPS_FUZZ_SEED={seed}")
    found = 0
    for number in range(count):
        try:
            with bounded():
                # Each case has a seed of its own, so that it can be had again alone.
                reader(random.Random(f"{seed}/{number}"), place)
        except RestoreError as error:
            found += 1
            assert error.code and error.message.endswith(".") and error.remedy.endswith("."), repr(error)
        except BaseException as error:
            raise AssertionError(f"case {number} of {reader.__name__}, GPUOPS_FUZZ_SEED={seed}") from error
    return found
