# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""An empty network namespace of a container's own, where CRIU needs one by path.

Made with ``ip netns``, which keeps it as a bind mount below /run/netns and gets mount propagation right.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping
from typing import Any

from .._core.errors import NodeError

_DIRECTORY = "/run/netns"
_PREFIX = "gpuops-restore-"


def path(name: str) -> str:
    """Where the namespace is of the container with that name on the node (:func:`_core.state_dir.node_name`)."""
    return os.path.join(_DIRECTORY, _PREFIX + name)


def given(spec: Mapping[str, Any]) -> str:
    """The path of the network namespace that a spec names; empty where runc makes one, or uses the node's."""
    entries = (spec.get("linux") or {}).get("namespaces") or ()
    return next((str(entry.get("path") or "") for entry in entries if entry["type"] == "network"), "")


def exists(name: str) -> bool:
    """Whether it is there, as a mount and not as the bare file that a reboot may leave."""
    return os.path.ismount(path(name)) or _is_namespace(path(name))


def make(name: str) -> None:
    """Make it, empty, its loopback down as CRIU finds it in a new one. Raises NodeError ``netns_failed``."""
    if os.path.lexists(path(name)):
        remove(name)
    _ip("add", name)


def remove(name: str) -> bool:
    """Remove it; False if there was none. Raises NodeError ``netns_failed``."""
    if not os.path.lexists(path(name)):
        return False
    _ip("delete", name)
    return True


def _is_namespace(where: str) -> bool:
    try:
        return os.stat(where).st_dev == os.stat("/proc/self/ns/net").st_dev
    except OSError:
        return False


def _ip(verb: str, name: str) -> None:
    name = _PREFIX + name
    try:
        # A step knows no AnsibleModule whose run_command it could use.
        done = subprocess.run(  # pylint: disable=ansible-bad-function
            ["ip", "netns", verb, name], capture_output=True, text=True, timeout=30, check=False
        )
        why = "" if done.returncode == 0 else done.stderr.strip()
    except (OSError, subprocess.TimeoutExpired) as error:
        why = str(error)
    if why:
        raise NodeError(
            "netns_failed",
            f"'ip netns {verb} {name}' failed: {why}.",
            "Install iproute2 on this node, or set network to host or to a namespace of your own.",
        )
