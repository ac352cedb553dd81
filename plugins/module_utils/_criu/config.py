# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""CRIU's configuration file, the only way for options to reach a restore through containerd, and many a dump.

Facts from CRIU 4.1's criu/config.c and from runs of it:

* One option a line, ``#`` starts a comment even within quotes. A line "name value" becomes two arguments for
  getopt_long, one "name=value" becomes one. Options whose argument is optional (``verbosity``,
  ``manage-cgroups``, ``ext-unix-sk``, ``cpu-cap``) take it only in the second form: ``manage-cgroups ignore``
  is read without complaint and means ``manage-cgroups=soft``. So everything here is written with ``=``.
* Quoted values are read past their end in places; so values that would need quotes are refused.
* getopt_long takes any unambiguous beginning of a name; so a beginning of a refused name is refused.
"""

from __future__ import annotations

import contextlib
import os
import re
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from .._core.errors import InputError, NodeError, disk_full, is_full

#: Options that a restore needs where the dump had them, so that checkpoints record them.
RECORDED = ("tcp-established", "file-locks", "ext-unix-sk")
#: And what a restore needs of which containerd's own options know nothing: sockets that have ended, and no connection.
CLOSE_RECORDED = "tcp-close"
#: As the checkpoint was taken.
AUTO = "auto"
ON, OFF = "true", "false"
TCP_NONE = "none"
TCP_ESTABLISHED = "established"
TCP_CLOSE = "close"
MANAGE_CGROUPS = ("ignore", "none", "props", "soft", "full", "strict")

_NAME = re.compile(r"[a-z][a-z0-9-]*\Z")
_VALUE = re.compile(r"[^\s\"'\\#\x00-\x1f\x7f]+\Z")

# They have a parameter of their own here, at restores and at captures.
_OWN_DUMP = (
    "verbosity",
    "log-file",
    "tcp-established",
    "tcp-close",
    "file-locks",
    "ext-unix-sk",
    "shell-job",
    "link-remap",
    "ghost-limit",
    "skip-in-flight",
    "empty-ns",
    "manage-cgroups",
)
_OWN = (
    "verbosity",
    "log-file",
    "tcp-established",
    "tcp-close",
    "file-locks",
    "ext-unix-sk",
    "manage-cgroups",
)
# They would redirect images, work files or the root, run or load code, open the network, hand over file
# descriptors, change which process tree or namespace is meant, or what runc waits for.
_REFUSED = (
    "action-script", "address", "cgroup-root", "cgroup-yard", "close", "config", "daemon", "exec-cmd",
    "feature", "freeze-cgroup", "help", "images-dir", "inherit-fd", "join-ns", "lazy-pages",
    "leave-running", "leave-stopped", "libdir", "no-default-config", "page-server", "pidfile", "port",
    "prev-images-dir", "ps-socket", "restore-detached", "restore-sibling", "root", "status-fd", "stream",
    "tls", "tls-cacert", "tls-cacrl", "tls-cert", "tls-key", "tls-no-cn-verify", "tree", "unprivileged",
    "version", "work-dir",
)  # fmt: skip


@dataclass(frozen=True)
class CriuOptions:
    """What a restore may be asked of CRIU."""

    #: AUTO or one of TCP_*.
    tcp: str = AUTO
    #: AUTO, ON or OFF.
    file_locks: str = AUTO
    ext_unix_sk: str = AUTO
    manage_cgroups: str = "ignore"
    #: Lines ``name``, ``name value`` or ``name=value``.
    extra: Sequence[str] = ()


def taken_over(options: CriuOptions, recorded: Iterable[str]) -> CriuOptions:
    """What a restore does, told by its options and what the dump had."""
    had = set(recorded)
    tcp, locks, sockets = (name in had for name in RECORDED)
    as_dumped = TCP_ESTABLISHED if tcp else TCP_CLOSE if CLOSE_RECORDED in had else TCP_NONE
    return replace(
        options,
        tcp=as_dumped if options.tcp == AUTO else options.tcp,
        file_locks=(ON if locks else OFF) if options.file_locks == AUTO else options.file_locks,
        ext_unix_sk=(ON if sockets else OFF) if options.ext_unix_sk == AUTO else options.ext_unix_sk,
    )


def dump_lines(extra: Iterable[str]) -> list[str]:
    """Further lines for a dump, in the form that CRIU reads as they are meant. Raises InputError."""
    return [_extra_line(line, _OWN_DUMP) for line in extra]


def _refused(line: str, why: str, remedy: str) -> InputError:
    """One line of ``extra`` and why it does not go into the file."""
    return InputError("criu_option_refused", f"The CRIU option {line!r} is refused: {why}.", remedy)


def _extra_line(line: str, parameters: Sequence[str]) -> str:
    """One line of ``extra`` in the form that CRIU reads as it is meant."""
    plain = line.replace("\t", " ").strip(" ")
    name, equals, value = plain.partition("=")
    if not equals or " " in name:
        name, equals, value = plain.partition(" ")
    value = value.strip(" ")
    if not _NAME.match(name):
        raise _refused(line, "it does not begin with an option's name", "Give one option a line, without its dashes.")
    if (equals or value) and not _VALUE.match(value):
        raise _refused(
            line,
            "its value is empty or has white space, quotes, a backslash or #, which CRIU's configuration file mangles",
            "Give one option a line with a plain value.",
        )
    bare = name[len("no-") :] if name.startswith("no-") else name
    if any(own.startswith(bare) for own in parameters):
        raise _refused(line, "it has a parameter of its own", "Use the parameter of criu that is named like it.")
    if any(refused.startswith((name, bare)) for refused in _REFUSED):
        raise _refused(
            line,
            "it would redirect files, run programs or change what is restored",
            "Leave it out: runc and this collection set it where it is needed.",
        )
    return f"{name}={value}" if value else name


def render(options: CriuOptions, log_file: str | None) -> str:
    """The text of the configuration file; ``log_file`` is an absolute path (CRIU truncates it) or None.

    Raises InputError ``criu_option_invalid`` (a choice that there is not, an unusable log path) or
    ``criu_option_refused``.
    """
    if options.tcp not in (AUTO, TCP_NONE, TCP_ESTABLISHED, TCP_CLOSE):
        raise InputError(
            "criu_option_invalid",
            f"There is no way {options.tcp!r} to treat TCP connections.",
            "Use auto, established, close or none.",
        )
    if options.manage_cgroups not in MANAGE_CGROUPS:
        raise InputError(
            "criu_option_invalid",
            f"CRIU has no cgroup mode {options.manage_cgroups!r}.",
            f"Use one of {', '.join(MANAGE_CGROUPS)}.",
        )
    lines = ["verbosity=4", f"manage-cgroups={options.manage_cgroups}"]
    if log_file is not None:
        if not os.path.isabs(log_file) or not _VALUE.match(log_file):
            raise InputError(
                "criu_option_invalid",
                f"The log file {log_file!r} is not an absolute path without white space, quotes, backslash and #.",
                "Choose another directory: CRIU's configuration file cannot carry this path.",
            )
        lines.insert(0, f"log-file={log_file}")
    if options.tcp in (TCP_ESTABLISHED, TCP_CLOSE):
        lines.append(f"tcp-{options.tcp}")
    if options.file_locks == ON:
        lines.append("file-locks")
    if options.ext_unix_sk == ON:
        lines.append("ext-unix-sk")
    lines.extend(_extra_line(line, _OWN) for line in options.extra)
    return "\n".join(lines) + "\n"


def action_script(path: str) -> str:
    """The line that has CRIU run the program at ``path``, which is of our own making, at each of its steps."""
    return f"action-script={path}\n"


def external_mounts(places: Mapping[str, str]) -> list[str]:
    """Lines for a restore: the sources of mounts by their names in the dump, which are their places.

    Raises InputError ``criu_option_invalid``.
    """
    for path in (text for pair in places.items() for text in pair):
        if not _VALUE.match(path) or "]" in path:
            raise InputError(
                "criu_option_invalid",
                f"CRIU's configuration file cannot carry the path {path!r} of a mount.",
                "Give the mount another source in mounts, without white space, quotes, backslash, # and ].",
            )
    return [f"external=mnt[{place}]:{source}" for place, source in sorted(places.items())]


def log_file(text: str) -> str:
    """The log that a configuration file names, for dumps too; empty where it names none."""
    lines = (line.replace("=", " ", 1).split() for line in text.splitlines())
    return next((words[1] for words in lines if words[:1] == ["log-file"] and len(words) == 2), "")


def write(path: str, text: str) -> bool:
    """Write ``text`` to ``path``, whole or not at all; true if something was changed.

    The file has mode 0600 and its directory, made if need be, 0700. A symbolic link or anything else that is
    no file at ``path`` is replaced, never followed. Raises NodeError ``criu_config_unwritable``.
    """
    parent = os.path.dirname(path)
    try:
        os.makedirs(parent, mode=0o700, exist_ok=True)
        changed = os.stat(parent).st_mode & 0o777 != 0o700
        if changed:
            os.chmod(parent, 0o700)
        if not _same(path, text):
            _replace(path, parent, text)
            changed = True
    except OSError as error:
        if is_full(error):
            raise disk_full(f"CRIU's configuration file {path}", error) from error
        raise NodeError(
            "criu_config_unwritable",
            f"CRIU's configuration file {path} cannot be written: {error.strerror}.",
            "Correct the rights of its directory; CRIU silently ignores a missing file.",
        ) from error
    return changed


def _same(path: str, text: str) -> bool:
    """Whether a plain file with mode 0600 and just this text is there."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return False
    with open(descriptor, "rb") as stream:
        wanted = text.encode()
        return os.fstat(descriptor).st_mode == 0o100600 and stream.read(len(wanted) + 1) == wanted


def _replace(path: str, parent: str, text: str) -> None:
    """A new file beside it, synced, then renamed over it."""
    descriptor, temporary = tempfile.mkstemp(dir=parent, prefix=".criu-")  # mkstemp's mode is 0600
    try:
        with open(descriptor, "wb") as stream:
            stream.write(text.encode())
            stream.flush()
            os.fsync(descriptor)
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)
        raise
