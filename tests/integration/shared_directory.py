# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A directory of this machine that lab nodes see too, as hosts see one of a file server."""

from __future__ import annotations

import ctypes
import os
import pathlib
import subprocess

from gpuops_lab.config import LabError, Node

# asm/unistd.h and linux/mount.h; the C library of Debian 12 has no names for these calls.
_OPEN_TREE, _MOVE_MOUNT = 428, 429
_CLONE, _CLOEXEC, _EMPTY_PATH = 1, os.O_CLOEXEC, 4
_HERE = -100
_ATTACH = f"""
import ctypes, os, sys
os.makedirs(sys.argv[2])
libc = ctypes.CDLL(None, use_errno=True)
if libc.syscall({_MOVE_MOUNT}, int(sys.argv[1]), b"", {_HERE}, os.fsencode(sys.argv[2]), {_EMPTY_PATH}):
    sys.exit(os.strerror(ctypes.get_errno()))
"""


def share(directory: pathlib.Path, node: Node, target: str) -> None:
    """The node sees ``directory`` as ``target`` from now on, until it ends."""
    libc = ctypes.CDLL(None, use_errno=True)
    # A bind mount of another mount namespace's directory is refused; a detached one can be handed over.
    tree = libc.syscall(_OPEN_TREE, _HERE, os.fsencode(directory), _CLONE | _CLOEXEC)
    if tree < 0:
        raise LabError(f"{directory} cannot be shared: {os.strerror(ctypes.get_errno())}")
    try:
        enter = [str(node.directory / "enter"), "/usr/bin/python3", "-c", _ATTACH, str(tree), target]
        subprocess.run(enter, pass_fds=[tree], check=True, stdin=subprocess.DEVNULL)
    finally:
        os.close(tree)
