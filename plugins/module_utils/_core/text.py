# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Sizes, times and digests as texts: in messages, receipts, annotations and documents."""

from __future__ import annotations

import datetime
import re

from .errors import InputError

#: RFC 3339 in UTC, to the second, for strftime and strptime.
UTC = "%Y-%m-%dT%H:%M:%SZ"
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}\Z")


def gib(size: int) -> str:
    """Bytes in GiB, with one decimal and the unit."""
    return f"{size / (1 << 30):.1f} GiB"


def utc_now() -> str:
    """Now, RFC 3339 in UTC, to the second."""
    return datetime.datetime.now(datetime.timezone.utc).strftime(UTC)


def is_digest(value: object) -> bool:
    """Whether it is ``sha256:<64 lower-case hex digits>``."""
    return isinstance(value, str) and _DIGEST.match(value) is not None


def check_digest(digest: str, what: str) -> str:
    """Return ``digest`` if it is one. Raises InputError ``digest_invalid``."""
    if not is_digest(digest):
        raise InputError(
            "digest_invalid",
            f"The digest {str(digest)[:80]!r} of {what} is not a sha256 digest.",
            "Give it as sha256: followed by 64 lower-case hex digits.",
        )
    return digest
