# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""JSON that nobody vouches for: from images, archives, registries, metadata files, records of containerd.

Whatever two readers could understand differently (containerd is written in Go), or this one only at great cost, is
refused: a key twice, NaN, infinities, other encodings than UTF-8, endless numbers, depth and size.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Collection, Mapping
from typing import Any

#: Bytes that a document has at most.
MAX_BYTES = 8 << 20
#: How many objects and lists may lie within each other; an OCI spec, the deepest of the documents, has about ten.
MAX_DEPTH = 64
#: Digits of an integer; those of 64 bits have at most 20.
_MAX_DIGITS = 64
#: What Go's strings.EqualFold takes for an ASCII letter.
_FOLDED = {"\u017f": "s", "\u212a": "k"}


class StrictJsonError(ValueError):
    """Why a document is refused, to be put after a colon: callers name the document and choose the failure code."""


def parse(data: bytes | str, max_bytes: int = MAX_BYTES) -> Any:
    """Parse a document of at most ``max_bytes``. Raises StrictJsonError."""
    if len(data) > max_bytes:
        raise StrictJsonError(f"it has more than {max_bytes} bytes")
    try:
        document = json.loads(
            data.decode("utf-8") if isinstance(data, bytes) else data,
            object_pairs_hook=_unique,
            parse_constant=_no_constant,
            parse_float=_finite,
            parse_int=_integer,
        )
    except RecursionError as error:
        raise _too_deep() from error
    except StrictJsonError:
        raise
    except ValueError as error:
        raise StrictJsonError(str(error)) from error
    _check_depth(document)
    return document


def parse_object(data: bytes | str, max_bytes: int = MAX_BYTES) -> dict[str, Any]:
    """As :func:`parse`, and it has to be an object."""
    document = parse(data, max_bytes)
    if not isinstance(document, dict):
        raise StrictJsonError("it is not an object")
    return document


def fold(key: str) -> str:
    """A key as Go's encoding/json compares it with the fields of a struct, whose names are ASCII: without regard to
    case, the long s (U+017F) as an s and the Kelvin sign (U+212A) as a k."""
    return "".join(chr(ord(char) + 32) if "A" <= char <= "Z" else _FOLDED.get(char, char) for char in key)


def require_spelling(document: Mapping[str, Any], names: Collection[str], what: str = "it") -> None:
    """Raise StrictJsonError where a key means one of ``names`` to a program in Go and nothing to us, who know the exact
    spelling alone; also where two other keys mean the same to it."""
    known = {fold(name): name for name in names}
    seen: dict[str, str] = {}
    for key in document:
        folded = fold(key)
        name = known.get(folded, key)
        if key != name:
            raise StrictJsonError(f"{what} has the key {key[:80]!r}, which containerd and runc read as {name!r}")
        if folded in seen:
            raise StrictJsonError(f"{what} has the keys {seen[folded][:80]!r} and {key[:80]!r}, which are one to Go")
        seen[folded] = key


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        twice = Counter(key for key, _value in pairs).most_common(1)[0][0]
        raise StrictJsonError(f"an object in it has the key {twice[:80]!r} twice")
    return found


def _no_constant(name: str) -> None:
    raise StrictJsonError(f"{name} is not a number")


def _finite(text: str) -> float:
    found = float(text)
    if not math.isfinite(found):
        raise StrictJsonError(f"{text[:40]} is too large a number")
    return found


def _integer(text: str) -> int:
    if len(text) > _MAX_DIGITS:
        raise StrictJsonError(f"a number in it has more than {_MAX_DIGITS} digits")
    return int(text)


def _check_depth(document: Any) -> None:
    level = [document]
    for _depth in range(MAX_DEPTH):
        level = [
            child
            for node in level
            if isinstance(node, (dict, list))
            for child in (node.values() if isinstance(node, dict) else node)
            if isinstance(child, (dict, list))
        ]
        if not level:
            return
    raise _too_deep()


def _too_deep() -> StrictJsonError:
    return StrictJsonError(f"it is nested more than {MAX_DEPTH} deep")
