# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Reading a CRIU log: its error lines in order, in flat memory, whatever the log's size.

A line of the log is ``(seconds.micros)  pid: Error (file:line): text``; the time stamp appears from
verbosity 3 on, the pid column only while a tree is restored, and the restorer writes
``pie: pid: Error (file:line): text`` (format: CRIU's ``log.c`` and ``log.h``). Programs that CRIU runs (tar,
iptables, ip, nft) write into the same file without any prefix.
"""

from __future__ import annotations

import errno
import os
import re
import stat
from collections import OrderedDict, deque
from collections.abc import Iterator
from dataclasses import dataclass

#: Longest line that is handed on, in characters; CRIU itself writes at most 8 KiB a line.
LINE_CHARS = 400

_BLOCK = 256 * 1024
_LONGEST_LINE = 8 * 1024
_HEAD_BYTES = 64 * 1024 * 1024
_TAIL_BYTES = 192 * 1024 * 1024
_REMEMBERED = 512

_TOOLS = (
    r"(?:ip6?tables(?:-\w+)?(?:-restore|-save)?[: ]|iptables-restore v|nft: |tar: |BusyBox v|"
    r"RTNETLINK answers|Another app is currently holding|criu: |line \d+: [A-Z_]+ failed)"
)
_STAMP = r"\(\d{2,}\.\d{1,6}\) ?"
_PREFIX = rf"[ \t]*(?:{_STAMP})?[ \t]*(?:\d+: ?)?(?:pie: ?(?:\d+: ?)?)?[ \t]*"
_ERROR_LINE = re.compile(rf"{_PREFIX}(?:(?P<warn>Warn) +\(|Error(?: \(|: )|{_TOOLS})")
_OWN_LINE = re.compile(rf"{_PREFIX}(?:Warn +\(|Error(?: \(|: ))")
# The line end in front is what makes the search fast; the caller sees to it that every line has one.
_CANDIDATE = re.compile(rf"\n{_PREFIX}(?:Warn +\(|Error(?: \(|: )|{_TOOLS})[^\n]*".encode("ascii"))
# One of these is in every candidate. A look for them first makes the usual block without any cheaper.
_TOKENS = (
    *(b"Error", b"Warn", b"tables", b"nft: ", b"tar: ", b"BusyBox", b"RTNETLINK", b"Another app", b"criu: "),
    b" failed",
)
_INNER_STAMP = re.compile(rf"(?<=\S)(?={_STAMP}\s*(?:\d+: ?)?(?:pie: |Warn +\(|Error \())")
_STRIP = re.compile(rf"^[ \t]*(?P<stamp>{_STAMP})?[ \t]*(?:\d+:[ \t]+(?=\S))?")
_PIE_PID = re.compile(r"^pie: ?\d+: ?")
_ORIGIN = re.compile(r"(?:pie: ?(?:\d+: ?)?)?(?:Error|Warn) +\((?P<path>[\w./+-]+)\.[chS]:\d+\): ?")
_VERSIONS = {
    "criu": re.compile(rb"^[^\n]*\bVersion: (\d[\w.]*)", re.MULTILINE),
    "kernel": re.compile(rb"^[^\n]*\bRunning on \S+ Linux (\d\S*)", re.MULTILINE),
}
_HEADER = 64 * 1024
_HARMLESS = re.compile(
    r"rlimit: Can't setup RLIMIT_NOFILE for self|cgroupd: recv req error|^ip6?tables(?:-\w+)*: Bad rule"
)
_CONSEQUENCE = re.compile(
    r"(?:Dumping|Restoring|Pre-dumping) FAILED|\bDump \w+ \(pid: \d+\) failed with|killed by signal \d|exited, status=|"
    r"\): (?:Cannot go on|Error parsing proc \w+ file|`- Can't open vma)|One of more action scripts failed|"
    r"\): Unable to kill|criu failed: type \w+ errno|^log file: /|^path= ?/"
)
_WARNING = re.compile(
    r"^(?:pie: ?(?:\d+: ?)?)?Warn\b|^(?:\w+ )?(?:WARN(?:ING)?|INFO|DEBUG|NOTICE)\b|^[IW]\d{4} \d\d:|"
    r"^(?:time=\S+ )?level=(?:trace|debug|info|warn)"
)

_ASSIGNMENT = re.compile(r"\b([A-Z_][A-Z0-9_]{2,}|\w*(?:proxy|token|secret|passw\w*))=(?:'[^']*'|\"[^\"]*\"|\S+)")
_URL_LOGIN = re.compile(r"(?<=://)[^/@\s]+@")
_LONG_RUN = re.compile(r"[A-Za-z0-9+=]{65,}")
_UNPRINTABLE = re.compile(r"[^\x20-\x7e\u00a0-\U0010ffff]")


@dataclass(frozen=True)
class Origin:
    """Where a line comes from, and what it says."""

    #: The file of CRIU's source, without directories and ending; empty where the line names none.
    source: str
    #: The file is of one architecture's.
    arch: bool
    text: str


def origin(line: str) -> Origin:
    """Of a cleaned line."""
    found = _ORIGIN.match(line)
    if found is None:
        return Origin("", False, line)
    *directories, name = found.group("path").split("/")
    return Origin(name, "arch" in directories, line[found.end() :])


def versions(path: str) -> dict[str, str]:
    """The versions that CRIU writes at the head of its log, by ``criu`` and ``kernel``; what is not there is left "
    "out."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return {}
    with os.fdopen(descriptor, "rb", buffering=0) as handle:
        head = handle.read(_HEADER) if stat.S_ISREG(os.fstat(handle.fileno()).st_mode) else b""
    found = {program: pattern.search(head or b"") for program, pattern in _VERSIONS.items()}
    return {program: match.group(1).decode("ascii", "replace") for program, match in found.items() if match}


def clean(line: str) -> str:
    """One log line fit to be shown, cut at ``LINE_CHARS``.

    Time stamp and pid column are gone; values of assignments (environment), logins in URLs and long unbroken
    runs of characters (data) are masked; control characters are replaced.
    """
    text = _STRIP.sub("", line.rstrip(), count=1)
    # Cut before the other substitutions: their cost must not grow with what somebody else wrote.
    cut = len(text) > LINE_CHARS
    text = text[:LINE_CHARS]
    text = _UNPRINTABLE.sub("?", text.replace("\t", " "))
    text = _ASSIGNMENT.sub(r"\1=<masked>", text)
    text = _URL_LOGIN.sub("<masked>@", text)
    text = _LONG_RUN.sub("<masked>", text)
    return text + " [cut]" if cut else text


def is_warning(line: str) -> bool:
    """True for a cleaned line that CRIU wrote as a warning, or another program as one or as less."""
    return _WARNING.match(line) is not None


def is_harmless(line: str) -> bool:
    """True for a line that CRIU writes as an error but survives, so that it explains nothing.

    ``rlimit_unlimit_nofile`` (criu/util.c) only tries to raise CRIU's own limit; cgroupd complains when CRIU ends;
    iptables where a rule that CRIU takes away is not there, as in each good dump.
    """
    return _HARMLESS.search(line) is not None


def is_consequence(line: str) -> bool:
    """True for a cleaned line that only says that something before it has failed."""
    return _CONSEQUENCE.search(line) is not None


def is_progress(line: str) -> bool:
    """True for a raw line with a time stamp that is neither error nor warning: information or debugging."""
    return _has_stamp(line) and _OWN_LINE.match(line) is None


def error_lines(path: str, limit: int = 40) -> list[str]:
    """The error and warning lines of the CRIU log at ``path``: cleaned, in order, distinct, up to ``limit``.

    If there is no such file the list is empty: CRIU may have failed before it opened one. Of a log above
    256 MiB the first 64 MiB and the last 192 MiB are read. Raises ``OSError`` if ``path`` is a symbolic link,
    is no regular file, or cannot be read. Memory use does not depend on the size of the log.
    """
    collected = _Collector(limit)
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except FileNotFoundError:
        return []
    with os.fdopen(descriptor, "rb", buffering=0) as handle:
        info = os.fstat(handle.fileno())
        if not stat.S_ISREG(info.st_mode):
            raise OSError(errno.EINVAL, "a CRIU log has to be a regular file", path)
        for start, length in _ranges(info.st_size, _HEAD_BYTES, _TAIL_BYTES):
            os.lseek(handle.fileno(), start, os.SEEK_SET)
            for raw in _candidates(handle.fileno(), length, partial_first=start > 0):
                collected.add(raw.decode("utf-8", "replace"))
    return collected.result()


def _has_stamp(line: str) -> bool:
    found = _STRIP.match(line)
    return found is not None and found.group("stamp") is not None


def _ranges(size: int, head: int, tail: int) -> list[tuple[int, int]]:
    """The byte ranges (start, length) to read of a file of ``size`` bytes."""
    if size <= head + tail:
        return [(0, size)]
    return [(0, head), (size - tail, tail)]


def _candidates(descriptor: int, length: int, partial_first: bool) -> Iterator[bytes]:
    """Lines that may be errors, from the next ``length`` bytes; overlong lines are cut."""
    carry = b"" if partial_first else b"\n"
    skipping = partial_first
    left = length
    while left > 0:
        block = os.read(descriptor, min(_BLOCK, left))
        if not block:
            break
        left -= len(block)
        if skipping:
            newline = block.find(b"\n")
            if newline < 0:
                continue
            block = block[newline:]
            skipping = False
        block = carry + block
        end = block.rfind(b"\n")
        if end == 0 and len(block) > _LONGEST_LINE:
            # One line longer than CRIU can write: keep its beginning, drop the rest up to the next line.
            for found in _CANDIDATE.finditer(block[:_LONGEST_LINE]):
                yield found.group()[1:]
            carry, skipping = b"", True
            continue
        if any(token in block for token in _TOKENS):
            for found in _CANDIDATE.finditer(block, 0, end):
                yield found.group()[1 : _LONGEST_LINE + 1]
        carry = block[end:]
    for found in _CANDIDATE.finditer(carry):
        yield found.group()[1:]


class _Collector:
    """Distinct lines in the order of the log: the first and the last ones where there are too many.

    Errors come before warnings when room is short: a quarter of it is kept for warnings, as some failures can
    only be told from a warning and an error together.
    """

    def __init__(self, limit: int) -> None:
        self._limit = max(0, limit)
        self._seen: OrderedDict[str, None] = OrderedDict()
        self._number = 0
        self._errors = _Ends(self._limit)
        self._warnings = _Ends(self._limit)

    def add(self, raw: str) -> None:
        for line in raw.splitlines():
            # A message without a line end runs into the next one.
            for part in _INNER_STAMP.split(line):
                self._add_one(part)

    def result(self) -> list[str]:
        reserved = min(len(self._warnings), self._limit // 4)
        errors = self._errors.pick(self._limit - reserved)
        warnings = self._warnings.pick(self._limit - len(errors))
        return [text for _number, text in sorted(errors + warnings)]

    def _add_one(self, raw: str) -> None:
        found = _ERROR_LINE.match(raw)
        if found is None:
            return
        text = clean(raw)
        key = _PIE_PID.sub("pie: ", text)
        if key in self._seen:
            self._seen.move_to_end(key)
            return
        self._seen[key] = None
        if len(self._seen) > _REMEMBERED:
            self._seen.popitem(last=False)
        self._number += 1
        (self._warnings if found.group("warn") else self._errors).add((self._number, text))


class _Ends:
    """The first and the last ``room`` items of a stream."""

    def __init__(self, room: int) -> None:
        self._room = room
        self._first: list[tuple[int, str]] = []
        self._last: deque[tuple[int, str]] = deque(maxlen=room)

    def __len__(self) -> int:
        return len(self._first) + len(self._last)

    def add(self, item: tuple[int, str]) -> None:
        if len(self._first) < self._room:
            self._first.append(item)
        else:
            self._last.append(item)

    def pick(self, count: int) -> list[tuple[int, str]]:
        """At most ``count`` items, half from each end; the cause tends to be first, the verdict last."""
        items = [*self._first, *self._last]
        if len(items) <= count:
            return items
        tail = count // 2
        return items[: count - tail] + items[len(items) - tail :]
