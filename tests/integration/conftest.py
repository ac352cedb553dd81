# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Modules of this tree, run inside lab nodes against a real containerd. Needs root.

``GPUOPS_CONTAINERD`` (default 1.7) chooses containerd's generation. A module runs from its own file, with its options
as JSON on stdin, as Ansible's own debugging mode does, in a child of an interpreter that has imported it before, and
without ssh. ansible-core's module_utils and the collection's plugins are copied into the node once.
"""

from __future__ import annotations

import contextlib
import os
import pathlib
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
for _path in (ROOT / "tests" / "lab", ROOT / "tests" / "integration"):
    if str(_path) not in sys.path:
        sys.path.append(str(_path))

import compatibility  # noqa: E402
import in_node  # noqa: E402
from gpuops_lab import node as lab_node  # noqa: E402
from gpuops_lab.config import Node  # noqa: E402
from node_listing import listing, settled_difference  # noqa: E402

RECORD = compatibility.Record(ROOT)
Unchanged = Callable[..., "contextlib.AbstractContextManager[None]"]


def pytest_configure(config: pytest.Config) -> None:
    """The marker of the tests that are worth their time on every generation of containerd."""
    config.addinivalue_line("markers", "every_containerd: runs on containerd 1.6 and 2.1 as well as on 1.7")
    config.addinivalue_line("markers", "older_criu: runs with CRIU 4.1 as well as with the usual one")
    config.addinivalue_line("markers", "newer_criu: runs with CRIU 4.3 as well as with the usual one")


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """What docs/compatibility.md counts: tests, not their parts."""
    if report.when == "call" or report.failed:
        RECORD.ended(report.nodeid, report.passed)


def pytest_sessionfinish() -> None:
    """Keep what was met."""
    RECORD.write()


@pytest.fixture(scope="module")
def node(request: pytest.FixtureRequest) -> Iterator[Node]:
    """A fresh node for the tests of one file, with the collection and the file's EXTRAS inside; gone afterwards."""
    stem = pathlib.Path(str(request.module.__file__)).stem.removeprefix("test_").replace("_", "-")
    version = os.environ.get("GPUOPS_CONTAINERD", "1.7")
    extras = getattr(request.module, "EXTRAS", ())
    (made,) = lab_node.up([f"t-{stem[:16]}-{os.getpid()}"], version, extras, layers=in_node.layers(ROOT))
    try:
        in_node.install(made, ROOT)
        RECORD.met(made)
        yield made
    finally:
        lab_node.down(made.name)


@pytest.fixture
def run_module(node: Node) -> Callable[..., dict[str, Any]]:
    """``run_module(name, params, check=False, diff=False)``: the module's result; fails the test if it fails."""

    def call(name: str, params: dict[str, Any], *, check: bool = False, diff: bool = False) -> dict[str, Any]:
        result: dict[str, Any] = in_node.run_module(node, name, params, check=check, diff=diff)
        assert not result.get("failed"), f"{name} failed: {result.get('msg')}\n{result.get('failure')}"
        return result

    return call


@pytest.fixture
def expect_failure(node: Node) -> Callable[..., dict[str, Any]]:
    """``expect_failure(name, params, code, check=False)``: the failed result, with that ``failure.code``.

    It has to be as promised: one sentence about what happened, one about what to do, a known outcome.
    """

    def call(name: str, params: dict[str, Any], code: str, *, check: bool = False) -> dict[str, Any]:
        result: dict[str, Any] = in_node.run_module(node, name, params, check=check)
        assert result.get("failed"), f"{name} did not fail: {result}"
        failure = result.get("failure") or {}
        assert failure.get("code") == code, f"{name} failed otherwise: {result.get('msg')}\n{failure}"
        assert failure.get("hint"), result
        assert str(result["msg"]).endswith(str(failure["hint"])), result
        assert failure.get("outcome") in ("retryable", "terminal", "unknown"), failure
        return result

    return call


@pytest.fixture
def unchanged(node: Node) -> Unchanged:
    """``with unchanged(ignore=()):`` the block leaves the node as it was, or the test fails with the differences."""

    @contextlib.contextmanager
    def watch(ignore: tuple[str, ...] = ()) -> Iterator[None]:
        before = listing(node)
        yield
        lines = settled_difference(node, before, ignore)
        assert not lines, "the node is not as it was:\n" + "\n".join(lines)

    return watch
