# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Options of CRIU for one dump or restore, which containerd's own options do not know.

They reach CRIU through the configuration file that runc names to it: the one of the container's annotation, else
/etc/criu/runc.conf (runc, criu_linux.go). What it says wins over what runc asks for, and the last line over others
(criu/cr-service.c, config.c). So they are at its end for as long as the work lasts, as a block that says whose it is;
what a run that was killed has left there goes with the next.

A container that this collection has restored has a configuration of its own, which would hide the node's from CRIU, and
has options of the restore in it: so the node's is carried over, and at a dump the restore's are put out of force.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .._core import labels, state_dir
from .._core.errors import NodeError
from .._host import processes
from .._oci import spec_adapt

#: What runc names to CRIU for containers without a configuration of their own.
NODE_CONFIG = "/etc/criu/runc.conf"
#: What CRIU reads always, and first.
DEFAULT_CONFIG = "/etc/criu/default.conf"
_NETWORK_LOCK, _IPTABLES = "network-lock", "iptables"
GHOST_LIMIT = "ghost-limit"
#: What there was before the block: neither file nor directory, the directory, both, or both and no newline at the end.
_NOTHING, _DIRECTORY, _FILE, _UNENDED = "nothing", "directory", "file", "unended"
_BLOCK = re.compile(
    r"^# gpuops-restore begin (?P<pid>\d+) (?P<start>\d+) after (?P<before>nothing|directory|file|unended)\n"
    r"(?P<lines>(?:.*\n)*?)# gpuops-restore end (?P=pid)\n",
    re.MULTILINE,
)
#: Before a line that is out of force during a dump.
_HIDDEN = "# gpuops-restore hidden: "
#: What stays in force of a configuration of ours, and is never taken over from the node's: where the log is, and that
#: cgroups are runc's.
_OWN = ("log-file", "verbosity", "manage-cgroups")


@dataclass(frozen=True)
class DumpConfig:
    """The file that CRIU reads when a container is dumped or restored."""

    #: Empty: it reads none.
    path: str
    #: This collection has written it, for a container that it has restored.
    ours: bool

    @property
    def writable(self) -> bool:
        """Whether it is the node's or ours: a spec may name any file."""
        return self.ours or self.path == NODE_CONFIG

    @property
    def shared(self) -> bool:
        """Whether other dumps read it, too."""
        return not self.ours and self.path == NODE_CONFIG

    def has(self, option: str) -> bool:
        """Whether an option is in force at a dump already."""
        return any(_name(line) == option for line in self._lines())

    def value(self, option: str) -> str:
        """The value that an option has at a dump already; empty for none."""
        found = [line.replace("=", " ", 1).split() for line in self._lines() if _name(line) == option]
        return found[-1][1] if found and len(found[-1]) > 1 else ""

    def network_lock(self, extra: Sequence[str] = ()) -> str:
        """How CRIU locks the network at a dump: ``iptables`` unless it is told otherwise."""
        lines = [*_plain(_read(DEFAULT_CONFIG) or ""), *self._lines(), *extra]
        values = [line.replace("=", " ", 1).split()[1:] for line in lines if _name(line) == _NETWORK_LOCK]
        return values[-1][0] if values and values[-1] else _IPTABLES

    @contextlib.contextmanager
    def for_dump(self, options: Sequence[str]) -> Iterator[None]:
        """CRIU has these lines too while this is entered, and of a file of ours nothing that was meant for the restore.

        Raises NodeError ``criu_config_unwritable``.
        """
        lines = [*(_of_node() if self.ours else ()), *options]
        if not lines and not self.ours:
            yield
            return
        with self._added(lines, hide=self.ours):
            yield

    @contextlib.contextmanager
    def for_restore(self, options: Sequence[str] = ()) -> Iterator[None]:
        """CRIU has the node's configuration and these lines too while this is entered, where the file is ours.

        Raises NodeError ``criu_config_unwritable``.
        """
        lines = [line for line in _of_node() if not _is_set(line, _read(self.path) or "")] if self.ours else []
        lines += options if self.ours else ()
        if not lines:
            yield
            return
        with self._added(lines, hide=False):
            yield

    def _lines(self) -> list[str]:
        lines = _plain(_read(self.path) or "") if self.path else []
        if self.ours:
            return [line for line in lines if _name(line) in _OWN] + _of_node()
        return lines

    @contextlib.contextmanager
    def _added(self, lines: Sequence[str], hide: bool) -> Iterator[None]:
        # Of a process that dumps several at once, each thread has a block of its own.
        pid = threading.get_native_id()
        try:
            with _locked(self.path):
                text = _read(self.path)
                rest, before = _without_blocks(text or "", 0)
                if text is None:
                    before = _DIRECTORY if os.path.isdir(os.path.dirname(self.path)) else _NOTHING
                if rest and not rest.endswith("\n"):
                    rest, before = rest + "\n", _UNENDED
                for match in _BLOCK.finditer(rest):
                    # Who goes last leaves what there was before the first.
                    before = match.group("before") if match.group("before") != _FILE else before
                head = f"# gpuops-restore begin {pid} {processes.start_time(pid) or 0} after {before}"
                lines = _as_large_as_others(lines, rest)
                if hide:
                    rest = _hidden(rest)
                _write(self.path, rest + "\n".join([head, *lines, f"# gpuops-restore end {pid}"]) + "\n")
        except OSError as error:
            what = ", ".join(lines) or "none of the restore's options"
            raise NodeError(
                "criu_config_unwritable",
                f"CRIU's configuration file {self.path}, which has to have {what} for a while, cannot be written: "
                f"{error.strerror}.",
                f"Put {what} into that file, or make it writable.",
            ) from error
        try:
            yield
        finally:
            _remove_blocks(self.path, pid)


def config_of(spec: Mapping[str, Any], container_labels: Mapping[str, str]) -> DumpConfig:
    """The file that CRIU reads for a container."""
    path = str((spec.get("annotations") or {}).get(spec_adapt.CRIU_CONFIG_ANNOTATION, NODE_CONFIG))
    ours = labels.OWNER in container_labels and os.path.basename(path) == state_dir.CRIU_CONFIG
    return DumpConfig(path, ours)


def locks_by_iptables(recorded: Sequence[str] | None, config: DumpConfig) -> bool:
    """Whether a restore locks the network by iptables: it does as the dump did, whatever it is told (criu/config.c).

    ``recorded``: what CRIU was told for the dump, None where nobody recorded it, and this node has to serve as a guess.
    """
    if recorded is None:
        return config.network_lock() == _IPTABLES
    return not any(name.startswith(_NETWORK_LOCK + "=") for name in recorded)


def lock_recorded(method: str) -> tuple[str, ...]:
    """What a checkpoint records of how the network was locked."""
    return () if method == _IPTABLES else (f"{_NETWORK_LOCK}={method}",)


def remove_stale(path: str) -> None:
    """Take away what runs that were killed have left in a configuration."""
    if "# gpuops-restore " in (_read(path) or ""):
        _remove_blocks(path, 0)


def _of_node() -> list[str]:
    return [line for line in _plain(_read(NODE_CONFIG) or "") if _name(line) not in _OWN]


def _plain(text: str) -> list[str]:
    """The lines in force, without those of runs of ours."""
    lines = (line.partition("#")[0].strip() for line in _BLOCK.sub("", text).splitlines())
    return [line for line in lines if line]


def _name(line: str) -> str:
    return line.replace("=", " ", 1).split()[0]


def _is_set(line: str, text: str) -> bool:
    """Whether a text has the option of a line, or its opposite."""
    return any(_name(other).removeprefix("no-") == _name(line).removeprefix("no-") for other in _plain(text))


def _as_large_as_others(lines: Sequence[str], text: str) -> list[str]:
    """Of the runs at work the last one's limit counts, so it is as large as the largest."""
    others = [line for match in _BLOCK.finditer(text) for line in match.group("lines").splitlines()]
    largest = max((_bytes(line) for line in others), default=0)
    return [f"{GHOST_LIMIT}={max(largest, _bytes(line))}" if _bytes(line) else line for line in lines]


def _bytes(line: str) -> int:
    """The limit that a line sets, where we have written it."""
    name, _equals, value = line.partition("=")
    return int(value) if name == GHOST_LIMIT and value.isdecimal() else 0


def _hidden(text: str) -> str:
    """With all lines out of force but those that every work of CRIU needs."""
    lines = text.splitlines(keepends=True)
    return "".join(line if not _plain(line) or _name(_plain(line)[0]) in _OWN else _HIDDEN + line for line in lines)


def _remove_blocks(path: str, own: int) -> None:
    """Those of runs that are gone, and that of the process ``own``."""
    # What cannot be taken away now is stale when this process has ended.
    with contextlib.suppress(OSError), _locked(path):
        text = _read(path)
        if text is None:
            return
        rest, before = _without_blocks(text, own)
        if rest or before in (_FILE, _UNENDED):
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

    rest = _BLOCK.sub(replacement, text)
    if not _BLOCK.search(rest):
        rest = rest.replace(_HIDDEN, "")
        if before == _UNENDED:
            rest = rest.removesuffix("\n")
    return rest, before


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
