# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Processes in a /proc made of files, as far as it matters whose they are."""

from __future__ import annotations

from pathlib import Path

HOST, CONTAINER = "pid:[4026531836]", "pid:[4026532999]"
#: Ways in which a process is not root's program on the host, as changes to :func:`add`.
NOT_ROOTS = {
    "another user's": {"users": "65534 65534 65534 65534"},
    "root's only for now": {"users": "1000 0 0 0"},
    "in a container": {"namespace": CONTAINER},
    "in a container with the host's processes": {"root": "container"},
    "another program": {"program": "/usr/bin/python3.12"},
}


def add(
    proc: Path,
    pid: int,
    *words: str,
    program: str = "",
    users: str = "0 0 0 0",
    namespace: str = HOST,
    root: str = "host",
) -> None:
    """A process with that command line, which is root's on the host unless said otherwise."""
    for name, where, top in (("self", HOST, "host"), (str(pid), namespace, root)):
        directory = proc / name
        if not (directory / "ns").exists():
            (directory / "ns").mkdir(parents=True)
            (directory / "fd").mkdir(exist_ok=True)
            (directory / "ns" / "pid").symlink_to(where)
            (proc / f"root-{top}").mkdir(exist_ok=True)
            (directory / "root").symlink_to(proc / f"root-{top}")
    found = proc / str(pid)
    (found / "exe").symlink_to(program or (words[0] if words else "/usr/bin/true"))
    (found / "status").write_text("Name:\tx\nUid:\t" + users.replace(" ", "\t") + "\nGid:\t0\n", encoding="ascii")
    (found / "cmdline").write_bytes("".join(f"{word}\0" for word in words).encode())
