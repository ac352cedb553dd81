# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Tables of both packet filters: what the kernel of this machine tells, and what others would."""

from __future__ import annotations

import errno
import os
import socket
import struct
from pathlib import Path

import pytest

from ansible_collections.gpuops.restore.plugins.module_utils._host import netfilter

DONE = struct.pack("=IHHIIi", 20, 3, 2, 1, 0, 0)


def message(family: int, name: str) -> bytes:
    """One table, as nf_tables tells of it: a flag, then the name."""
    text = name.encode() + b"\0"
    padded = text + bytes(-len(text) % 4)
    body = struct.pack("=BBH", family, 0, 0) + struct.pack("=HHI", 8, 2, 0) + struct.pack("=HH", 4 + len(text), 1)
    data = body + padded
    return struct.pack("=IHHII", 16 + len(data), 10 << 8, 2, 1, 0) + data


@pytest.fixture
def answers(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """What the kernel says, one after another."""
    found: list[bytes] = []

    class Control:
        def __init__(self, *_kind: int) -> None:
            self.close = self.settimeout = self.send = lambda *_any: None

        def recv(self, _size: int) -> bytes:
            return found.pop(0)

    monkeypatch.setattr(socket, "socket", Control)
    return found


def test_both_filters(answers: list[bytes], tmp_path: Path) -> None:
    (tmp_path / "ip_tables_names").write_text("nat\nfilter\n", encoding="ascii")
    (tmp_path / "ip6_tables_names").write_text("", encoding="ascii")
    answers += [message(1, "CRIU-4711") + message(10, "filter"), message(2, "mangle") + DONE]
    newer = {(1, "CRIU-4711"), (10, "filter"), (2, "mangle")}
    assert netfilter.tables(str(tmp_path)) == newer | {(2, "nat"), (2, "filter")}
    assert answers == []


@pytest.mark.parametrize(("number", "known"), [(errno.EINVAL, True), (errno.EOPNOTSUPP, True), (errno.EPERM, False)])
def test_a_kernel_without_it(answers: list[bytes], tmp_path: Path, number: int, known: bool) -> None:
    answers.append(struct.pack("=IHHIIi", 36, 2, 0, 1, 0, -number) + bytes(16))
    if known:
        assert netfilter.tables(str(tmp_path)) == set()
    else:
        with pytest.raises(OSError, match="not permitted"):
            netfilter.tables(str(tmp_path))


def test_of_this_machine() -> None:
    """Whatever there is has a name; the kernel tells it to root alone."""
    if os.geteuid() == 0:
        assert all(family and name for family, name in netfilter.tables())
    else:
        with pytest.raises(PermissionError):
            netfilter.tables()
