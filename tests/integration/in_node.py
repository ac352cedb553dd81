# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A module of the collection, run inside a lab node the way Ansible runs it.

What a fresh interpreter costs, half a second of a processor, is spent once for a node (warm.py); ``cold`` has one.
"""

from __future__ import annotations

import dataclasses
import json
import os
import pathlib
import secrets
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Mapping
from typing import Any, cast

import ansible
from gpuops_lab import library
from gpuops_lab.config import Node
from gpuops_lab.listing import COLLECTOR

#: The layer of nodes to which Ansible sends modules.
BYTECODE = str(pathlib.Path(__file__).resolve().parents[1] / "lab" / "bytecode")
#: Where the node has ansible-core's module_utils and the collection; no part of what listings compare.
LIBRARY = "/opt/gpuops-test"
PYTHON = "/usr/bin/python3"
_PACKAGE = "ansible_collections/gpuops/restore/plugins"
_WARM = pathlib.Path(__file__).with_name("warm.py")
#: What a child of it may be told to call first.
_BEFORE = ("kill_at.py", "hold_at.py", "quiet.py")
#: For node_listing.py.
_LISTING = (COLLECTOR, _WARM.parents[1] / "faults" / "quick_listing.py")
_WARM_SOCKET = "/run/gpuops-lab/warm.sock"
#: The most that a module may take, in seconds.
_LIMIT = 900.0


@dataclasses.dataclass(frozen=True)
class Ended:
    """How a module's process ended, or that it was stopped: its status as waitpid(2) has it, and what it wrote."""

    status: int
    stdout: str
    stderr: str

    @property
    def result(self) -> dict[str, Any]:
        """What it printed, for Ansible.

        Raises AssertionError when that is not exactly one JSON object, or when it wrote to stderr: Ansible would show
        either as a module failure.
        """
        try:
            found = json.loads(self.stdout)
        except ValueError:
            found = None
        assert isinstance(found, dict) and not self.stderr.strip(), (
            f"it ended with status {self.status}\n{self.stdout[-4000:]}\n{self.stderr[-4000:]}"
        )
        return cast("dict[str, Any]", found)


def layers(root: pathlib.Path) -> tuple[str, ...]:
    """For a node that comes up now: BYTECODE, and what :func:`install` brings, if it was brought to one before."""
    return (BYTECODE, *library.layers(LIBRARY, _parts(root)))


def install(node: Node, root: pathlib.Path) -> None:
    """Have ansible-core's module_utils and the collection's plugins in the node, compiled."""
    library.install(node, LIBRARY, PYTHON, _parts(root))


def _parts(root: pathlib.Path) -> dict[str, pathlib.Path]:
    core = pathlib.Path(str(ansible.__file__)).parent
    parts = {path.name: path for path in (_WARM, *map(_WARM.with_name, _BEFORE), *_LISTING)}
    # An empty file, as in what Ansible sends: the controller's own package would want its vendored libraries.
    parts["ansible/__init__.py"] = pathlib.Path(os.devnull)
    parts |= {f"ansible/{name}": core / name for name in ("module_utils", "_vendor")}
    parts[_PACKAGE] = root / "plugins"
    return parts


def warm_up(node: Node, *modules: str) -> None:
    """Start the interpreter that the node's modules are forked from; after a reboot, again.

    A node that has none gets one with the first module that runs there.
    """
    node.inside(_WARM_SOCKET).unlink(missing_ok=True)
    command = ["env", f"PYTHONPATH={LIBRARY}", PYTHON, f"{LIBRARY}/{_WARM.name}", *modules]
    # Without pipes, which it would keep open in the background.
    done = subprocess.run([str(node.directory / "enter"), *command], stdin=subprocess.DEVNULL, check=False, timeout=60)
    assert done.returncode == 0, f"the interpreter of node {node.name} does not start"


def ask(node: Node, name: str, options: Mapping[str, Any], before: tuple[Any, ...] = ()) -> Ended:
    """Run a module in a child of the node's warm interpreter; ``before`` as in warm.py. It may end as it likes."""
    request = {"module": name, "options": dict(options), "before": list(before)}
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(_LIMIT)
        try:
            connection.connect(str(node.inside(_WARM_SOCKET)))
        except (FileNotFoundError, ConnectionRefusedError):
            warm_up(node, name)
            connection.connect(str(node.inside(_WARM_SOCKET)))
        connection.sendall(json.dumps(request).encode() + b"\n")
        answer = connection.makefile().readline()
    assert answer, f"the interpreter of node {node.name} ended with this request: {name}"
    return Ended(**json.loads(answer))


def signalled(
    node: Node,
    name: str,
    options: Mapping[str, Any],
    function: str,
    when: str,
    number: signal.Signals = signal.SIGKILL,
) -> Ended:
    """How a module ended that sent itself the signal at a function; ``function`` and ``when`` as in kill_at.py."""
    return ask(node, name, options, ("kill_at", "arm", function, when, int(number)))


def killed(node: Node, name: str, options: Mapping[str, Any], function: str, when: str) -> None:
    """A module is killed at a function; fails the test if it never came there."""
    ended = signalled(node, name, options, function, when)
    assert (ended.status, ended.stdout) == (signal.SIGKILL, ""), f"it was not killed at {function}: {ended}"


class Held:
    """A module that waits at functions: with ``points`` as in hold_at.py, from the block's beginning to its end.

    In the block it waits at the first one.
    """

    def __init__(self, node: Node, name: str, options: Mapping[str, Any], *points: tuple[str, str]) -> None:
        self._place = f"/run/gpuops-lab/held-{secrets.token_hex(4)}"
        self._node, self._points = node, points
        before = ("hold_at", "arm", self._place, points)
        self._ended: list[Ended] = []
        self._thread = threading.Thread(target=lambda: self._ended.append(ask(node, name, options, before)))

    def __enter__(self) -> Held:
        self._thread.start()
        try:
            self.reached(0)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_unused: object) -> None:
        for number in range(len(self._points)):
            self.go(number)
        self._thread.join()
        for number in range(len(self._points)):
            for what in ("reached", "go"):
                self._file(number, what).unlink(missing_ok=True)

    def reached(self, number: int) -> None:
        """Wait until it waits at that point. Raises AssertionError if it ends before."""
        while not self._file(number, "reached").exists():
            assert self._thread.is_alive(), f"it never came to {self._points[number]}: {self._ended}"
            time.sleep(0.005)

    def go(self, number: int) -> None:
        """It may leave that point."""
        self._file(number, "go").touch()

    def result(self) -> dict[str, Any]:
        """Of the module, once all points that it comes to may be left."""
        for number in range(len(self._points)):
            self.go(number)
        self._thread.join()
        (ended,) = self._ended
        return ended.result

    def _file(self, number: int, what: str) -> pathlib.Path:
        return self._node.inside(f"{self._place}.{number}.{what}")


def quiet(node: Node, name: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """The result of a module that does not see mounts before CRIU does."""
    return ask(node, name, options, ("quiet", "arm")).result


def run_module(
    node: Node,
    name: str,
    params: Mapping[str, Any],
    *,
    check: bool = False,
    diff: bool = False,
    user: int = 0,
    cold: bool = False,
) -> dict[str, Any]:
    """Run ``gpuops.restore.<name>`` as that user id; returns its JSON, ``failed`` included.

    ``cold``: in an interpreter of its own, which meets what the node's Python lacks; another user than root has one
    always. Raises AssertionError as :attr:`Ended.result` does.
    """
    arguments = {**params, "_ansible_check_mode": check, "_ansible_diff": diff}
    if not user and not cold:
        return ask(node, name, arguments).result
    command = ["env", f"PYTHONPATH={LIBRARY}", PYTHON, f"{LIBRARY}/{_PACKAGE}/modules/{name}.py"]
    if user:
        command = ["setpriv", f"--reuid={user}", f"--regid={user}", "--clear-groups", "env", "HOME=/", *command]
    done = subprocess.run(
        [str(node.directory / "enter"), *command],
        input=json.dumps({"ANSIBLE_MODULE_ARGS": arguments}),
        capture_output=True,
        text=True,
        check=False,
        timeout=_LIMIT,
    )
    return Ended(done.returncode, done.stdout, done.stderr).result


def start(node: Node, name: str, params: Mapping[str, Any]) -> subprocess.Popen[bytes]:
    """The same, only begun, as leader of a process group that can be killed as a whole."""
    library, package = LIBRARY, _PACKAGE
    command = ["env", f"PYTHONPATH={library}", PYTHON, f"{library}/{package}/modules/{name}.py"]
    process = subprocess.Popen(
        [str(node.directory / "enter"), *command],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    assert process.stdin is not None
    process.stdin.write(json.dumps({"ANSIBLE_MODULE_ARGS": dict(params)}).encode())
    process.stdin.close()
    return process
