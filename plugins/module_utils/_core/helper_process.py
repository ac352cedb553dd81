# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A helper process that can be killed: the source of one of our modules, run by the same Python.

A call into a driver that hangs cannot be interrupted from within, so it is made in a process of its own. Modules reach
a node as a zip file, or as files, or from a collection loader; in each case the loader can give the module's source,
which is written to the helper's standard input. What the helper runs must therefore import nothing of this collection.
"""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from types import ModuleType
from typing import IO, Any, cast  # pylint: disable=unused-import

#: Reads as many bytes of source as the argument says; what follows on standard input is for the helper itself.
_BOOT = (
    "import sys; sys.path[:] = [p for p in sys.path if p]; "
    "exec(compile(sys.stdin.buffer.read(int(sys.argv[1])), sys.argv[2], 'exec'), {'__name__': '__main__'})"
)
_STDERR_BYTES = 4096
_REAP_SECONDS = 5.0


class ChildEndedError(Exception):
    """The helper ended by itself. The text is its exit status and the last of its error output."""


def source_of(module: ModuleType) -> str:
    """The source of an imported module, wherever it was loaded from. Raises ImportError."""
    loader: Any = module.__spec__.loader if module.__spec__ else None
    source = loader.get_source(module.__name__) if hasattr(loader, "get_source") else None
    if not source:
        raise ImportError(f"the source of {module.__name__} cannot be had from {loader!r}")
    return cast("str", source)


class Child:
    """A helper that runs ``module``'s source as its main program and speaks JSON lines.

    It has its own session, so that a signal for ours does not break a call off; when its standard input ends it
    finishes what it has begun and goes.
    """

    def __init__(self, module: ModuleType, environment: Mapping[str, str]) -> None:
        source = source_of(module).encode()
        # Our own file: a pipe that nobody reads would block a helper that writes much.
        self._stderr = cast("IO[bytes]", tempfile.TemporaryFile())  # noqa: SIM115
        # A step knows no AnsibleModule, whose run_command could not be killed half-way either.
        self._process = subprocess.Popen(  # pylint: disable=ansible-bad-function
            [sys.executable, "-c", _BOOT, str(len(source)), module.__name__.rpartition(".")[2]],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._stderr,
            env=dict(environment),
            cwd="/",
            start_new_session=True,
            bufsize=0,
        )
        self._pending = b""
        self._write(source)

    @property
    def pid(self) -> int:
        """The helper's process id."""
        return self._process.pid

    def send(self, message: Mapping[str, Any]) -> None:
        """Send one message. Raises ChildEndedError."""
        self._write(json.dumps(message).encode() + b"\n")

    def receive(self, deadline: float) -> dict[str, Any] | None:
        """The next message; None when there is none by ``deadline`` (of time.monotonic). Raises ChildEndedError."""
        stream = cast("IO[bytes]", self._process.stdout)
        with selectors.DefaultSelector() as selector:
            selector.register(stream, selectors.EVENT_READ)
            while b"\n" not in self._pending:
                if not selector.select(max(0.0, deadline - time.monotonic())):
                    return None
                data = os.read(stream.fileno(), 65536)
                if not data:
                    raise ChildEndedError(self._last_words())
                self._pending += data
        line, _newline, self._pending = self._pending.partition(b"\n")
        return cast("dict[str, Any]", json.loads(line))

    def close(self) -> None:
        """Let an idle helper go; one that does not go at once is killed."""
        self._hang_up()
        try:
            self._process.wait(_REAP_SECONDS)
        except subprocess.TimeoutExpired:
            self.kill()
        self._tidy()

    def kill(self) -> bool:
        """Kill it; False when it hangs in the kernel and stays for now."""
        self._process.kill()
        try:
            self._process.wait(_REAP_SECONDS)
        except subprocess.TimeoutExpired:
            return False
        self._tidy()
        return True

    def _write(self, data: bytes) -> None:
        stream = cast("IO[bytes]", self._process.stdin)
        view = memoryview(data)
        try:
            while view:
                view = view[os.write(stream.fileno(), view) :]
        except (BrokenPipeError, ValueError) as error:
            raise ChildEndedError(self._last_words()) from error

    def _hang_up(self) -> None:
        with contextlib.suppress(OSError):
            cast("IO[bytes]", self._process.stdin).close()

    def _tidy(self) -> None:
        self._hang_up()
        cast("IO[bytes]", self._process.stdout).close()
        self._stderr.close()

    def _last_words(self) -> str:
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(_REAP_SECONDS)
        size = self._stderr.seek(0, os.SEEK_END)
        self._stderr.seek(max(0, size - _STDERR_BYTES))
        text = self._stderr.read().decode("utf-8", "replace").strip()
        return f"exit status {self._process.returncode}" + (f": {text}" if text else "")
