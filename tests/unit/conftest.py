# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The marker ``every_python``: tests that bear it run on every Python, others on the oldest and the newest alone.

``every_core``: they run on each ansible-core, and so on Pythons that have another one than the newest.

And locks, networks, helper processes and rates that are no other test's.
"""

from __future__ import annotations

import gc
import itertools
import pathlib
import sys
import weakref
from collections.abc import Iterator
from typing import Any

import pytest

from ansible_collections.gpuops.restore.plugins.module_utils._capture import rates as capture_rates
from ansible_collections.gpuops.restore.plugins.module_utils._containerd import network_locks
from ansible_collections.gpuops.restore.plugins.module_utils._core import helper_process
from ansible_collections.gpuops.restore.plugins.module_utils._gpu import nvml
from ansible_collections.gpuops.restore.plugins.module_utils._host import run_lock
from ansible_collections.gpuops.restore.plugins.module_utils._restore import rates as restore_rates
from ansible_collections.gpuops.restore.tests.unit.helpers import forked_helpers

MODULES = pathlib.Path(__file__).resolve().parent / "plugins" / "modules"


def pytest_configure(config: pytest.Config) -> None:
    """A file bears the marker by ``pytestmark = pytest.mark.every_python``."""
    config.addinivalue_line(
        "markers",
        "every_python: can differ between Pythons: protobuf, gRPC, compression, typing, processes, driver bindings",
    )
    config.addinivalue_line("markers", "every_core: can differ between releases of ansible-core: all tests of modules")
    config.addinivalue_line("markers", "any_core: a test of a module of which ansible-core has no part")
    config.addinivalue_line("markers", "own_helpers: each helper process is a Python of its own, as it is on a node")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """All tests of modules bear ``every_core``."""
    for item in items:
        if MODULES in item.path.resolve().parents and not item.get_closest_marker("any_core"):
            item.add_marker(pytest.mark.every_core)


def pytest_collection_finish() -> None:
    """Warnings and tracebacks of modules would go to the screen instead of into their results."""
    if "ansible._internal" in sys.modules:
        raise pytest.UsageError("A test file imports a part of Ansible's controller: let a process of its own do that.")
    # What was imported and collected stays: the garbage collector need not go through it again and again.
    gc.freeze()


@pytest.fixture(scope="session")
def directories(tmp_path_factory: pytest.TempPathFactory) -> Iterator[pathlib.Path]:
    """New directories, one after another: pytest's own would be looked for among those of all tests before."""
    root = tmp_path_factory.mktemp("own")
    return (root / str(number) for number in itertools.count())


@pytest.fixture
def own_directory(directories: Iterator[pathlib.Path]) -> pathlib.Path:
    """For what is this test's alone, beside the files that it asks for."""
    found = next(directories)
    found.mkdir()
    return found


@pytest.fixture(autouse=True)
def own_locks(own_directory: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tests run side by side, and all of them restore a container of the same name."""
    root = str(own_directory / "gpuops-restore" / "locks")
    monkeypatch.setattr(run_lock, "default_root", lambda: root)


@pytest.fixture(autouse=True)
def own_networks(monkeypatch: pytest.MonkeyPatch) -> None:
    """What CRIU may have left in the networks of this machine is nobody's here."""
    namespaces = network_locks._namespaces
    monkeypatch.setattr(
        network_locks, "_namespaces", lambda proc, named: [] if proc == "/proc" else namespaces(proc, named)
    )


@pytest.fixture(autouse=True)
def own_nvml(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """NVML stays open as long as a call, which here is as long as a test."""
    opened: weakref.WeakSet[nvml.Session] = weakref.WeakSet()
    plain = nvml.Session._open

    def noted(self: nvml.Session, *arguments: Any) -> Any:
        opened.add(self)
        return plain(self, *arguments)

    monkeypatch.setattr(nvml.Session, "_open", noted)
    yield
    for session in list(opened):
        session.close()


@pytest.fixture(autouse=True)
def own_rates(own_directory: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What other tests took tells nothing, and this machine's own is not theirs to write."""
    for rates in (capture_rates, restore_rates):
        monkeypatch.setattr(rates, "FILE", str(own_directory / pathlib.Path(rates.FILE).name))


@pytest.fixture(scope="session")
def forked() -> Iterator[forked_helpers.Subprocess]:
    """Starts helpers of the NVIDIA driver at a small part of their price."""
    found = forked_helpers.Subprocess()
    yield found
    found.close()


@pytest.fixture(autouse=True)
def cheap_helpers(
    forked: forked_helpers.Subprocess, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    """Unless a test says that it wants them as they are on a node."""
    if not request.node.get_closest_marker("own_helpers"):
        monkeypatch.setattr(helper_process, "subprocess", forked)
