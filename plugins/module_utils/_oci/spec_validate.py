# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The shape of an OCI runtime spec from outside, before anything relies on it.

Shapes as in the OCI runtime specification 1.3 (specs-go/config.go). Who runs the spec reads it with Go's encoding/json,
which takes ``Hooks`` for ``hooks``; whatever Go and this collection could understand differently is refused.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .._core import strict_json
from .._core.errors import InputError
from .._core.strict_json import StrictJsonError

NAMESPACES = ("pid", "network", "ipc", "uts", "mount", "user", "cgroup", "time")

_REMEDY = "Give the container's original OCI spec as metadata, as containerd keeps it."


class _MapOf:
    """An object whose keys are free."""

    def __init__(self, shape: Any) -> None:
        self.shape = shape


# A shape is a type, a list with the shape of its items, a dict with those of a struct's fields, or a _MapOf.
_IDS = [{"containerID": int, "hostID": int, "size": int}]
_RULES = [{"allow": bool, "type": str, "major": int, "minor": int, "access": str}]
_THROTTLES = [{"major": int, "minor": int, "rate": int}]
_HOOKS = [{"path": str, "args": [str], "env": [str], "timeout": int}]
_RESOURCES = {
    "devices": _RULES,
    "memory": {
        "limit": int,
        "reservation": int,
        "swap": int,
        "kernel": int,
        "kernelTCP": int,
        "swappiness": int,
        "disableOOMKiller": bool,
        "useHierarchy": bool,
        "checkBeforeUpdate": bool,
    },
    "cpu": {
        "shares": int,
        "quota": int,
        "burst": int,
        "period": int,
        "realtimeRuntime": int,
        "realtimePeriod": int,
        "cpus": str,
        "mems": str,
        "idle": int,
    },
    "pids": {"limit": int},
    "blockIO": {
        "weight": int,
        "leafWeight": int,
        "weightDevice": [{"major": int, "minor": int, "weight": int, "leafWeight": int}],
        "throttleReadBpsDevice": _THROTTLES,
        "throttleWriteBpsDevice": _THROTTLES,
        "throttleReadIOPSDevice": _THROTTLES,
        "throttleWriteIOPSDevice": _THROTTLES,
    },
    "hugepageLimits": [{"pageSize": str, "limit": int}],
    "network": {"classID": int, "priorities": [{"name": str, "priority": int}]},
    "rdma": _MapOf({"hcaHandles": int, "hcaObjects": int}),
    "unified": _MapOf(str),
}
_SECCOMP = {
    "defaultAction": str,
    "defaultErrnoRet": int,
    "architectures": [str],
    "flags": [str],
    "listenerPath": str,
    "listenerMetadata": str,
    "syscalls": [
        {
            "names": [str],
            "action": str,
            "errnoRet": int,
            "args": [{"index": int, "value": int, "valueTwo": int, "op": str}],
        }
    ],
}
_LINUX = {
    "uidMappings": _IDS,
    "gidMappings": _IDS,
    "sysctl": _MapOf(str),
    "resources": _RESOURCES,
    "cgroupsPath": str,
    "namespaces": [{"type": str, "path": str}],
    "devices": [
        {"path": str, "type": str, "major": int, "minor": int, "fileMode": int, "uid": int, "gid": int},
    ],
    "netDevices": _MapOf({"name": str}),
    "seccomp": _SECCOMP,
    "rootfsPropagation": str,
    "maskedPaths": [str],
    "readonlyPaths": [str],
    "mountLabel": str,
    "intelRdt": {
        "closID": str,
        "schemata": [str],
        "l3CacheSchema": str,
        "memBwSchema": str,
        "enableCMT": bool,
        "enableMBM": bool,
        "enableMonitoring": bool,
    },
    "memoryPolicy": {"mode": str, "nodes": str, "flags": [str]},
    "personality": {"domain": str, "flags": [str]},
    "timeOffsets": _MapOf({"secs": int, "nanosecs": int}),
}
_PROCESS = {
    "terminal": bool,
    "consoleSize": {"height": int, "width": int},
    "user": {"uid": int, "gid": int, "umask": int, "additionalGids": [int], "username": str},
    "args": [str],
    "commandLine": str,
    "env": [str],
    "cwd": str,
    "capabilities": {kind: [str] for kind in ("bounding", "effective", "inheritable", "permitted", "ambient")},
    "rlimits": [{"type": str, "hard": int, "soft": int}],
    "noNewPrivileges": bool,
    "apparmorProfile": str,
    "oomScoreAdj": int,
    "scheduler": {
        "policy": str,
        "nice": int,
        "priority": int,
        "flags": [str],
        "runtime": int,
        "deadline": int,
        "period": int,
    },
    "selinuxLabel": str,
    "ioPriority": {"class": str, "priority": int},
    "execCPUAffinity": {"initial": str, "final": str},
}
_SPEC = {
    "ociVersion": str,
    "process": _PROCESS,
    "root": {"path": str, "readonly": bool},
    "hostname": str,
    "domainname": str,
    "mounts": [
        {
            "destination": str,
            "type": str,
            "source": str,
            "options": [str],
            "uidMappings": _IDS,
            "gidMappings": _IDS,
        }
    ],
    "hooks": dict.fromkeys(
        ("prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"), _HOOKS
    ),
    "annotations": _MapOf(str),
    "linux": _LINUX,
    # Of other systems, and not looked into: runc does not either.
    **dict.fromkeys(("solaris", "windows", "vm", "zos", "freebsd"), None),
}
_NAMES = {dict: "an object", list: "a list", str: "a string", int: "a number", bool: "true or false"}


def invalid(what: str) -> InputError:
    """The error for a spec that is not one."""
    return InputError("spec_invalid", f"The OCI spec is not usable: {what}.", _REMEDY)


def _require_type(value: Any, kind: type, name: str) -> None:
    """One value of one JSON type; bool is no number here."""
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise invalid(f"{name} is not {_NAMES[kind]}")
    if isinstance(value, str):
        _require_text(value, name)


def _require_text(text: str, name: str) -> None:
    """No NUL, which ends a text for the kernel, and no half of a surrogate pair, which no text in UTF-8 has."""
    if "\0" in text or any("\ud800" <= char <= "\udfff" for char in text):
        raise invalid(f"{name} has a character that no path, name or value can have ({text[:80]!r})")


def _require_shape(value: Any, shape: Any, name: str) -> None:
    """The value and all below it, null being no value. The depth is that of the shape."""
    if value is None or shape is None:
        return
    if isinstance(shape, type):
        _require_type(value, shape, name)
    elif isinstance(shape, list):
        _require_type(value, list, name)
        for position, item in enumerate(value):
            if item is None:
                raise invalid(f"{name}[{position}] is null")
            _require_shape(item, shape[0], f"{name}[{position}]")
    else:
        _require_type(value, dict, name)
        _require_object(value, shape, name)


def _require_object(value: Mapping[str, Any], shape: Any, name: str) -> None:
    fields = {} if isinstance(shape, _MapOf) else shape
    if fields:
        try:
            strict_json.require_spelling(value, fields, name or "it")
        except StrictJsonError as error:
            raise invalid(str(error)) from error
    for key, item in value.items():
        where = f"{name}.{key}" if name else key
        _require_text(key, f"the key {key[:80]!r} of {name or 'it'}")
        if isinstance(shape, _MapOf):
            if item is None:
                raise invalid(f"{where} is null")
            _require_shape(item, shape.shape, where)
        else:
            _require_shape(item, fields.get(key), where)


def _require_filled(parent: Mapping[str, Any], key: str, name: str, fields: tuple[str, ...]) -> list[dict[str, Any]]:
    """A list of objects that each have these strings, not empty."""
    found: list[dict[str, Any]] = parent.get(key) or []
    for position, item in enumerate(found):
        for field in fields:
            _require_type(item.get(field), str, f"{name}[{position}].{field}")
            if not item[field]:
                raise invalid(f"{name}[{position}].{field} is empty")
    return found


def check(spec: Any) -> None:
    """Raises InputError ``spec_invalid`` unless ``spec`` is a Linux spec that means the same to Go and to us."""
    if not isinstance(spec, Mapping):
        raise invalid("it is not an object")
    _require_object(spec, _SPEC, "")
    for key, kind in (("ociVersion", str), ("process", dict), ("root", dict), ("linux", dict)):
        if key not in spec:
            raise invalid(f"it lacks {key}")
        _require_type(spec[key], kind, key)
    _require_type(spec["root"].get("path"), str, "root.path")
    _require_filled(spec, "mounts", "mounts", ("destination",))
    hooks = spec.get("hooks") or {}
    for stage in hooks:
        _require_shape(hooks[stage], _HOOKS, f"hooks.{stage}")
        _require_filled(hooks, stage, f"hooks.{stage}", ("path",))
    seen = set()
    for entry in _require_filled(spec["linux"], "namespaces", "linux.namespaces", ("type",)):
        if entry["type"] not in NAMESPACES:
            raise invalid(f"there is no namespace of type {entry['type']!r}")
        if entry["type"] in seen:
            raise invalid(f"the {entry['type']} namespace is there twice")
        seen.add(entry["type"])
    _require_filled(spec["linux"], "devices", "linux.devices", ("path", "type"))


def is_bind(mount: Mapping[str, Any]) -> bool:
    """Whether a mount of a spec is a bind mount, by its type or by its options, as runc decides it."""
    options = mount.get("options") or ()
    return mount.get("type") == "bind" or "bind" in options or "rbind" in options


def device_places(spec: Mapping[str, Any]) -> set[str]:
    """Where runc makes devices, in a user namespace by mounts, and tells CRIU of them (specconv, AllowedDevices)."""
    own = {str(device.get("path") or "") for device in (spec.get("linux") or {}).get("devices") or ()}
    return own | {f"/dev/{name}" for name in ("null", "zero", "full", "random", "urandom", "tty")}
