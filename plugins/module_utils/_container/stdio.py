# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Where a task's output goes, and its input comes from."""

from __future__ import annotations

import contextlib
import json
import os
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from urllib.parse import quote

from .._containerd import tasks
from .._core.errors import InputError, NodeError, disk_full, is_full

_TAIL_BYTES = 4096
_TAIL_LINES = 20
#: Bytes of runc's list of a process's first three descriptors.
_LONGEST_LIST = 1 << 16


@dataclass(frozen=True)
class Stdio:
    """Absolute paths of files, ``binary://`` URIs, or empty: the output is thrown away."""

    stdout: str
    stderr: str
    terminal: bool
    #: Where a named pipe for the input is to be, for a process from a checkpoint; empty for no input.
    stdin: str = ""

    @property
    def has_input(self) -> bool:
        """Whether the process gets a pipe that is open and silent, where its input was a pipe.

        For none, runc hands CRIU the host's /dev/null in its place: a read would find the end of file, and CRIU could
        not dump the process again. containerd gives loggers no input.
        """
        return bool(self.stdin) and not self.terminal and not f"{self.stdout}{self.stderr}".startswith("binary://")

    def task(self) -> tasks.Stdio:
        """As containerd wants it: it takes files only for both streams or for neither."""
        out, err = self.stdout or self.stderr, self.stderr or self.stdout
        if self.terminal:
            # Which has one output.
            out = err = out if out.startswith("binary://") else _drain(out or os.devnull)
        elif not out:
            # Through a pipe, as any file: for no file at all the process would get the host's /dev/null, which is on
            # no mount of its own, and CRIU could not dump it again.
            out = err = os.devnull
        return tasks.Stdio(_uri(out), _uri(err), self.terminal, self.stdin if self.has_input else "")

    def warnings(self, images: str) -> list[str]:
        """What an operator is told of a process whose CRIU images are in the directory ``images``."""
        if not self.stdin or self.terminal or self.has_input or not _had_input_pipe(images):
            return []
        return [
            "The input of the checkpointed process is a pipe, and containerd gives a process with a binary:// logger "
            "none: a read meets the end of file, and it cannot be captured again. Give stdout a file instead."
        ]

    def files(self) -> list[str]:
        """The files that take output."""
        return sorted({path for path in (self.stdout, self.stderr) if path.startswith("/")})


def plan(stdout: str, stderr: str, terminal: bool, stdin: str = "") -> Stdio:
    """Check the options; ``stdin`` as of Stdio.

    Raises InputError ``stdio_invalid``, NodeError ``stdio_no_directory``.
    """
    for name, value in (("stdout", stdout), ("stderr", stderr)):
        if value and not value.startswith(("/", "binary://")):
            raise InputError(
                "stdio_invalid",
                f"{name} is {value!r}: neither an absolute path nor a binary:// URI.",
                "Give a file such as /var/log/name.log, or binary:///path/to/logger.",
            )
        if value.startswith("/") and os.path.isdir(value):
            raise InputError(
                "stdio_invalid",
                f"{name} is {value}, which is a directory.",
                "Give the path of a file in it.",
            )
        if value.startswith("/") and not os.path.isdir(os.path.dirname(value)):
            raise NodeError(
                "stdio_no_directory",
                f"The directory of {name}, {os.path.dirname(value)}, does not exist on this node.",
                "Make it first, or choose another file.",
            )
    if stdout.startswith("binary://") != stderr.startswith("binary://") and stdout and stderr:
        raise InputError(
            "stdio_invalid",
            "stdout and stderr mix a file and a binary:// URI, which containerd cannot do.",
            "Give both the same kind.",
        )
    return Stdio(stdout, stderr, terminal, stdin)


@contextlib.contextmanager
def prepared(stdio: Stdio) -> Iterator[list[str]]:
    """Make the files 0600 before containerd does it with wider rights; those made here go again on failure.

    Gives the files made here. The named pipe stays with the container's directory: the shim holds both of its ends, so
    it is neither written to nor at its end.
    """
    made: list[str] = []
    try:
        if stdio.has_input:
            _make_pipe(stdio.stdin)
        for path in stdio.files():
            try:
                os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
                made.append(path)
            except FileExistsError:
                continue
            except OSError as error:
                if is_full(error):
                    raise disk_full(f"The output file {path}", error) from error
                raise NodeError(
                    "stdio_unwritable",
                    f"The output file {path} cannot be made: {error.strerror}.",
                    "Choose another file, or correct the rights of its directory.",
                ) from error
        yield made
    except BaseException:
        for path in [*made, stdio.stdin] if stdio.has_input else made:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)
        raise


def tail(path: str) -> list[str]:
    """The last lines of an output file, for a failure report; empty for anything that is no file."""
    if not path.startswith("/") or not os.path.isfile(path):
        return []
    with open(path, "rb") as stream:
        stream.seek(max(0, os.path.getsize(path) - _TAIL_BYTES))
        return stream.read().decode("utf-8", "replace").splitlines()[-_TAIL_LINES:]


def _had_input_pipe(images: str) -> bool:
    """As runc's list in a dump has it: what each of the first three descriptors led to."""
    try:
        with open(os.path.join(images, "descriptors.json"), encoding="utf-8") as stream:
            found = json.loads(stream.read(_LONGEST_LIST))
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(found, list) and bool(found) and str(found[0]).startswith("pipe:")


def _make_pipe(path: str) -> None:
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)
    try:
        os.mkfifo(path, 0o600)
    except OSError as error:
        if is_full(error):
            raise disk_full(f"The named pipe {path} for the input", error) from error
        raise NodeError(
            "stdio_unwritable",
            f"The named pipe {path} for the input cannot be made: {error.strerror}.",
            "Correct the rights of its directory, or choose another staging_dir.",
        ) from error


def _drain(path: str) -> str:
    """A logger that puts what a terminal shows into a file: containerd connects one to no file, and to nothing at
    all it fails when CRIU is done. Of the descriptors that loggers get, 3 is read, and 5 closed when it is ready.
    """
    script = f"exec 4<&- 5>&-; exec cat <&3 3<&- >>{shlex.quote(path)}"
    return f"binary:///bin/sh?-c={quote(script, safe='')}"


def _uri(value: str) -> str:
    return f"file://{value}" if value.startswith("/") else value
