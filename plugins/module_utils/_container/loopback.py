# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The loopback interface of a restored container.

runc brings it up in a network namespace that it makes for a container, and dumps the container without its network. So
CRIU makes an empty namespace, and what comes back there could reach no server of its own, not even one that listens on
127.0.0.1; a connection over it would fail the restore.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .._containerd import daemon
from .._containerd.client import Client
from .._core import state_dir
from .._criu import action_script
from .._criu.action_script import ActionScript
from . import loopback_worker, netns

_NAME = "loopback"


def is_down(spec: Mapping[str, Any], namespace: str, container_id: str) -> bool:
    """Whether CRIU or :mod:`_container.netns` makes the network of a container, so that its loopback is down."""
    # Earlier releases named it after the container alone.
    own = {netns.path(name) for name in (state_dir.node_name(namespace, container_id), container_id)}
    entries = (spec.get("linux") or {}).get("namespaces") or ()
    entry = next((entry for entry in entries if entry.get("type") == "network"), None)
    return entry is not None and entry.get("path") in (None, "", *own)


def problem(client: Client, work: str) -> str:
    """Why it would stay down here, empty where it would not; ``work``: the container's directory."""
    criu = daemon.find_program("criu", daemon.daemon_environment(client)["PATH"])
    return action_script.problem(criu.version, work)


def warning(container_id: str, why: str) -> str:
    """What an operator is told when it stays down."""
    return (
        f"The loopback interface of {container_id} stays down ({why}): nobody reaches what listens on 127.0.0.1, and "
        "connections within the container cannot be restored."
    )


def clear(work: str) -> None:
    """Take away what a run that was killed has left in ``work``."""
    action_script.Files(work, _NAME).remove()


class Loopback(ActionScript):
    """To be entered while a restore runs: CRIU has it brought up when the namespace exists and no socket is restored.

    ``config``: the container's CRIU configuration; ``work``: its directory. Entering raises NodeError and OSError.
    """

    def __init__(self, config: str, work: str) -> None:
        super().__init__(config, work, _NAME, action_script.SETUP_NAMESPACES, loopback_worker)

    @property
    def failed(self) -> str:
        """Why it is down after the restore; empty if it is up."""
        if self.report.get("up"):
            return ""
        return str(self.report.get("failed") or "CRIU has not started what brings it up")
