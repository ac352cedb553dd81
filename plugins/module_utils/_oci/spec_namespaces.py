# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Which namespaces a restored container gets.

How a namespace was dumped decides how it can be restored. Facts from runc (criu_linux.go) and CRIU
(net.c, cr-restore.c), and from runs of runc 1.1.15 with CRIU 4.1.1:

* network, dumped from an entry with a path: recorded as external (``extRootNetNS``). The restore needs an
  entry with a path, any; without one CRIU ends with "Unable to find an external netns: extRootNetNS". The
  path ``/proc/1/ns/net`` gives the node's own network.
* network, dumped from an entry without a path: restored from the images into a new one, whatever the entry
  says now.
* no network entry: restored into the node's network, whatever the entry says now.
* pid, dumped from an entry with a path: external too (``extRootPidNS``): it cannot become a namespace of its
  own, and in a stranger's the old process ids may be taken.
* ipc, uts and the others are in the images; an entry without a path gets new ones with the old contents.
"""

from __future__ import annotations

import posixpath
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from .._core.errors import InputError
from . import spec_validate

HOST = "host"
NONE = "none"
PRIVATE = "private"
#: Before the path of a configuration of CNI's.
CNI = "cni:"
EXTERNAL = "external"

# Process 1 never ends, so unlike any other /proc/<pid> this one can be no stranger's.
HOST_NETNS = "/proc/1/ns/net"


#: What an operator has to know of a container that shares the node's process namespace.
NODE_PIDS = "The container ran in the node's process namespace: CRIU needs all of its old process ids to be free here."


def has_user_namespace(spec: Mapping[str, Any]) -> bool:
    """Whether a container with this spec (checked) runs in a user namespace."""
    return _entry(spec, "user") is not None


def shares_node_pids(spec: Mapping[str, Any]) -> bool:
    """Whether a container with this spec (checked) has no process namespace of its own."""
    return _entry(spec, "pid") is None


#: What an operator has to know of a container in a user namespace: its snapshot is made without a mapping of owners.
IMAGE_OF_NOBODY = (
    "The container runs in a user namespace, where the files of its image will belong to nobody: it cannot change those"
    " that it has not written before."
)


@dataclass
class Chosen:
    """The new ``linux.namespaces``, with changes and warnings in sentences."""

    entries: list[dict[str, Any]] = field(default_factory=list)
    changes: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


def _is_below_proc(path: str) -> bool:
    """Whether a path goes through /proc, and so names a process that may be another by now."""
    # normpath keeps two leading slashes, the kernel does not.
    return (posixpath.normpath("/" + path.lstrip("/")) + "/").startswith("/proc/")


def _entry(spec: Mapping[str, Any], kind: str) -> Mapping[str, Any] | None:
    """The entry of one type, if there is one."""
    entries: list[Mapping[str, Any]] = spec["linux"].get("namespaces") or []
    return next((entry for entry in entries if entry["type"] == kind), None)


def network_origin(spec: Mapping[str, Any]) -> str:
    """``host``, ``private`` or ``external``: how the network of a container with this spec was dumped.

    Raises InputError ``spec_invalid``.
    """
    spec_validate.check(spec)
    entry = _entry(spec, "network")
    if entry is None:
        return HOST
    return EXTERNAL if entry.get("path") else PRIVATE


def needs_fresh_netns(spec: Mapping[str, Any], network: str | None) -> bool:
    """Whether the restore needs a path to a new, empty network namespace that somebody has to make before it.

    So it is for a container that was dumped in its pod's network namespace, where ``network`` is ``none``, or
    not given and the old path leads through /proc. Raises InputError ``spec_invalid``.
    """
    if network_origin(spec) != EXTERNAL:
        return False
    entry = _entry(spec, "network") or {}
    return network == NONE or bool(cni_config(network)) or (network is None and _is_below_proc(entry["path"]))


def cni_config(network: str | None) -> str:
    """The path of the configuration by which CNI's plugins make the network; empty where nobody asks for that."""
    return network[len(CNI) :] if network and network.startswith(CNI) else ""


def check_command(command: Sequence[str], network: str | None, original: Mapping[str, Any]) -> list[str]:
    """The command by which an operator has the network of a container made anew, if it can be. Raises InputError."""
    if not command[0].startswith("/") or any("\0" in word for word in command):
        raise InputError(
            "network_invalid",
            f"network_command begins with {command[0]!r}, which is not the absolute path of a program of the node.",
            "Give a list: the program's path, then its arguments.",
        )
    if cni_config(network):
        raise InputError(
            "network_invalid",
            f"The network is to be made by both network={network} and network_command.",
            "Leave one of them out.",
        )
    if network == HOST or network_origin(original) == HOST:
        raise InputError(
            "network_invalid",
            "network_command is to make the network of a container that is in the node's own.",
            "Leave network_command out, or network=host.",
        )
    return list(command)


def _unmovable(origin: str, network: str) -> InputError:
    """The error for a network that the CRIU images do not allow."""
    where = "the node's own network" if origin == HOST else "a network namespace of its own"
    keep = HOST if origin == HOST else NONE
    return InputError(
        "network_unmovable",
        f"The container was checkpointed in {where} and CRIU restores it into such a one, so"
        f" network={network} would be silently ignored.",
        f"Leave network out or set it to {keep}; only a container that was checkpointed in a namespace given"
        " by path, as in a pod, can be moved.",
    )


def _network(entry: Mapping[str, Any] | None, network: str | None, fresh_netns: str, chosen: Chosen) -> None:
    """Decides the network entry."""
    config = cni_config(network)
    if config and (not config.startswith("/") or any(char in config for char in "\0\n")):
        raise InputError(
            "network_invalid",
            f"network={network} does not name the absolute path of a CNI configuration of the node.",
            "Give cni:/etc/cni/net.d/NAME.conflist, for example.",
        )
    if config:
        # An empty namespace, which the plugins fill.
        if entry is None:
            raise _unmovable(HOST, str(network))
        chosen.changes.append(f"The network is made anew by CNI, as {config} says.")
        network = NONE
    if network not in (None, HOST, NONE) and (not str(network).startswith("/") or _is_below_proc(str(network))):
        raise InputError(
            "network_invalid",
            f"network={network} is neither host nor none nor the absolute path of a lasting network namespace.",
            "Make one with 'ip netns add NAME' and give /run/netns/NAME; a path below /proc ends with its process.",
        )
    if entry is None:
        if network not in (None, HOST):
            raise _unmovable(HOST, str(network))
        return
    old = entry.get("path") or ""
    if not old:
        if network not in (None, NONE):
            raise _unmovable(PRIVATE, str(network))
        chosen.entries.append(dict(entry))
        return
    if network == HOST:
        new = HOST_NETNS
    elif network in (None, NONE) and (network == NONE or _is_below_proc(old)):
        if not fresh_netns:
            raise InputError(
                "network_path_required",
                f"The container was checkpointed in the network namespace {old} of its pod, which CRIU"
                " recorded as external: it can only be restored into a namespace given by path.",
                "Set network to host or to the path of a network namespace, as 'ip netns add NAME' makes in"
                " /run/netns.",
            )
        new = fresh_netns
        if network is None:
            chosen.warnings.append(
                f"The network namespace {old} of the original ended with its pod: the container gets the new"
                f" and empty {new}, without any connection, as network is not set."
            )
    else:
        new = network or old
    if new != old:
        chosen.changes.append(f"The network namespace {old} is replaced by {new}.")
    chosen.entries.append({**entry, "path": new})


def unrestorable(spec: Mapping[str, Any]) -> list[InputError]:
    """Why no restore brings a container with this spec (checked) back, whatever is asked of it.

    ``pid_namespace_shared``, ``user_namespace_unmapped``; the capture asks the same before it stops anything.
    """
    problems = []
    for entry in spec["linux"].get("namespaces") or ():
        kind, path = entry["type"], entry.get("path") or ""
        if kind == "pid" and path:
            problems.append(
                InputError(
                    "pid_namespace_shared",
                    f"The container shares the process namespace {path} with its pod or another container; CRIU takes"
                    " it as external and can only restore into that very one, where its process ids may be taken.",
                    "Run the workload in a process namespace of its own (a pod without shareProcessNamespace), and"
                    " checkpoint that.",
                )
            )
        if kind == "user" and path and not spec["linux"].get("uidMappings"):
            problems.append(
                InputError(
                    "user_namespace_unmapped",
                    f"The container runs in the user namespace {path} and its spec has no uidMappings to make a new"
                    " one.",
                    "Run it with uidMappings and gidMappings in its spec; for a restore, metadata whose ociSpec has"
                    " those of the original will do.",
                )
            )
    return problems


def mapped_root(spec: Mapping[str, Any]) -> tuple[int, int] | None:
    """User and group of the host that the container's root is; None for a container without user namespace."""
    if not has_user_namespace(spec):
        return None
    linux = spec["linux"]
    found = []
    for key in ("uidMappings", "gidMappings"):
        entries = [entry for entry in linux.get(key) or () if entry.get("containerID", 0) == 0]
        if not entries or not isinstance(entries[0].get("hostID"), int):
            return None
        found.append(entries[0]["hostID"])
    return found[0], found[1]


def choose(spec: Mapping[str, Any], network: str | None, fresh_netns: str = "") -> Chosen:
    """The namespaces for a restore of a container that ran with ``spec`` (checked), in the order of the
    original.

    Raises InputError ``network_invalid``, ``network_unmovable``, ``network_path_required``,
    ``network_sysctl``, ``pid_namespace_shared``, ``user_namespace_unmapped``.
    """
    for problem in unrestorable(spec):
        raise problem
    chosen = Chosen()
    for entry in spec["linux"].get("namespaces") or ():
        kind, path = entry["type"], entry.get("path") or ""
        if kind == "network":
            _network(entry, network, fresh_netns, chosen)
            continue
        if kind == "user":
            chosen.warnings.append(IMAGE_OF_NOBODY)
        if not path:
            chosen.entries.append(dict(entry))
            continue
        chosen.changes.append(f"The {kind} namespace {path} is replaced by a new one of the container's own.")
        chosen.entries.append({key: value for key, value in entry.items() if key != "path"})
    if _entry(spec, "network") is None:
        _network(None, network, fresh_netns, chosen)
    if shares_node_pids(spec):
        chosen.warnings.append(NODE_PIDS)
    _check_sysctls(spec, chosen)
    return chosen


def _check_sysctls(spec: Mapping[str, Any], chosen: Chosen) -> None:
    """runc refuses net.* sysctls in the node's network."""
    host = any(entry["type"] == "network" and entry.get("path") == HOST_NETNS for entry in chosen.entries)
    names = sorted(name for name in spec["linux"].get("sysctl") or () if name.startswith("net."))
    if host and names:
        raise InputError(
            "network_sysctl",
            f"The spec sets {', '.join(names)}, which runc does not allow in the node's network.",
            "Set network to the path of a network namespace instead of host.",
        )
