# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a runtime spec asks of the host, beyond what every container has that containerd starts by its defaults.

Each right stands under the key of the policy that allows it (:mod:`_container.policy`). Facts: containerd's default
spec (pkg/oci/spec.go, mounts.go), the sysctls that Kubernetes calls safe, capabilities(7), mount(8).
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from . import spec_generate, spec_validate

CAPABILITIES, NAMESPACES, BINDS, DEVICES = "capabilities", "host_namespaces", "bind_sources", "devices"
SYSCTLS, MOUNT_TYPES = "sysctls", "mount_types"
#: Keys that are switches.
SECCOMP, PRIVILEGED, CONTROL = "seccomp_unconfined", "privileged", "host_control"
ALL = "all"
#: Ends the path of a bind mount that can only be read.
READ_ONLY = ":ro"

#: Without one of its own, a container is in the host's.
_ISOLATING = ("network", "pid", "ipc", "uts", "mount")
#: Made anew for each container, and nothing of the host.
_OWN_TYPES = ("proc", "sysfs", "tmpfs", "devpts", "mqueue", "cgroup", "cgroup2", "ramfs", "shm")
_GPU_DEVICE = re.compile(r"/dev/(?:nvidia[^/]*(?:/.+)?|dri/.+|dxg)\Z")
_PLAIN_DEVICES = frozenset(
    f"/dev/{name}"
    for name in ("null", "zero", "full", "random", "urandom", "tty", "console", "ptmx", "net/tun", "stdin", "stdout")
)
#: null, zero, full, random, urandom, tty, console, ptmx; pts; tun, which containerd 1.x allows each container.
_PLAIN_NUMBERS = frozenset((1, minor) for minor in (3, 5, 7, 8, 9)) | {(5, 0), (5, 1), (5, 2), (10, 200)}
_PTS_MAJOR = 136
#: Of NVIDIA's GPUs, and of the kernel's direct rendering.
_GPU_MAJORS = (195, 226)
_SAFE_SYSCTLS = frozenset(
    (
        "kernel.shm_rmid_forced",
        "net.ipv4.ip_local_port_range",
        "net.ipv4.ip_local_reserved_ports",
        "net.ipv4.ip_unprivileged_port_start",
        "net.ipv4.ping_group_range",
        "net.ipv4.tcp_fin_timeout",
        "net.ipv4.tcp_keepalive_intvl",
        "net.ipv4.tcp_keepalive_probes",
        "net.ipv4.tcp_keepalive_time",
        "net.ipv4.tcp_rmem",
        "net.ipv4.tcp_syncookies",
        "net.ipv4.tcp_wmem",
    )
)
#: Who can write to one of these rules the host.
_SOCKETS = (
    "/run/containerd/containerd.sock",
    "/run/docker.sock",
    "/run/crio/crio.sock",
    "/run/podman/podman.sock",
    "/run/systemd/private",
    "/run/dbus/system_bus_socket",
)


#: By their numbers (linux/capability.h).
_CAPABILITY_NAMES = (
    "CHOWN", "DAC_OVERRIDE", "DAC_READ_SEARCH", "FOWNER", "FSETID", "KILL", "SETGID", "SETUID", "SETPCAP",
    "LINUX_IMMUTABLE", "NET_BIND_SERVICE", "NET_BROADCAST", "NET_ADMIN", "NET_RAW", "IPC_LOCK", "IPC_OWNER",
    "SYS_MODULE", "SYS_RAWIO", "SYS_CHROOT", "SYS_PTRACE", "SYS_PACCT", "SYS_ADMIN", "SYS_BOOT", "SYS_NICE",
    "SYS_RESOURCE", "SYS_TIME", "SYS_TTY_CONFIG", "MKNOD", "LEASE", "AUDIT_WRITE", "AUDIT_CONTROL", "SETFCAP",
    "MAC_OVERRIDE", "MAC_ADMIN", "SYSLOG", "WAKE_ALARM", "BLOCK_SUSPEND", "AUDIT_READ", "PERFMON", "BPF",
    "CHECKPOINT_RESTORE",
)  # fmt: skip


@dataclass(frozen=True, order=True)
class Right:
    """One thing that a spec asks for."""

    #: Of the policy that allows it.
    key: str
    #: What to write there; empty for a switch.
    value: str = ""
    #: In words.
    text: str = field(default="", compare=False)

    def __str__(self) -> str:
        return f"{self.key}={self.value}" if self.value else self.key

    @classmethod
    def parse(cls, text: str) -> Right:
        """What ``str`` has made of one."""
        key, _equals, value = text.partition("=")
        return cls(key, value)

    def is_within(self, others: Collection[Right]) -> bool:
        """Whether it is one of the others; what may be written may be read as well."""
        return self in others or (
            self.key == BINDS
            and self.value.endswith(READ_ONLY)
            and Right(BINDS, self.value[: -len(READ_ONLY)]) in others
        )


@dataclass(frozen=True)
class Known:
    """What is the operator's own wish, or known of the host, when a spec is judged."""

    #: Sources of bind mounts that the operator has mapped to others.
    is_mapped: Callable[[str], bool] = lambda _source: False
    #: The operator says which network it gets.
    network_given: bool = False
    #: Numbers of the host's GPU devices, as (major, minor).
    gpu_numbers: Collection[tuple[int, int]] = ()
    #: containerd's socket.
    socket: str = _SOCKETS[0]


def rights(spec: Mapping[str, Any], known: Known) -> list[Right]:
    """All that a spec (checked) asks for, sorted, each once."""
    linux = spec["linux"]
    found: list[Right] = []
    found += _capabilities(spec["process"].get("capabilities") or {})
    found += _namespaces(linux.get("namespaces") or (), known)
    for mount in spec.get("mounts") or ():
        found += _mount(mount, known)
    found += _devices(linux, known)
    found += _seccomp(linux.get("seccomp") or {})
    found += [
        Right(SYSCTLS, name, f"the kernel setting {name}")
        for name in linux.get("sysctl") or ()
        if name not in _SAFE_SYSCTLS
    ]
    if not {"/proc/sys", "/proc/sysrq-trigger"} <= {_clean(path) for path in linux.get("readonlyPaths") or ()}:
        found.append(Right(PRIVILEGED, "", "the kernel's settings in /proc, writable"))
    label = spec["process"].get("selinuxLabel") or ""
    if any(part in label for part in ("spc_t", "unconfined")):
        found.append(Right(PRIVILEGED, "", f"the SELinux label {label}"))
    if linux.get("rootfsPropagation") in ("shared", "rshared"):
        found.append(Right(PRIVILEGED, "", "mounts that reach the host"))
    return sorted(set(found))


def _capabilities(given: Mapping[str, Any]) -> Iterable[Right]:
    usual = {f"CAP_{name}" for name in spec_generate.CAPABILITIES}
    names = {capability_name(name) for names in given.values() for name in names or ()}
    return [Right(CAPABILITIES, name, f"the capability {name}") for name in sorted(names - usual)]


def of_processes(capabilities: Iterable[int], unfiltered: bool) -> list[Right]:
    """What processes have beyond the usual; ``capabilities`` by their numbers."""
    names = {_CAPABILITY_NAMES[number] if number < len(_CAPABILITY_NAMES) else str(number) for number in capabilities}
    return [
        *_capabilities({"": sorted(names)}),
        *([Right(SECCOMP, "", "a process without a seccomp filter")] if unfiltered else []),
    ]


def capability_name(name: str) -> str:
    """``CAP_SYS_ADMIN`` for it and for ``sys_admin``."""
    upper = name.upper()
    return upper if upper.startswith("CAP_") else f"CAP_{upper}"


def _namespaces(entries: Iterable[Mapping[str, Any]], known: Known) -> Iterable[Right]:
    own = {entry["type"]: entry.get("path") or "" for entry in entries}
    for kind in _ISOLATING:
        if kind == "network" and known.network_given:
            continue
        if kind not in own:
            yield Right(NAMESPACES, kind, f"the host's {kind} namespace")
    path = own.get("network", "")
    # One below /proc is replaced by an empty one, and those of other kinds by new ones.
    if path and not known.network_given and not _clean(path).startswith("/proc/"):
        yield Right(NAMESPACES, "network", f"the network namespace {path}")


def _mount(mount: Mapping[str, Any], known: Known) -> Iterable[Right]:
    options = mount.get("options") or ()
    destination = mount["destination"]
    if {"shared", "rshared"} & set(options):
        yield Right(PRIVILEGED, "", f"mounts below {destination} that reach the host")
    if spec_validate.is_bind(mount):
        yield from _bind(mount.get("source") or "", _is_read_only(options), known)
        return
    kind = mount.get("type") or ""
    if kind not in _OWN_TYPES:
        yield Right(
            MOUNT_TYPES, kind, f"a file system of type {kind or 'none'} from {mount.get('source') or 'nothing'}"
        )
    elif kind in ("sysfs", "cgroup", "cgroup2") and not _is_read_only(options):
        yield Right(PRIVILEGED, "", f"{destination} ({kind}), writable")


def _is_read_only(options: Iterable[str]) -> bool:
    """The last word counts, as for runc."""
    words = [option for option in options if option in ("ro", "rro", "rw", "rrw")]
    return bool(words) and words[-1] in ("ro", "rro")


def _bind(given: str, read_only: bool, known: Known) -> Iterable[Right]:
    if known.is_mapped(given):
        return
    source = _clean(given)
    if _is_device(source):
        if not (_GPU_DEVICE.match(source) or source in _PLAIN_DEVICES):
            yield Right(DEVICES, ALL if source == "/dev" else source, f"the device {source}")
        return
    rules = [path for path in {known.socket, *_SOCKETS} if _holds(source, _clean(path))]
    if rules:
        yield Right(CONTROL, "", f"{source}, from where {sorted(rules)[0]} rules the host")
    yield Right(
        BINDS,
        source + (READ_ONLY if read_only else ""),
        f"{source} of the host{', read-only' if read_only else ''}",
    )


def _is_device(source: str) -> bool:
    return (source + "/").startswith("/dev/") and not (source + "/").startswith(("/dev/shm/", "/dev/mqueue/"))


def _holds(directory: str, path: str) -> bool:
    return path == directory or path.startswith(directory.rstrip("/") + "/")


def _devices(linux: Mapping[str, Any], known: Known) -> Iterable[Right]:
    numbers = set(known.gpu_numbers)
    for device in linux.get("devices") or ():
        numbers.add((device.get("major"), device.get("minor")))
        path = _clean(device["path"])
        if not (_GPU_DEVICE.match(path) or path in _PLAIN_DEVICES):
            yield Right(DEVICES, path, f"the device {path}")
    for name in linux.get("netDevices") or ():
        yield Right(DEVICES, f"net:{name}", f"the host's network device {name}")
    for rule in (linux.get("resources") or {}).get("devices") or ():
        access = rule.get("access") or "rwm"
        # To make a node is not yet to open it.
        if not rule.get("allow") or not {"r", "w"} & set(access):
            continue
        kind, major, minor = rule.get("type") or "a", rule.get("major"), rule.get("minor")
        if kind == "a" or major is None or major < 0:
            yield Right(DEVICES, ALL, "all devices")
        elif not (
            (kind in ("c", "u") and (major in (*_GPU_MAJORS, _PTS_MAJOR) or (major, minor) in _PLAIN_NUMBERS))
            or (major, minor) in numbers
        ):
            shown = "*" if minor is None or minor < 0 else minor
            yield Right(DEVICES, f"{kind} {major}:{shown}", f"the device {kind} {major}:{shown}")


def _seccomp(seccomp: Mapping[str, Any]) -> Iterable[Right]:
    if seccomp.get("listenerPath"):
        yield Right(CONTROL, "", f"the socket {seccomp['listenerPath']} of the host, which is to judge system calls")
    if seccomp.get("defaultAction") in (None, "", "SCMP_ACT_ALLOW", "SCMP_ACT_LOG") and not seccomp.get("syscalls"):
        yield Right(SECCOMP, "", "every system call (no seccomp filter)")


def _clean(path: str) -> str:
    """Absolute and plain, with the one spelling of /run."""
    plain = posixpath.normpath("/" + path.lstrip("/"))
    return plain[4:] if (plain + "/").startswith("/var/run/") else plain
