# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Who makes a restored container's network anew: plugins of CNI, a command of the operator, or nobody."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Union

from .._checkpoint.task_state import TaskState
from .._core.errors import NodeError
from .._oci import spec_namespaces
from . import cni, network_command

Network = Union[cni.Network, network_command.Network]


def of(
    container_id: str,
    namespace: str,
    spec: Mapping[str, Any],
    recorded: TaskState | None,
    criu_config: str,
    no_scripts: str | None,
) -> Network | None:
    """What makes it for one restore; ``no_scripts``: why CRIU can start no program, None where it can.

    Raises NodeError ``cni_*``, ``network_command_failed``.
    """
    command = bool(network_command.command_of(spec))
    if not command and not cni.config_of(spec):
        return None
    if no_scripts is not None and spec_namespaces.network_origin(spec) == spec_namespaces.PRIVATE:
        raise (network_command if command else cni).no_script(container_id, no_scripts)
    if command:
        return network_command.Network(container_id, namespace, spec, criu_config)
    return cni.Network(container_id, namespace, spec, recorded, criu_config)


def problems(spec: Mapping[str, Any]) -> list[NodeError]:
    """What this node lacks for it."""
    return [*cni.problems(spec), *network_command.problems(spec)]


def clear(work: str) -> None:
    """Take away what a run that was killed has left in ``work``, but for the note of what was made."""
    cni.clear(work)
    network_command.clear(work)


def is_noted(work: str) -> bool:
    """Whether a network of the container's was made and not taken away."""
    return cni.is_noted(work) or network_command.is_noted(work)


def release(work: str) -> list[str]:
    """Have a network taken away that a task of the container has had; what keeps it from being gone, in sentences."""
    return [*cni.release(work), *network_command.release(work)]
