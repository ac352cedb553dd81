# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the tests met and how they went, for docs/compatibility.md: a file in build/compatibility for each choice."""

from __future__ import annotations

import datetime
import hashlib
import json
import pathlib
import platform
import re

from gpuops_lab import node as lab_node
from gpuops_lab.config import Node

#: What is asked in a node, and what is the version in the answer.
ASKED = {
    "containerd": (["containerd", "--version"], r"v?(\d+\.\d+\.\d+)"),
    "runc": (["runc", "--version"], r"runc version (\S+)"),
    "criu": (["criu", "--version"], r"Version: (\S+)"),
    "python": (["python3", "-c", "import platform; print(platform.python_version())"], r"(\S+)"),
    "grpcio": (["python3", "-c", "import grpc; print(grpc.__version__)"], r"(\S+)"),
    "system": (["sed", "-n", "s/^PRETTY_NAME=//p", "/etc/os-release"], r'"?([^"\n]+)'),
}


def versions(node: Node) -> dict[str, str]:
    """What the node has, and the kernel that it runs on."""
    found = {"kernel": platform.release().partition("-")[0]}
    for name, (command, pattern) in ASKED.items():
        match = re.search(pattern, lab_node.output(node, command))
        found[name] = match[1] if match else "?"
    return found


class Record:
    """The tests of one run."""

    def __init__(self, root: pathlib.Path) -> None:
        """Nothing was met yet."""
        self._folder = root / "build" / "compatibility"
        self._versions: dict[str, str] = {}
        self._tests: dict[str, bool] = {}

    def met(self, node: Node) -> None:
        """Tests ran on that node; those of one run are alike."""
        if not self._versions:
            self._versions = versions(node)

    def ended(self, test: str, well: bool) -> None:
        """One part of a test ended; a test is well when all are."""
        self._tests[test] = well and self._tests.get(test, True)

    def write(self) -> None:
        """Keep it in place of what the same tests said on the same versions before."""
        if not self._versions:
            return
        document = {"versions": self._versions, "day": str(datetime.datetime.now(datetime.timezone.utc).date())}
        known = json.dumps([self._versions, sorted({test.partition("::")[0] for test in self._tests})])
        name = hashlib.sha256(known.encode()).hexdigest()[:16]
        self._folder.mkdir(parents=True, exist_ok=True)
        (self._folder / f"{name}.json").write_text(json.dumps({**document, "tests": self._tests}, indent=1))
