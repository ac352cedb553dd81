# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Tests of the table of what versions cannot do."""

from __future__ import annotations

import re

import pytest

from ansible_collections.gpuops.restore.plugins.module_utils._criu import known_limits
from ansible_collections.gpuops.restore.plugins.module_utils._criu.known_limits import Range


@pytest.mark.parametrize(
    ("version", "numbers"),
    [("4.2.1", (4, 2, 1)), ("6.18.44-fc-v669", (6, 18, 44)), ("v4.2", (4, 2)), ("6.16.0-rc3", (6, 16, 0)), ("", ())],
)
def test_versions(version: str, numbers: tuple[int, ...]) -> None:
    assert known_limits.parse(version) == numbers


@pytest.mark.parametrize(
    ("version", "meant"),
    [("3.18", False), ("3.19", True), ("4.1.1", True), ("4.2", False), ("4.2.1", False), ("10.0", False), ("?", False)],
)
def test_a_range_has_its_first_and_not_its_last(version: str, meant: bool) -> None:
    assert Range(since="3.19", below="4.2").holds(version) is meant


@pytest.mark.parametrize(
    ("kernel", "criu", "limited"),
    [
        ("6.18.44", "4.1.1", True),
        ("6.16.0-rc1", "3.17.1", True),
        ("6.18.44", "4.2.1", False),
        ("6.15.9", "4.1.1", False),
        # What is not known is no reason to refuse.
        ("6.18.44", "", False),
    ],
)
def test_sockets_cannot_be_dumped(kernel: str, criu: str, limited: bool) -> None:
    versions = {known_limits.KERNEL: kernel, known_limits.CRIU: criu}
    found = known_limits.applying(known_limits.DUMP, [known_limits.INET_SOCKETS], versions)
    assert found == ([known_limits.INET_SOCKET_OPTIONS] if limited else [])
    # Only where there is a socket, and only at the dump.
    assert known_limits.applying(known_limits.DUMP, [], versions) == []
    assert known_limits.applying(known_limits.RESTORE, [known_limits.INET_SOCKETS], versions) == []


def test_every_line_is_complete() -> None:
    kinds = [limit.kind for limit in known_limits.TABLE]
    assert len(set(kinds)) == len(kinds)
    for limit in known_limits.TABLE:
        assert limit.versions, limit.kind
        assert limit.cause.endswith(".") and limit.remedy.endswith("."), limit.kind
        assert limit.concerns or limit.patterns or limit.parts, f"{limit.kind}: nobody can meet it"
        for wanted in limit.versions.values():
            assert known_limits.parse(wanted.since or wanted.below), limit.kind
        for pattern in limit.patterns:
            re.compile(pattern)
