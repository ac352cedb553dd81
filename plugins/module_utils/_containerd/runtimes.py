# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Which runtime runs a restored container: one of the operator's list, never whatever a checkpoint names.

The name of a runtime and two of its options are programs and directories of the host: containerd executes a name that
is a path as the shim, the shim executes ``binary_name``, and runc keeps, and removes, what lies below ``root``. Facts:
containerd's core/runtime/v2 (resolveRuntimePath) and runc's options (api/types/runc/options/oci.proto).
"""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .._core.errors import InputError
from . import messages
from .client import Client
from .daemon import DEFAULT_RUNTIME, RUNC, systemd_runs

_RUNC_OPTIONS = "containerd.runc.v1.Options"
#: What is taken over of recorded options, for it names nothing of the host: the cgroup driver, the session keyring, and
#: to whom the pipes of standard input and output belong.
_HARMLESS = ("systemd_cgroup", "no_new_keyring", "io_uid", "io_gid")
#: The CRI plugin's table of runtimes, in containerd 1.x and 2.x.
_CRI_TABLES = ("io.containerd.grpc.v1.cri", "io.containerd.cri.v1.runtime")
_PART = re.compile(r"\"[^\"]*\"|'[^']*'|[^.\s]+")
_LINE = re.compile(r"\s*([A-Za-z_]+)\s*=\s*(\"[^\"]*\"|'[^']*'|true|false)\s*\Z")


@dataclass(frozen=True)
class Runtime:
    """A runtime that may run a container."""

    #: As containerd knows it: ``io.containerd.runc.v2``, or the path of a shim.
    name: str
    #: The program that the shim runs, by name or path; empty for runc.
    binary_name: str = ""
    #: runc's directory for its states; empty for the shim's own.
    root: str = ""
    #: For nodes whose root file system is a ramdisk: no pivot_root, which a process with many rights can leave.
    no_pivot_root: bool = False

    @classmethod
    def from_options(cls, given: Sequence[Mapping[str, Any]] | None) -> tuple[Runtime, ...]:
        """The list of a module's option ``runtimes``."""
        return tuple(
            cls(
                entry["name"],
                _plain(entry.get("binary_name") or ""),
                entry.get("root") or "",
                bool(entry.get("no_pivot_root")),
            )
            for entry in given or ()
        )

    def __str__(self) -> str:
        return f"{self.name} with {self.binary_name}" if self.binary_name else self.name


@dataclass(frozen=True)
class Chosen:
    """The runtime for a container."""

    name: str
    #: A google.protobuf.Any or None.
    options: Any = None
    #: What is otherwise than the checkpoint has it, in sentences.
    warnings: tuple[str, ...] = ()

    @property
    def program(self) -> str:
        """What the shim calls."""
        return program(self.name, self.options)


def choose(client: Client, allowed: Sequence[Runtime], name: str, options: Any) -> Chosen:
    """The runtime of the list for a container whose checkpoint recorded ``name`` and ``options`` (an Any or None).

    ``allowed`` empty: the node's default runtime, as containerd's configuration has it, and io.containerd.runc.v2. Of
    entries with the recorded name, the one with the recorded program is taken, else the first. Raises InputError
    ``runtime_refused``.
    """
    wanted = recorded(name, options)
    entries = list(allowed or [Runtime(DEFAULT_RUNTIME)])
    if not allowed and wanted not in entries:
        # Only now, for it takes a moment to ask.
        entries += node_default(client)
    same_name = [entry for entry in entries if entry.name == name]
    if not same_name:
        raise InputError(
            "runtime_refused",
            f"The checkpoint names the runtime {name[:200]!r}, and only {', '.join(map(str, entries))} may run "
            "containers on this node.",
            f"If this is a runtime of yours, add it to runtimes (restore_node_runtimes), as {{name: {name[:200]}}}.",
            details={"runtime": name[:200], "allowed": [str(entry) for entry in entries]},
        )
    entry = next((one for one in same_name if one == wanted), same_name[0])
    warnings = [
        f"The checkpoint has {what} {was[:200]!r} for the runtime, which runtimes does not list: "
        f"{now or usual} is used instead."
        for what, was, now, usual in (
            ("the program", wanted.binary_name, entry.binary_name, "runc"),
            ("the state directory", wanted.root, entry.root, "the usual one"),
        )
        if was not in ("", now)
    ]
    if wanted.no_pivot_root and not entry.no_pivot_root:
        warnings.append("The checkpoint has no_pivot_root, which runtimes does not allow: pivot_root is used.")
    made = _options(entry, options)
    before, after = _runc(options), _runc(made)
    if before is not None and after is not None and before.systemd_cgroup and not after.systemd_cgroup:
        warnings.append(
            "The checkpoint asks for systemd's cgroup driver, and systemd does not run on this node: cgroupfs is used."
        )
    return Chosen(name, made, tuple(warnings))


def program(name: str, options: Any) -> str:
    """What the shim of a runtime calls, by its options (an Any or None)."""
    return recorded(name, options).binary_name or RUNC


def recorded(name: str, options: Any) -> Runtime:
    """What a record or a checkpoint says of its runtime."""
    found = _runc(options)
    return Runtime(name, _plain(found.binary_name), found.root, found.no_pivot_root) if found else Runtime(name)


def _plain(binary_name: str) -> str:
    """``runc`` alone is what the shim takes by itself."""
    return "" if binary_name == "runc" else binary_name


def _runc(options: Any) -> Any:
    """The options as runc's message; None where they are another runtime's, or none."""
    if options is None or options.type_url.rsplit("/", 1)[-1] != _RUNC_OPTIONS:
        return None
    found = messages.message(_RUNC_OPTIONS)
    found.ParseFromString(options.value)
    return found


def _options(entry: Runtime, options: Any) -> Any:
    """A message of our own, field by field: fields that are not known here do not come along."""
    before = _runc(options)
    new = messages.message(
        _RUNC_OPTIONS, binary_name=entry.binary_name, root=entry.root, no_pivot_root=entry.no_pivot_root
    )
    if before is not None:
        for field in _HARMLESS:
            setattr(new, field, getattr(before, field))
        new.systemd_cgroup = before.systemd_cgroup and systemd_runs()
    data = new.SerializeToString()
    return messages.pack(_RUNC_OPTIONS, data) if data or before is not None else None


def node_default(client: Client) -> list[Runtime]:
    """The default runtime of the node's CRI plugin: the entry that names its shim by type, and by path where it does.

    Empty where containerd's configuration cannot be asked.
    """
    tables = dict(_tables(_configuration(client)))
    for plugin in _CRI_TABLES:
        base = ("plugins", plugin, "containerd")
        default = tables.get(base, {}).get("default_runtime_name", "")
        found = tables.get((*base, "runtimes", default), {})
        options = tables.get((*base, "runtimes", default, "options"), {})
        names = [found.get(key, "") for key in ("runtime_type", "runtime_path")]
        entries = [
            Runtime(
                name,
                _plain(options.get("BinaryName", "")),
                options.get("Root", ""),
                options.get("NoPivotRoot", "") == "true",
            )
            for name in names
            if name
        ]
        if entries:
            return entries
    return []


def _configuration(client: Client) -> str:
    """What the daemon's own program says of its configuration file, with what that imports."""
    process = f"/proc/{client.peer_pid()}"
    try:
        if os.path.basename(os.readlink(f"{process}/exe").partition(" (deleted)")[0]) != "containerd":
            return ""
        with open(f"{process}/cmdline", "rb") as stream:
            words = os.fsdecode(stream.read()).split("\0")
        # A step knows no AnsibleModule whose run_command it could use.
        done = subprocess.run(  # pylint: disable=ansible-bad-function
            [f"{process}/exe", *_config_option(words), "config", "dump"],
            capture_output=True,
            text=True,
            errors="replace",
            timeout=30,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout if done.returncode == 0 else ""


def _config_option(words: Sequence[str]) -> list[str]:
    for position, word in enumerate(words):
        if word in ("-c", "--config", "-config"):
            return ["--config", *words[position + 1 : position + 2]]
        if word.startswith(("--config=", "-c=", "-config=")):
            return ["--config", word.partition("=")[2]]
    return []


def _tables(text: str) -> Iterator[tuple[tuple[str, ...], dict[str, str]]]:
    """The tables of a TOML file as containerd writes it, of the values the strings and switches."""
    table: dict[str, str] = {}
    for line in text.splitlines():
        stripped = line.strip()
        if stripped.startswith("[") and stripped.endswith("]") and "=" not in stripped:
            table = {}
            yield tuple(part.strip("\"'") for part in _PART.findall(stripped[1:-1])), table
            continue
        found = _LINE.match(line)
        if found:
            table[found.group(1)] = found.group(2).strip("\"'")
