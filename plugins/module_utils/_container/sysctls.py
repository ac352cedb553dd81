# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The sysctls of a restored container's own network namespace.

runc sets those of a spec in a container that it makes, and has CRIU dump it without its network. So CRIU makes a
namespace with the kernel's own values, and what the spec or the container itself had set there is gone: a web server
that may not listen on port 80, a queue of another length. They are set again while the namespace is empty, since a
socket takes some of them when it is made.

Names and values are a stranger's. What is set is the container's own: only places are taken of which each namespace
has its own, and what all share cannot be written from within one (net/sysctl_net.c).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from .._checkpoint import task_state
from .._checkpoint.task_state import SYSCTLS, TaskState
from .._criu import action_script
from .._criu.action_script import ActionScript
from .._oci import spec_namespaces
from . import sysctls_worker

_NAME = "sysctls"
#: As the capture reads them (:mod:`_host.network_sysctls`); what devices have is theirs.
_OWN = re.compile(r"net\.(?:core|unix|ipv4|ipv6|ipv[46]\.conf\.(?:all|default))\.[A-Za-z0-9_-]+\Z")
#: Older kernels let any namespace write this one of all.
_ALL_HAVE = frozenset({"net.ipv4.tcp_allowed_congestion_control"})
#: Words and numbers.
_VALUE = re.compile(r"[\x21-\x7e]+(?: [\x21-\x7e]+)*\Z")
_LONGEST = 256


def lost(recorded: TaskState | None, spec: Mapping[str, Any]) -> dict[str, str]:
    """Those to be set, with their values; none where the network was there before, and so is somebody's."""
    if recorded is None or spec_namespaces.network_origin(spec) != spec_namespaces.PRIVATE:
        return {}
    found = recorded.kinds.get(SYSCTLS, {}).get("", {})
    names = [name for name in task_state.recorded_sysctls(recorded) if _OWN.match(name) and name not in _ALL_HAVE]
    return {name: found[name] for name in names if _VALUE.match(found[name]) and len(found[name]) <= _LONGEST}


def script(recorded: TaskState | None, spec: Mapping[str, Any], config: str, work: str) -> ActionScript | None:
    """What sets them, to be entered while a restore runs; None where nothing is to be set.

    ``config``: the container's CRIU configuration; ``work``: its directory.
    """
    wanted = [f"{name}={value}" for name, value in lost(recorded, spec).items()]
    if not wanted:
        return None
    return ActionScript(config, work, _NAME, action_script.SETUP_NAMESPACES, sysctls_worker, wanted)


def clear(work: str) -> None:
    """Take away what a run that was killed has left in ``work``."""
    action_script.Files(work, _NAME).remove()
