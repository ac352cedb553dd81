# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Where the collection keeps things on a node."""

from __future__ import annotations

import os
import shutil
import stat

from .errors import InputError

#: Root of everything that the collection keeps on a node; 0700, since memory images are secrets.
STATE_ROOT = "/var/lib/gpuops-restore"


#: The name of a container's CRIU configuration.
CRIU_CONFIG = "criu.conf"


#: containerd's namespace whose containers have their bare names on the node, as earlier releases gave them to all.
PLAIN_NAMESPACE = "k8s.io"


def node_name(namespace: str, container_id: str) -> str:
    """What a container's things outside of containerd are named after: cgroup, network namespace, receipt, evidence.

    No identifier of containerd's has two dashes in a row, so no two containers of a node share a name.
    """
    return container_id if namespace == PLAIN_NAMESPACE else f"{namespace}--{container_id}"


def runtime_dir(name: str) -> str:
    """The directory ``name`` of what must not outlive the boot; another user than root has one of its own."""
    own = os.environ.get("XDG_RUNTIME_DIR") or f"/run/user/{os.geteuid()}"
    return os.path.join("/run" if os.geteuid() == 0 else own, "gpuops-restore", name)


def work_dir(root: str, namespace: str, container_id: str) -> str:
    """The directory of one container: its CRIU configuration and restore log."""
    return os.path.join(root, "work", _safe(namespace), _safe(container_id))


def criu_config(root: str, namespace: str, container_id: str) -> str:
    """The container's CRIU configuration file."""
    return os.path.join(work_dir(root, namespace, container_id), CRIU_CONFIG)


def restore_log(root: str, namespace: str, container_id: str) -> str:
    """CRIU's log of the container's restore."""
    return os.path.join(work_dir(root, namespace, container_id), "restore.log")


def capture_dir(root: str, namespace: str, container_id: str) -> str:
    """What a run keeps of one container below ``root``, while it lasts."""
    return os.path.join(root, _safe(namespace), _safe(container_id))


def volume_dir(root: str, namespace: str, key: str) -> str:
    """What is kept below ``root`` of one memory volume."""
    return os.path.join(root, _safe(namespace), _safe(key))


def make_private(path: str, root: str) -> None:
    """Make ``path`` and what lacks of it down from ``root``, each 0700."""
    while not os.path.isdir(path):
        missing = [path]
        while missing[-1] != root and not os.path.isdir(os.path.dirname(missing[-1])):
            missing.append(os.path.dirname(missing[-1]))
        if missing[-1] == root:
            os.makedirs(os.path.dirname(root) or "/", exist_ok=True)
        try:
            for directory in reversed(missing):
                os.mkdir(directory, 0o700)
        except FileNotFoundError:
            # Another workload's clean-up has pruned an empty parent in between: once more from the top.
            continue
        except FileExistsError:
            # Another run was faster, and may have pruned it since: only what is there and no directory is in the way.
            if _in_the_way(directory):
                raise


def _in_the_way(path: str) -> bool:
    try:
        return not stat.S_ISDIR(os.stat(path).st_mode)
    except FileNotFoundError:
        return os.path.islink(path)


def remove_work(root: str, namespace: str, container_id: str) -> bool:
    """Remove a container's directory and the empty ones above it, up to ``root``. False if there was none."""
    path = work_dir(root, namespace, container_id)
    present = os.path.isdir(path)
    if present:
        shutil.rmtree(path)
    prune(os.path.dirname(path), root)
    return present


def prune(path: str, root: str) -> None:
    """Remove ``path`` and its parents up to and including ``root`` as far as they are empty."""
    root = os.path.normpath(root)
    while os.path.commonpath([path, root]) == root:
        try:
            os.rmdir(path)
        except FileNotFoundError:
            pass
        except OSError:
            return
        if path == root:
            return
        path = os.path.dirname(path)


def _safe(name: str) -> str:
    # containerd's own identifiers cannot hold a slash; this guards a path, not a syntax.
    if not name or "/" in name or name in (".", ".."):
        raise InputError("name_invalid", f"{name!r} is no name for a container or namespace.", "Correct the name.")
    return name


def exists(path: str) -> bool:
    """Whether something is there, a dangling link included."""
    return os.path.lexists(path)


def read_text(path: str) -> str | None:
    """A small text file, None when it is not there."""
    try:
        with open(path, encoding="utf-8") as stream:
            return stream.read()
    except FileNotFoundError:
        return None


def write_text(path: str, text: str) -> None:
    """Write a file that root alone reads; a run that is killed leaves the old one or the new one. Raises OSError."""
    part = f"{path}.part"
    descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with open(descriptor, "w", encoding="utf-8") as stream:
        stream.write(text)
    os.replace(part, path)
