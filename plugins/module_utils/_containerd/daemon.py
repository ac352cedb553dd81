# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the node has: containerd's plugins and environment, programs.

Everything is looked up as the daemon sees it: its PATH and TMPDIR, since it is the daemon's shim that runs runc,
and runc that runs CRIU.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .._core.errors import NodeError
from .client import Client

_DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_SNAPSHOTTER_PLUGIN = "io.containerd.snapshotter.v1"
_CONTENT_PLUGIN = "io.containerd.content.v1"
#: Type and id of the CRI plugin that keeps images, in containerd 1.x and 2.x.
_CRI_PLUGINS = frozenset({("io.containerd.grpc.v1", "cri"), ("io.containerd.cri.v1", "images")})
DEFAULT_RUNTIME = "io.containerd.runc.v2"
#: What the shim of that calls unless its options name another program.
RUNC = "runc"


@dataclass(frozen=True)
class Plugin:
    """One of the daemon's plugins."""

    type: str
    id: str
    #: Empty when it works.
    error: str
    #: Where it keeps its data; empty when it does not tell.
    root: str


@dataclass(frozen=True)
class Program:
    """A program as the daemon finds it; both fields empty when it does not."""

    path: str = ""
    version: str = ""

    def result(self) -> dict[str, Any]:
        """As modules return it."""
        return {"present": bool(self.path), "path": self.path, "version": self.version}


def plugins(client: Client) -> list[Plugin]:
    """All plugins of the daemon."""
    found = client.call("containerd.services.introspection.v1.Introspection/Plugins")
    return [
        Plugin(entry.type, entry.id, entry.init_err.message, dict(entry.exports).get("root", ""))
        for entry in found.plugins
    ]


def snapshotters(plugins: list[Plugin]) -> list[str]:
    """Names of the snapshotters that work."""
    return sorted(entry.id for entry in plugins if entry.type == _SNAPSHOTTER_PLUGIN and not entry.error)


def require_snapshotter(client: Client, name: str) -> None:
    """Raise NodeError ``snapshotter_unknown`` unless the daemon has that snapshotter, working."""
    found = plugins(client)
    good = snapshotters(found)
    if name in good:
        return
    why = next((entry.error for entry in found if entry.type == _SNAPSHOTTER_PLUGIN and entry.id == name), "")
    reason = f"is not usable: {why}" if why else "does not exist"
    raise NodeError(
        "snapshotter_unknown",
        f"The snapshotter {name} {reason} on this node; it has {', '.join(good)}.",
        "Choose one of those, or enable the plugin in containerd's configuration.",
    )


def data_roots(plugins: list[Plugin]) -> dict[str, str]:
    """Where content and snapshots lie: ``{"content": path, "snapshots": path}``, empty when not exported."""
    content = next((entry.root for entry in plugins if entry.type == _CONTENT_PLUGIN and entry.root), "")
    snapshots = [entry for entry in plugins if entry.type == _SNAPSHOTTER_PLUGIN and not entry.error and entry.root]
    best = next((entry.root for entry in snapshots if entry.id == "overlayfs"), "")
    return {"content": content, "snapshots": best or (snapshots[0].root if snapshots else "")}


def cri_ok(plugins: Sequence[Plugin]) -> bool | None:
    """Whether the CRI plugin works; None when the daemon has none."""
    cri = [entry for entry in plugins if (entry.type, entry.id) in _CRI_PLUGINS]
    return all(not entry.error for entry in cri) if cri else None


def daemon_environment(client: Client) -> Mapping[str, str]:
    """PATH, TMPDIR and XDG_RUNTIME_DIR of the daemon; containerd's usual ones when its process cannot be read."""
    try:
        with open(f"/proc/{client.peer_pid()}/environ", "rb") as stream:
            pairs = (entry.split(b"=", 1) for entry in stream.read().split(b"\0") if b"=" in entry)
            found = {os.fsdecode(pair[0]): os.fsdecode(pair[1]) for pair in pairs}
    except OSError:
        found = {}
    wanted = {name: found[name] for name in ("PATH", "TMPDIR", "XDG_RUNTIME_DIR") if found.get(name)}
    wanted.setdefault("PATH", _DEFAULT_PATH)
    return wanted


def find_program(name: str, path: str, version_argument: str = "--version") -> Program:
    """A program on the daemon's PATH with its version; an empty Program when it is not there."""
    where = shutil.which(name, path=path)
    if where is None:
        return Program()
    found = re.search(r"\d+\.\d+(?:\.\d+)*(?:[-~+.\w]*)?", _says(where, version_argument, path))
    return Program(where, found.group(0) if found else "")


def _says(program: str, argument: str, path: str) -> str:
    try:
        # A program that hangs or fails still is there; only its version stays unknown.
        # A step knows no AnsibleModule whose run_command it could use.
        done = subprocess.run(  # pylint: disable=ansible-bad-function
            [program, argument],
            capture_output=True,
            text=True,
            errors="replace",
            timeout=10,
            check=False,
            env={"PATH": path},
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout or done.stderr


def shim_program(runtime: str, path: str) -> Program:
    """The shim binary of a runtime such as ``io.containerd.runc.v2`` (``containerd-shim-runc-v2``)."""
    if runtime.startswith("/"):
        return Program(runtime) if os.access(runtime, os.X_OK) else Program()
    parts = runtime.split(".")
    if len(parts) < 2:
        return Program()
    return Program(shutil.which(f"containerd-shim-{parts[-2]}-{parts[-1]}", path=path) or "")


def require_runtime(runtime: str, path: str, program: str = RUNC) -> None:
    """Raise NodeError ``runtime_absent`` unless the runtime's shim is installed, ``runtime_program_absent`` unless the
    program that it calls in runc's place is, ``runtime_without_criu`` where that says it has no CRIU."""
    if not shim_program(runtime, path).path:
        raise NodeError(
            "runtime_absent",
            f"The runtime {runtime} of the checkpointed container is not installed on this node.",
            "Install its shim where containerd finds it (PATH of the containerd service).",
        )
    if program == RUNC:
        # restore_problems looks for it.
        return
    found = shutil.which(program, path=path)
    if found is None:
        raise NodeError(
            "runtime_program_absent",
            f"The runtime {runtime} would call {program}, which is not on this node.",
            "Install it there, or list the runtime with another program, or none for runc, in runtimes "
            "(restore_node_runtimes).",
        )
    if lacks_criu(found, path):
        raise NodeError(
            "runtime_without_criu",
            f"{found}, which the runtime {runtime} would call, was built without CRIU.",
            "Install a crun whose --version shows +CRIU, or list the runtime without a program, for runc, in runtimes "
            "(restore_node_runtimes).",
        )


def lacks_criu(program: str, path: str) -> bool:
    """Whether a runtime's program says that it was built without CRIU, as distributions' crun mostly is."""
    return os.path.basename(program) == "crun" and "+CRIU" not in _says(program, "--version", path)


def systemd_runs() -> bool:
    """Whether systemd is this node's service manager (sd_booted(3)), without which runc's driver for it refuses."""
    return os.path.isdir("/run/systemd/system")


def restore_problems(path: str, iptables: bool = True, program: str = RUNC) -> list[NodeError]:
    """What any CRIU restore needs and the node does not have: runc where it is the ``program`` that is called, CRIU,
    the iptables-restore that CRIU runs where it locks the network with ``iptables``."""
    wanted = {"runc": program == RUNC, "criu": True, "iptables-restore": iptables}
    needed = {
        "runc": ("runc_missing", "runc", "runc carries out the restore"),
        "criu": ("criu_missing", "criu (3.17 or newer)", "CRIU restores the process"),
        "iptables-restore": (
            "iptables_restore_missing",
            "iptables, or put network-lock=nftables or network-lock=skip into /etc/criu/default.conf,",
            "CRIU locks the network with it",
        ),
    }
    return [
        NodeError(
            code,
            f"There is no {name} on containerd's PATH ({path}); {why}.",
            f"Install {package} on this node.",
        )
        for name, (code, package, why) in needed.items()
        if wanted[name] and shutil.which(name, path=path) is None
    ]


def cgroup_driver(options: Any) -> str:
    """``systemd`` or ``cgroupfs``, as runc's runtime options (an Any or None) demand; runc's default is cgroupfs."""
    from .messages import message

    if options is None or options.type_url.rsplit("/", 1)[-1] != "containerd.runc.v1.Options":
        return "cgroupfs"
    found = message("containerd.runc.v1.Options")
    found.ParseFromString(options.value)
    return "systemd" if found.systemd_cgroup else "cgroupfs"
