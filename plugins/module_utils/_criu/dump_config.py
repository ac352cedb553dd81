# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Options of CRIU for one dump, which containerd's checkpoint options do not know.

They reach CRIU through the configuration file that runc names to it: the one of the container's annotation, else
/etc/criu/runc.conf (runc, criu_linux.go). So they are in that file for as long as the dump lasts, as a block that says
whose it is; what a run that was killed has left there goes with the next.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from .._core.errors import NodeError, disk_full, is_full
from .._host import processes
from .._oci import spec_adapt

#: What runc names to CRIU for containers without a configuration of their own.
NODE_CONFIG = "/etc/criu/runc.conf"
#: What there was before the block: neither file nor directory, the directory, or both.
_NOTHING, _DIRECTORY, _FILE = "nothing", "directory", "file"
_BLOCK = re.compile(
    r"^# gpuops-restore begin (?P<pid>\d+) (?P<start>\d+) after (?P<before>nothing|directory|file)\n"
    r"(?:.*\n)*?# gpuops-restore end (?P=pid)\n",
    re.MULTILINE,
)


def config_of(spec: Mapping[str, Any]) -> str:
    """The file that CRIU reads at a dump of a container with this spec; empty where it reads none."""
    return str((spec.get("annotations") or {}).get(spec_adapt.CRIU_CONFIG_ANNOTATION, NODE_CONFIG))


def has(path: str, option: str) -> bool:
    """Whether a configuration file has an option without a value already."""
    text = _read(path) or ""
    return any(line.partition("#")[0].strip() == option for line in _BLOCK.sub("", text).splitlines())


@contextlib.contextmanager
def added(path: str, options: Sequence[str]) -> Iterator[None]:
    """The configuration has these lines too while this is entered. Raises NodeError ``criu_config_unwritable``."""
    pid = os.getpid()
    try:
        with _locked(path):
            text = _read(path)
            rest, before = _without_blocks(text or "", 0)
            if text is None:
                before = _DIRECTORY if os.path.isdir(os.path.dirname(path)) else _NOTHING
            head = f"# gpuops-restore begin {pid} {processes.start_time(pid) or 0} after {before}"
            _write(path, "\n".join([head, *options, f"# gpuops-restore end {pid}"]) + "\n" + rest)
    except OSError as error:
        if is_full(error):
            raise disk_full(f"CRIU's configuration file {path}", error) from error
        raise NodeError(
            "criu_config_unwritable",
            f"CRIU's configuration file {path}, which has to have {', '.join(options)} for a dump, cannot be written: "
            f"{error.strerror}.",
            f"Put {', '.join(options)} into that file, or make it writable.",
        ) from error
    try:
        yield
    finally:
        _remove_blocks(path, pid)


def remove_stale(path: str) -> None:
    """Take away what runs that were killed have left in a configuration."""
    if "# gpuops-restore begin" in (_read(path) or ""):
        _remove_blocks(path, 0)


def _remove_blocks(path: str, own: int) -> None:
    """Those of runs that are gone, and that of the process ``own``."""
    # What cannot be taken away now is stale when this process has ended.
    with contextlib.suppress(OSError), _locked(path):
        text = _read(path)
        if text is None:
            return
        rest, before = _without_blocks(text, own)
        if rest or before == _FILE:
            if rest != text:
                _write(path, rest)
            return
        os.unlink(path)
        if before == _NOTHING:
            os.rmdir(os.path.dirname(path))


def _without_blocks(text: str, own: int) -> tuple[str, str]:
    """The text without the blocks of processes that are gone, and of ``own``; and what there was before them."""
    before = _FILE

    def replacement(match: re.Match[str]) -> str:
        nonlocal before
        pid = int(match.group("pid"))
        if pid != own and processes.start_time(pid) == int(match.group("start")):
            return match.group(0)
        if match.group("before") != _FILE:
            before = match.group("before")
        return ""

    return _BLOCK.sub(replacement, text), before


@contextlib.contextmanager
def _locked(path: str) -> Iterator[None]:
    """Nobody else of ours changes the file. What is locked is there whatever they make or remove."""
    directory = os.path.dirname(os.path.dirname(path))
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _read(path: str) -> str | None:
    try:
        with open(path, encoding="utf-8", errors="surrogateescape") as stream:
            return stream.read()
    except FileNotFoundError:
        return None


def _write(path: str, text: str) -> None:
    """Whole or not at all, with the rights that the file has; the file behind a link."""
    path = os.path.realpath(path)
    os.makedirs(os.path.dirname(path), mode=0o755, exist_ok=True)
    try:
        before = os.stat(path)
    except FileNotFoundError:
        before = None
    descriptor, temporary = tempfile.mkstemp(dir=os.path.dirname(path), prefix=".gpuops-restore-")
    try:
        with open(descriptor, "w", encoding="utf-8", errors="surrogateescape") as stream:
            os.fchmod(stream.fileno(), before.st_mode & 0o7777 if before else 0o644)
            if before:
                os.fchown(stream.fileno(), before.st_uid, before.st_gid)
            stream.write(text)
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)
        raise
