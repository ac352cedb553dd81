# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a node offers for restores."""

from __future__ import annotations

import os
from typing import Any

from .._core import files
from .._core.errors import NodeError
from .._host import cgroup as host_cgroup
from .._oci.image import host_platform
from . import daemon as containerd_daemon, leases
from .client import Client

#: Exists exactly when systemd is the init system (sd_booted(3)).
_SYSTEMD = "/run/systemd/system"
#: What a plugin says that is not meant for this machine, as containerd's introspection reports it.
_SKIPPED = "skip plugin"


def gather(client: Client, staging_dir: str) -> dict[str, Any]:
    """Everything that ``containerd_info`` returns, sizes in bytes. Nothing is changed."""
    plugins = containerd_daemon.plugins(client)
    path = containerd_daemon.daemon_environment(client)["PATH"]
    roots = containerd_daemon.data_roots(plugins)
    paths = {"content": roots["content"], "snapshots": roots["snapshots"], "staging": staging_dir}
    return {
        "containerd": daemon(client),
        "namespaces": namespaces(client),
        "snapshotters": containerd_daemon.snapshotters(plugins),
        "default_runtime": default_runtime(path),
        "runtime": containerd_daemon.find_program("runc", path).result(),
        "criu": containerd_daemon.find_program("criu", path).result(),
        "iptables_restore": containerd_daemon.find_program("iptables-restore", path).result(),
        "cgroup": cgroup(),
        "free_bytes": {name: files.free_bytes(directory) if directory else None for name, directory in paths.items()},
        "plugins": failed_plugins(plugins),
        "cri_ok": containerd_daemon.cri_ok(plugins),
        "leases": [leases.describe(lease) for lease in leases.list_all(client)],
        "kernel": os.uname().release,
        "architecture": host_platform().architecture,
    }


def daemon(client: Client) -> dict[str, Any]:
    """Version and identity; ``pid`` as this process sees it, 0 when it does not."""
    version = client.call("containerd.services.version.v1.Version/Version")
    server = client.call("containerd.services.introspection.v1.Introspection/Server")
    return {
        "version": version.version,
        "revision": version.revision,
        "uuid": server.uuid,
        # containerd 1.6 does not tell its pid.
        "pid": int(server.pid) or client.peer_pid(),
    }


def namespaces(client: Client) -> list[str]:
    """All of containerd's namespaces."""
    found = client.call("containerd.services.namespaces.v1.Namespaces/List").namespaces
    return sorted(entry.name for entry in found)


def default_runtime(path: str) -> dict[str, Any]:
    """The runtime of containers that name none, and whether its shim is on the daemon's PATH."""
    return {
        "name": containerd_daemon.DEFAULT_RUNTIME,
        **containerd_daemon.shim_program(containerd_daemon.DEFAULT_RUNTIME, path).result(),
    }


def cgroup(systemd: str = _SYSTEMD) -> dict[str, Any]:
    """``mode`` (None: not mounted) and ``driver``.

    Without systemd there is only the driver ``cgroupfs``. With it each runtime's own options decide, so it is None.
    """
    try:
        mode: str | None = host_cgroup.mode()
    except NodeError:
        mode = None
    return {"mode": mode, "driver": None if os.path.isdir(systemd) else host_cgroup.CGROUPFS}


def failed_plugins(plugins: list[containerd_daemon.Plugin]) -> list[dict[str, str]]:
    """The plugins that failed, without those that are skipped because they are not for this machine."""
    return [
        {"type": entry.type, "id": entry.id, "error": entry.error}
        for entry in plugins
        if entry.error and _SKIPPED not in entry.error
    ]
