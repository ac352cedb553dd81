# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Which tables the packet filters of a network namespace have, without a program of theirs.

The older one names them below /proc, nf_tables tells of them by netlink; iptables uses the one or the other. A node has
hundreds of namespaces, and most have no table. Facts: net/netfilter/x_tables.c, nfnetlink.c, nf_tables_api.c;
linux/netfilter/nf_tables.h.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import struct
from collections.abc import Iterator

INET, IPV4, IPV6 = 1, 2, 10
_NAMES = {IPV4: "ip_tables_names", IPV6: "ip6_tables_names"}
_NETLINK_NETFILTER = 12
#: NFNL_SUBSYS_NFTABLES and NFT_MSG_GETTABLE; NLM_F_REQUEST and NLM_F_DUMP.
_GET_TABLE, _REQUEST_DUMP = 10 << 8 | 1, 0x301
_ERROR, _DONE = 2, 3
_NAME = 1
_HEADER = struct.Struct("=IHHII")
_ATTRIBUTE = struct.Struct("=HH")
#: Of struct nfgenmsg.
_FAMILY_BYTES = 4
_SECONDS = 5.0
#: A kernel without nf_tables, or without netfilter's netlink.
_NONE = (errno.EINVAL, errno.EPROTONOSUPPORT, errno.EOPNOTSUPP)


def tables(proc: str = "/proc/thread-self/net") -> set[tuple[int, str]]:
    """Family and name of each in the namespace that the calling thread is in. Raises OSError where nobody can tell."""
    found = {(family, name) for family, file in _NAMES.items() for name in _older(f"{proc}/{file}")}
    try:
        found.update(_newer())
    except OSError as error:
        if error.errno not in _NONE:
            raise
    return found


def _older(path: str) -> list[str]:
    try:
        with open(path, encoding="utf-8") as stream:
            return stream.read().split()
    except FileNotFoundError:
        # Nothing of it is loaded.
        return []


def _newer() -> Iterator[tuple[int, str]]:
    with contextlib.closing(socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_NETFILTER)) as control:
        control.settimeout(_SECONDS)
        control.send(_HEADER.pack(_HEADER.size + _FAMILY_BYTES, _GET_TABLE, _REQUEST_DUMP, 1, 0) + bytes(_FAMILY_BYTES))
        while True:
            data = control.recv(1 << 18)
            while len(data) >= _HEADER.size:
                length, kind, _flags, _sequence, _pid = _HEADER.unpack_from(data)
                body = data[_HEADER.size : length]
                if kind == _ERROR:
                    number = -struct.unpack_from("=i", body)[0]
                    raise OSError(number, os.strerror(number))
                if kind == _DONE or length < _HEADER.size:
                    return
                yield body[0], _name(body[_FAMILY_BYTES:])
                data = data[(length + 3) & ~3 :]


def _name(data: bytes) -> str:
    while len(data) >= _ATTRIBUTE.size:
        length, kind = _ATTRIBUTE.unpack_from(data)
        if length < _ATTRIBUTE.size:
            break
        if kind & 0x3FFF == _NAME:
            return data[_ATTRIBUTE.size : length].rstrip(b"\0").decode("utf-8", "replace")
        data = data[(length + 3) & ~3 :]
    return ""
