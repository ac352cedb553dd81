# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A network of a container's own, made anew by a command of the operator, as ``network_command`` asks.

At the same moment as by plugins of CNI (:mod:`_container.cni`), and noted before it is made, likewise: the same command
takes it away with the task. It is the operator's: what a checkpoint says of one is dropped (:mod:`_oci.spec_adapt`).
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from typing import Any

from .._core import labels, state_dir, strict_json
from .._core.errors import NodeError
from .._core.strict_json import StrictJsonError
from .._criu import action_script
from .._criu.action_script import ActionScript
from . import netns, network_command_worker

_NAME, _PLAN = "network-command", "network-made.json"
_CONTAINER, _NAMESPACE = "GPUOPS_RESTORE_CONTAINER", "GPUOPS_RESTORE_NAMESPACE"


def command_of(spec: Mapping[str, Any]) -> list[str]:
    """What an adapted spec has; empty where its network is made by no command."""
    text = (spec.get("annotations") or {}).get(labels.NETWORK_COMMAND)
    try:
        found = strict_json.parse(text) if text else []
    except StrictJsonError:
        return []
    return found if isinstance(found, list) and all(isinstance(word, str) for word in found) else []


def problems(spec: Mapping[str, Any]) -> list[NodeError]:
    """What of it this node lacks."""
    command = command_of(spec)
    if not command or (os.path.isfile(command[0]) and os.access(command[0], os.X_OK)):
        return []
    return [
        NodeError(
            "network_command_missing",
            f"{command[0]}, which network_command names, is no program on this node.",
            "Put it there, executable, or name another.",
        )
    ]


def is_noted(work: str) -> bool:
    """Whether a network of the container's was made and not taken away."""
    return os.path.exists(os.path.join(work, _PLAN))


def release(work: str, netns: str = "") -> list[str]:
    """Have a network taken away that a task of the container has had; what keeps it from being gone, in sentences."""
    path = os.path.join(work, _PLAN)
    try:
        with open(path, encoding="utf-8") as stream:
            noted = json.load(stream)
        why = network_command_worker.remove(noted, netns)
        found = [f"The command {noted['command'][0]} could not take a network away: {why}."] if why else []
    except FileNotFoundError:
        return []
    except (ValueError, KeyError, TypeError, IndexError) as error:
        found = [f"The note of a network that a command has made, {path}, cannot be read ({error}): it may be left."]
    os.unlink(path)
    return found


class Network:
    """The network of one restore. Making it raises NodeError."""

    def __init__(self, container_id: str, namespace: str, spec: Mapping[str, Any], criu_config: str) -> None:
        self._container_id = container_id
        self._criu_config = criu_config
        self._command = command_of(spec)
        self._plan = {
            "command": self._command,
            "environment": {_CONTAINER: container_id, _NAMESPACE: namespace},
        }
        #: Of the namespace, where it is there before CRIU begins.
        self._path = netns.given(spec)

    def script(self, work: str) -> ActionScript | None:
        """What makes it in a namespace that CRIU makes; None where :meth:`make` has done it."""
        if self._path:
            return None
        note = os.path.join(work, _PLAN)
        step = action_script.SETUP_NAMESPACES
        return ActionScript(self._criu_config, work, _NAME, step, network_command_worker, (note,))

    def make(self, work: str) -> None:
        """Note it, and have it made where its namespace is there. Raises NodeError ``network_command_failed``."""
        state_dir.write_text(os.path.join(work, _PLAN), json.dumps(self._plan))
        if self._path:
            try:
                network_command_worker.make(self._plan, self._path)
            except network_command_worker.CommandError as error:
                raise self.failure(str(error)) from error

    def failure(self, why: str) -> NodeError:
        """The command has not made it."""
        return NodeError(
            "network_command_failed",
            f"The command {self._command[0]} has not made the network of {self._container_id}: {why}.",
            "Correct it or the node's network, then run again; without network_command the network comes back empty.",
        )


def no_script(container_id: str, why: str) -> NodeError:
    """CRIU makes the namespace, and cannot be made to start the command."""
    return NodeError(
        "network_command_failed",
        f"No command can make the network of {container_id}: {why or 'its CRIU configuration is not ours'}.",
        "Update CRIU, or restore without network_command.",
    )


def clear(work: str) -> None:
    """Take away what a run that was killed has left in ``work``, but for the note of what was made."""
    action_script.Files(work, _NAME).remove()
