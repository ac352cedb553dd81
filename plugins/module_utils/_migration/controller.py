# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Which run of Ansible has noted a migration, and whether that run may still be at work.

``HOST BOOT/PID/START``. Only on its own machine can a run be seen to have ended; a container that is a controller
shares the boot with its host, and has a host name of its own.
"""

from __future__ import annotations

import multiprocessing
import os
import socket

from .._host import processes


def own() -> str:
    """This run; empty where the system does not tell. Tasks are templated in processes of their own too."""
    parent = multiprocessing.parent_process()
    pid = (parent.pid if parent is not None else None) or os.getpid()
    try:
        return f"{socket.gethostname()} {processes.identity(pid)}"
    except OSError:
        return ""


def at_work(noted: str, others: bool = False) -> str:
    """Who may still be at work; empty where nobody is, or nobody can tell.

    ``others``: the operator vouches for runs on other controllers that they have ended.
    """
    mine = own()
    if noted in ("", mine) or not mine:
        return ""
    host, _blank, process = noted.partition(" ")
    if host == mine.partition(" ")[0]:
        return f"a run on this controller, pid {process.split('/')[1]}" if processes.lives(process) else ""
    return "" if others else f"a run on the controller {host}, of which this one cannot tell whether it has ended"
