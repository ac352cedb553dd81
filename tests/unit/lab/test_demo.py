# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the demonstration leaves: its nodes for a user to look at, nothing for a gate."""

from __future__ import annotations

import importlib.util
import pathlib
from importlib.machinery import SourceFileLoader
from typing import Any

import pytest
from gpuops_lab import node
from gpuops_lab.config import LabError

RUN = pathlib.Path(__file__).resolve().parents[2] / "demo" / "run"


@pytest.fixture
def demo() -> Any:
    loader = SourceFileLoader("demo_run", str(RUN))
    spec = importlib.util.spec_from_loader("demo_run", loader)
    assert spec is not None
    found = importlib.util.module_from_spec(spec)
    loader.exec_module(found)
    return found


@pytest.mark.parametrize(
    ("arguments", "removed"),
    [(["run"], []), (["run", "--remove"], ["demo1", "demo2", "demo3"])],
    ids=["kept", "removed"],
)
@pytest.mark.parametrize("failure", [None, LabError("no luck"), SystemExit("no luck")], ids=["well", "lab", "play"])
def test_nodes_stay_unless_they_are_to_go_also_after_a_failure(
    demo: Any,
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    removed: list[str],
    failure: BaseException | None,
) -> None:
    down: list[str] = []

    def demonstrate(remove: bool) -> None:
        assert remove is bool(removed)
        assert down == []
        if failure is not None:
            raise failure

    monkeypatch.setattr(demo, "demonstrate", demonstrate)
    monkeypatch.setattr(node, "down", down.append)
    monkeypatch.setattr("sys.argv", arguments)
    if isinstance(failure, SystemExit):
        with pytest.raises(SystemExit):
            demo.main()
    else:
        assert demo.main() == (1 if failure else 0)
    assert down == removed
