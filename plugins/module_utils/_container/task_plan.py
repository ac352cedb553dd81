# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the start of a task is given: for a restore CRIU's images, and the scripts that CRIU calls."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

from .._checkpoint import reader as checkpoint_reader
from .._checkpoint.reader import Checkpoint
from .._containerd import daemon, runtimes, tasks
from .._containerd.client import Client
from .._containerd.containers import Container
from .._core import state_dir
from .._core.errors import NodeError, combined
from .._criu import dump_config
from .._criu.action_script import ActionScript
from .._parallel_memory import hook as memory_hook
from . import (
    loopback as container_loopback,
    network as container_network,
    staged_images,
    sysctls as container_sysctls,
)
from .comparison import Comparison
from .task_params import DESCRIPTOR, TaskParams


@dataclass(frozen=True)
class Plan:
    """Without a checkpoint nothing of it."""

    #: runc's.
    options: Any = None
    #: Of the CRIU images as a blob.
    descriptor: Any = None
    #: The staged directory, and the one that runc reads: another where memory is written beside CRIU.
    staged: str = ""
    images: str = ""
    hook: memory_hook.Hook | None = None
    loopback: container_loopback.Loopback | None = None
    sysctls: ActionScript | None = None
    compared: Comparison | None = None
    network: container_network.Network | None = None
    warnings: tuple[str, ...] = ()


def of_restore(client: Client, params: TaskParams, container: Container, checkpoint: Checkpoint, work: str) -> Plan:
    """``work``: the container's work directory. Raises InputError and NodeError."""
    iptables = dump_config.locks_by_iptables(
        checkpoint.facts.criu_options, dump_config.config_of(container.spec, container.labels)
    )
    program = runtimes.program(container.runtime, container.runtime_options)
    lacking = daemon.restore_problems(daemon.daemon_environment(client)["PATH"], iptables, program)
    if lacking:
        raise combined(lacking)
    criu = checkpoint_reader.require_criu(checkpoint)
    config = state_dir.criu_config(params.staging_dir, client.namespace, params.container_id)
    has_config = config_of(container) == config
    # Why CRIU calls no scripts, if it does not.
    why = container_loopback.problem(client, work)
    scripts = has_config and not why
    network = container_network.of(
        params.container_id, client.namespace, container.spec, checkpoint.state, config, None if scripts else why
    )
    down = has_config and container_loopback.is_down(container.spec, client.namespace, params.container_id)
    options, descriptor, hook, staged, images = None, None, None, "", ""
    if params.route == DESCRIPTOR:
        checkpoint_reader.require_image(checkpoint)
        descriptor = criu
    else:
        images = staged = staged_images.directory_of(params, checkpoint)
        if params.split is not None and has_config:
            images, hook = params.split.images, memory_hook.Hook(config, work, params.split)
        options = tasks.runc_options(container.runtime_options, images, work)
    return Plan(
        options=options,
        descriptor=descriptor,
        staged=staged,
        images=images,
        hook=hook,
        loopback=container_loopback.Loopback(config, work) if down and not why else None,
        sysctls=container_sysctls.script(checkpoint.state, container.spec, config, work) if scripts else None,
        compared=Comparison(checkpoint.state, container.spec, config, work, scripts),
        network=network,
        warnings=(container_loopback.warning(params.container_id, why),) if down and why else (),
    )


def require_config(container: Container) -> None:
    """A missing CRIU configuration file is silently ignored by CRIU, so it is asserted here."""
    path = config_of(container)
    if path and not os.path.isfile(path):
        raise NodeError(
            "criu_config_missing",
            f"The CRIU configuration {path} that the container {container.id} names does not exist.",
            "Run containerd_container again: it writes the file.",
        )


def config_of(container: Container) -> str:
    """The configuration that a container names to CRIU; empty for none."""
    return str((container.spec.get("annotations") or {}).get("org.criu.config") or "")
