# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The shape of an OCI runtime spec from outside, before anything relies on it.

Shapes as in the OCI runtime specification 1.x (config.md, config-linux.md).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .._core.errors import InputError

NAMESPACES = ("pid", "network", "ipc", "uts", "mount", "user", "cgroup", "time")

_REMEDY = "Give the container's original OCI spec as metadata, as containerd keeps it."


def invalid(what: str) -> InputError:
    """The error for a spec that is not one."""
    return InputError("spec_invalid", f"The OCI spec is not usable: {what}.", _REMEDY)


def _require_type(value: Any, kind: type, name: str) -> None:
    """One value of one JSON type; bool is no number here."""
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        wanted = {dict: "an object", list: "a list", str: "a string", int: "a number", bool: "true or false"}[kind]
        raise invalid(f"{name} is not {wanted}")


def _strings(parent: Mapping[str, Any], key: str, name: str) -> None:
    """An optional list of strings."""
    value = parent.get(key)
    if value is None:
        return
    _require_type(value, list, name)
    for position, item in enumerate(value):
        _require_type(item, str, f"{name}[{position}]")


def _objects(parent: Mapping[str, Any], key: str, name: str, required: tuple[str, ...]) -> list[dict[str, Any]]:
    """An optional list of objects that each have the ``required`` strings, not empty."""
    value = parent.get(key)
    if value is None:
        return []
    _require_type(value, list, name)
    for position, item in enumerate(value):
        _require_type(item, dict, f"{name}[{position}]")
        for field in required:
            _require_type(item.get(field), str, f"{name}[{position}].{field}")
            if not item[field]:
                raise invalid(f"{name}[{position}].{field} is empty")
    return list(value)


def _optional(parent: Mapping[str, Any], key: str, kind: type, name: str) -> Any:
    """An optional value of one type."""
    value = parent.get(key)
    if value is not None:
        _require_type(value, kind, name)
    return value


def _process(process: Mapping[str, Any]) -> None:
    """``process``: what we read, show or change of it."""
    _strings(process, "args", "process.args")
    _strings(process, "env", "process.env")
    _optional(process, "cwd", str, "process.cwd")
    _optional(process, "terminal", bool, "process.terminal")
    _optional(process, "user", dict, "process.user")
    _optional(process, "oomScoreAdj", int, "process.oomScoreAdj")


def _linux(linux: Mapping[str, Any]) -> None:
    """``linux``: what we read, show or change of it."""
    seen = set()
    for entry in _objects(linux, "namespaces", "linux.namespaces", ("type",)):
        _optional(entry, "path", str, f"the path of the {entry['type']} namespace")
        if entry["type"] not in NAMESPACES:
            raise invalid(f"there is no namespace of type {entry['type']!r}")
        if entry["type"] in seen:
            raise invalid(f"the {entry['type']} namespace is there twice")
        seen.add(entry["type"])
    for device in _objects(linux, "devices", "linux.devices", ("path", "type")):
        for number in ("major", "minor"):
            _optional(device, number, int, f"{number} of the device {device['path']}")
    _optional(linux, "cgroupsPath", str, "linux.cgroupsPath")
    _optional(linux, "mountLabel", str, "linux.mountLabel")
    _optional(linux, "resources", dict, "linux.resources")
    _objects(linux, "uidMappings", "linux.uidMappings", ())


def check(spec: Any) -> None:
    """Raises InputError ``spec_invalid`` unless ``spec`` is a Linux runtime spec with what matters here."""
    if not isinstance(spec, Mapping):
        raise invalid("it is not an object")
    for key, kind in (("ociVersion", str), ("process", dict), ("root", dict), ("linux", dict)):
        if key not in spec:
            raise invalid(f"it lacks {key}")
        _require_type(spec[key], kind, key)
    _require_type(spec["root"].get("path"), str, "root.path")
    _process(spec["process"])
    for position, mount in enumerate(_objects(spec, "mounts", "mounts", ("destination",))):
        for field in ("source", "type"):
            _optional(mount, field, str, f"mounts[{position}].{field}")
        _strings(mount, "options", f"mounts[{position}].options")
    for name, value in (_optional(spec, "annotations", dict, "annotations") or {}).items():
        _require_type(value, str, f"the annotation {name}")
    hooks = _optional(spec, "hooks", dict, "hooks") or {}
    for stage in hooks:
        for position, hook in enumerate(_objects(hooks, stage, f"hooks.{stage}", ("path",))):
            _strings(hook, "args", f"hooks.{stage}[{position}].args")
            _strings(hook, "env", f"hooks.{stage}[{position}].env")
    _linux(spec["linux"])


def is_bind(mount: Mapping[str, Any]) -> bool:
    """Whether a mount of a spec is a bind mount, by its type or by its options, as runc decides it."""
    options = mount.get("options") or ()
    return mount.get("type") == "bind" or "bind" in options or "rbind" in options
