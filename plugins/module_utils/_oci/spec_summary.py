# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Ways to show an OCI runtime spec: in brief, and without its secrets."""

from __future__ import annotations

import copy
import re
from collections.abc import Mapping
from typing import Any

_MASK = "***"
_PUBLIC_ENV = frozenset(("PATH", "HOSTNAME", "TERM", "HOME", "LANG"))
_SECRET = r"(?:pass(?:wd|word|phrase)?|secret|token|credential|auth|(?:api|access|private)[_.-]?key)s?"
_SECRET_NAME = re.compile(_SECRET, re.IGNORECASE)
# NAME=value, --name=value, "name: value" anywhere in an argument, for names that speak of secrets.
_ASSIGNMENT = re.compile(rf"([\w.-]*{_SECRET}[\w.-]*[\"']?\s*[=:]\s*)(\"[^\"]*\"|'[^']*'|\S+)", re.IGNORECASE)
_OPTION = re.compile(rf"--?[\w.-]*{_SECRET}[\w.-]*\Z", re.IGNORECASE)
_OPTION_INSIDE = re.compile(rf"((?:^|\s)--?[\w.-]*{_SECRET}[\w.-]*\s+)(?!-)(\S+)", re.IGNORECASE)
_BEARER = re.compile(r"(\b(?:bearer|basic)\s+)([^\s\"']+)", re.IGNORECASE)
_URL_USER = re.compile(r"(\b[a-z][a-z0-9+.-]*://)[^/\s@]+@", re.IGNORECASE)


def _text(value: str) -> str:
    """A line of text with what looks like a secret masked."""
    value = _URL_USER.sub(rf"\1{_MASK}@", value)
    value = _BEARER.sub(rf"\1{_MASK}", value)
    value = _ASSIGNMENT.sub(rf"\1{_MASK}", value)
    return _OPTION_INSIDE.sub(rf"\1{_MASK}", value)


def _args(args: list[str]) -> list[str]:
    """Arguments; the one after an option that is named like a secret is masked whole."""
    shown: list[str] = []
    for position, item in enumerate(args):
        after_option = position > 0 and _OPTION.match(args[position - 1]) and not item.startswith("-")
        shown.append(_MASK if after_option else _text(item))
    return shown


def _env(env: list[str]) -> list[str]:
    """Environment: names stay, values only of variables that never carry a secret."""
    return [item if item.partition("=")[0] in _PUBLIC_ENV else item.partition("=")[0] + "=" + _MASK for item in env]


def _program(program: dict[str, Any]) -> None:
    """Masks ``args`` and ``env`` of a process or a hook, in place."""
    if program.get("args"):
        program["args"] = _args(program["args"])
    if program.get("env"):
        program["env"] = _env(program["env"])
    program.pop("commandLine", None)


def redacted(spec: Mapping[str, Any]) -> dict[str, Any]:
    """A copy for diffs and debug bundles: environment values, and what looks like a secret elsewhere, are
    ``***``.

    The spec has passed ``_oci.spec_validate.check``.
    """
    shown = copy.deepcopy(dict(spec))
    _program(shown["process"])
    for hooks in (shown.get("hooks") or {}).values():
        for hook in hooks or ():
            _program(hook)
    annotations = shown.get("annotations")
    if annotations:
        shown["annotations"] = {
            name: _MASK if _SECRET_NAME.search(name) else _text(value) for name, value in annotations.items()
        }
    return shown


def summary(spec: Mapping[str, Any]) -> dict[str, Any]:
    """What an operator looks at first; annotations by name only, arguments without secrets.

    The spec has passed ``_oci.spec_validate.check``.
    """
    process, linux = spec["process"], spec["linux"]
    return {
        "namespaces": [
            {"type": entry["type"], "path": entry.get("path", "")} for entry in linux.get("namespaces") or ()
        ],
        "mounts": [
            {
                "destination": mount["destination"],
                "source": mount.get("source", ""),
                "type": mount.get("type", ""),
                "options": list(mount.get("options") or ()),
            }
            for mount in spec.get("mounts") or ()
        ],
        "cgroup_path": linux.get("cgroupsPath", ""),
        "terminal": bool(process.get("terminal", False)),
        "annotations": sorted(spec.get("annotations") or ()),
        "hooks": any((spec.get("hooks") or {}).values()),
        "args": _args(list(process.get("args") or ())),
        "cwd": process.get("cwd", ""),
        "user": dict(process.get("user") or {}),
    }
