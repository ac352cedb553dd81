# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import json
from typing import Any

import pytest

from ansible_collections.gpuops.restore.plugins.module_utils._core import strict_json
from ansible_collections.gpuops.restore.plugins.module_utils._core.strict_json import MAX_DEPTH, StrictJsonError

pytestmark = pytest.mark.every_python


def nested(depth: int) -> bytes:
    """Lists and objects by turns."""
    opening = [b"[" if level % 2 else b'{"a":' for level in range(depth)]
    return b"".join(opening) + b"1" + b"".join(b"]" if level % 2 else b"}" for level in reversed(range(depth)))


@pytest.mark.parametrize(
    "document",
    [None, 1, -1.5, 1e308, "ü \U0001f600", [], {}, {"a": [{"a": {"a": [1, 2**64, -(2**63)]}}, {"a": "a"}]}],
)
def test_what_json_can_say(document: Any) -> None:
    assert strict_json.parse(json.dumps(document)) == document
    assert strict_json.parse(json.dumps(document).encode()) == document


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "line 1"),
        (b'{"a": 1,}', "line 1"),
        (b'{"a": 1, "b": 2, "a": 1}', "the key 'a' twice"),
        (b'[{"x": {"": 1, "\\u0061": 2, "a": 3}}]', "the key 'a' twice"),
        (b'{"a": NaN}', "NaN"),
        (b"[Infinity]", "Infinity"),
        (b"-Infinity", "-Infinity"),
        (b"1e999", "1e999"),
        (b"-1e999", "-1e999"),
        (b"9" * 65, "64 digits"),
        (nested(MAX_DEPTH + 1), "64 deep"),
        (nested(100_000), "64 deep"),
        (b"[" * 100_000, "64 deep"),
        (b"\xff", "utf-8"),
        ('{"a": 1}'.encode("utf-16"), "utf-8"),
        (b'\xef\xbb\xbf{"a": 1}', "BOM"),
    ],
    ids=lambda value: str(value)[:30],
)
def test_what_is_refused(data: bytes, words: str) -> None:
    with pytest.raises(StrictJsonError, match=words):
        strict_json.parse(data)


def test_bounds_are_what_is_still_taken() -> None:
    assert strict_json.parse(nested(MAX_DEPTH))
    assert strict_json.parse(b"9" * 64) == int("9" * 64)
    assert strict_json.parse(b"[1]", 3) == [1]
    with pytest.raises(StrictJsonError, match="more than 2 bytes"):
        strict_json.parse(b"[1]", 2)


def test_one_key_twice_among_many_is_found_at_once() -> None:
    """Whoever compared each key with those before it would be at it for minutes."""
    pairs = ",".join(f'"{number}":0' for number in [*range(100_000), 99_999])
    with pytest.raises(StrictJsonError, match="'99999' twice"):
        strict_json.parse("{" + pairs + "}")


@pytest.mark.parametrize("data", [b"[]", b"null", b'"a"', b"1"])
def test_an_object_is_an_object(data: bytes) -> None:
    with pytest.raises(StrictJsonError, match="not an object"):
        strict_json.parse_object(data)
    assert strict_json.parse_object(b'{"a": 1}') == {"a": 1}
