# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The marker ``every_python``: tests that bear it run on every Python, others on the oldest and the newest alone.

And locks that are no other test's.
"""

from __future__ import annotations

import pathlib

import pytest

from ansible_collections.gpuops.restore.plugins.module_utils._host import run_lock

MODULES = pathlib.Path(__file__).resolve().parent / "plugins" / "modules"


def pytest_configure(config: pytest.Config) -> None:
    """A file bears the marker by ``pytestmark = pytest.mark.every_python``."""
    config.addinivalue_line(
        "markers",
        "every_python: can differ between Pythons: protobuf, gRPC, compression, typing, processes, driver bindings",
    )


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """All tests of modules bear it, for ansible-core is another one on some Pythons."""
    for item in items:
        if MODULES in item.path.resolve().parents:
            item.add_marker(pytest.mark.every_python)


@pytest.fixture(autouse=True)
def own_locks(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tests run side by side, and all of them restore a container of the same name."""
    root = str(tmp_path_factory.mktemp("locks") / "gpuops-restore" / "locks")
    monkeypatch.setattr(run_lock, "default_root", lambda: root)
