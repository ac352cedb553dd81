# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""An OCI spec from an image config, for a checkpoint that comes without its original spec.

CRIU needs the mounts and namespaces of the spec to be those of the dumped container. So this is what
containerd's client makes by default (facts: pkg/oci/spec.go and mounts.go of containerd 1.6 to 2.2), right
for a container that was started without further options. Anything else needs the original spec.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from .._core.errors import InputError

#: What containerd gives a container that asks for none, without the ``CAP_``.
CAPABILITIES = (
    "CHOWN", "DAC_OVERRIDE", "FSETID", "FOWNER", "MKNOD", "NET_RAW", "SETGID", "SETUID", "SETFCAP", "SETPCAP",
    "NET_BIND_SERVICE", "SYS_CHROOT", "KILL", "AUDIT_WRITE",
)  # fmt: skip
# Destination, type, source, options.
_MOUNTS = (
    ("/proc", "proc", "proc", "nosuid noexec nodev"),
    ("/dev", "tmpfs", "tmpfs", "nosuid strictatime mode=755 size=65536k"),
    ("/dev/pts", "devpts", "devpts", "nosuid noexec newinstance ptmxmode=0666 mode=0620 gid=5"),
    ("/dev/shm", "tmpfs", "shm", "nosuid noexec nodev mode=1777 size=65536k"),
    ("/dev/mqueue", "mqueue", "mqueue", "nosuid noexec nodev"),
    ("/sys", "sysfs", "sysfs", "nosuid noexec nodev ro"),
    ("/run", "tmpfs", "tmpfs", "nosuid strictatime mode=755 size=65536k"),
)
# null, random, full, tty, zero, urandom, console, pts/*, ptmx.
_DEVICES = ((1, 3), (1, 8), (1, 7), (5, 0), (1, 5), (1, 9), (5, 1), (136, None), (5, 2))
_MASKED = (
    "/proc/acpi", "/proc/asound", "/proc/kcore", "/proc/keys", "/proc/latency_stats", "/proc/timer_list",
    "/proc/timer_stats", "/proc/sched_debug", "/sys/firmware", "/sys/devices/virtual/powercap", "/proc/scsi",
)  # fmt: skip
_READONLY = ("/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger")
_DEFAULT_ENV = ("PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",)
# runc takes ids up to the largest signed 32 bit number.
_ID_MAX = 2**31 - 1
_NUMBER = re.compile(r"[0-9]{1,10}\Z")
_REMEDY = "Give metadata with the original's ociSpec."


def _strings(config: Mapping[str, Any], key: str) -> list[str]:
    """A list of strings of the image config, empty if missing or null."""
    value = config.get(key)
    if value is None:
        return []
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise InputError("image_config_invalid", f"{key} in the image config is not a list of strings.", _REMEDY)
    return list(value)


def _string(config: Mapping[str, Any], key: str) -> str:
    """A string of the image config, empty if missing or null."""
    value = config.get(key)
    if value is not None and not isinstance(value, str):
        raise InputError("image_config_invalid", f"{key} in the image config is not a string.", _REMEDY)
    return value or ""


def _user(text: str) -> dict[str, Any]:
    """``uid`` or ``uid:gid`` as numbers; names would need the image's /etc/passwd."""
    uid, colon, gid = text.partition(":")
    numbers = [uid or "0", gid if colon else "0"]
    if not all(_NUMBER.match(word) and int(word) <= _ID_MAX for word in numbers):
        raise InputError(
            "image_user_not_numeric",
            f"The image runs as the user {text[:80]!r}, which is not a numeric uid or uid:gid.",
            _REMEDY,
        )
    group = int(numbers[1])
    return {"uid": int(numbers[0]), "gid": group, "additionalGids": [group]}


def _capabilities() -> dict[str, list[str]]:
    """The default set, each list of its own."""
    return {kind: [f"CAP_{name}" for name in CAPABILITIES] for kind in ("bounding", "effective", "permitted")}


def _device_rules() -> list[dict[str, Any]]:
    """Nothing is allowed but the usual character devices."""
    rules: list[dict[str, Any]] = [{"allow": False, "access": "rwm"}]
    for major, minor in _DEVICES:
        rule: dict[str, Any] = {"allow": True, "type": "c", "major": major, "access": "rwm"}
        if minor is not None:
            rule["minor"] = minor
        rules.append(rule)
    return rules


def generate(
    image_config: Mapping[str, Any],
    container_id: str,
    *,
    host_network: bool = False,
    cgroup_namespace: bool = False,
    terminal: bool = False,
) -> dict[str, Any]:
    """A Linux runtime spec for the image whose config blob is ``image_config`` (the object with ``config`` in
    it).

    The three options say how the original was started: in the node's network, with a cgroup namespace (CRI
    and nerdctl do that on nodes with the unified hierarchy, containerd's client does not), with a terminal.
    The group of a uid given alone is 0; a restored process keeps its ids from the images in any case. Raises
    InputError ``image_config_invalid``, ``image_platform``, ``image_user_not_numeric``.
    """
    config = image_config.get("config") if isinstance(image_config, Mapping) else None
    if config is None and isinstance(image_config, Mapping):
        config = {}
    if not isinstance(config, Mapping):
        raise InputError("image_config_invalid", "The image config is not an object with the key config.", _REMEDY)
    if image_config.get("os", "linux") not in ("linux", ""):
        raise InputError(
            "image_platform",
            f"The image is for {image_config['os']}, not for linux.",
            "Name the image for linux.",
        )
    args = _strings(config, "Entrypoint") + _strings(config, "Cmd")
    if not args:
        raise InputError("image_config_invalid", "The image config has neither Entrypoint nor Cmd.", _REMEDY)
    kinds = ["pid", "ipc", "uts", "mount"]
    kinds += [] if host_network else ["network"]
    kinds += ["cgroup"] if cgroup_namespace else []
    process: dict[str, Any] = {
        "user": _user(_string(config, "User")),
        "args": args,
        "env": _strings(config, "Env") or list(_DEFAULT_ENV),
        "cwd": _string(config, "WorkingDir") or "/",
        "capabilities": _capabilities(),
        "rlimits": [{"type": "RLIMIT_NOFILE", "hard": 1024, "soft": 1024}],
        "noNewPrivileges": True,
    }
    if terminal:
        process["terminal"] = True
    return {
        "ociVersion": "1.0.2",
        "process": process,
        "root": {"path": "rootfs"},
        "mounts": [
            {"destination": destination, "type": kind, "source": source, "options": options.split()}
            for destination, kind, source, options in _MOUNTS
        ],
        "linux": {
            "cgroupsPath": f"/gpuops-restore/{container_id}",
            "resources": {"devices": _device_rules()},
            "namespaces": [{"type": kind} for kind in kinds],
            "maskedPaths": list(_MASKED),
            "readonlyPaths": list(_READONLY),
        },
    }
