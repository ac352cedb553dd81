# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""containerd_restore as Ansible runs it, on the test double of containerd; what it makes of the steps' results."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.gpuops.restore.plugins.module_utils._core.errors import RETRYABLE, NodeError
from ansible_collections.gpuops.restore.plugins.module_utils._restore import (
    batch as restore_batch,
    params as restore_params,
)
from ansible_collections.gpuops.restore.plugins.module_utils._restore.demand import Verdict
from ansible_collections.gpuops.restore.plugins.module_utils._restore.prediction import Prediction
from ansible_collections.gpuops.restore.plugins.module_utils._restore.result import Result
from ansible_collections.gpuops.restore.plugins.modules import containerd_restore
from ansible_collections.gpuops.restore.tests.unit.helpers.ansible_modules import Call
from ansible_collections.gpuops.restore.tests.unit.helpers.fake_containerd import FakeContainerd, running
from ansible_collections.gpuops.restore.tests.unit.plugins.modules.test_cuda_modules import Ansible

WORKLOADS = [{"name": name, "checkpoint": "c:1"} for name in ("one", "two")]


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[FakeContainerd]:
    """A test double of containerd that has nothing."""
    with running(str(tmp_path)) as found:
        yield found


def options(daemon: FakeContainerd, tmp_path: Path, **more: Any) -> dict[str, Any]:
    common = {"address": daemon.address, "namespace": "tests", "timeout": 5, "staging_dir": str(tmp_path / "state")}
    return {**common, "workloads": WORKLOADS, **more}


def test_all_are_told_of_and_the_first_failure_is_the_modules(daemon: FakeContainerd, tmp_path: Path) -> None:
    secret = {**WORKLOADS[0], "env": {"TOKEN": "hunter2"}, "metadata_content": '{"originalImage": "hunter2"}'}
    given = options(daemon, tmp_path, workloads=[secret, WORKLOADS[1]], keep_evidence=0)
    found = Ansible(tmp_path).run("containerd_restore", **given)
    assert (found["changed"], sorted(found["workloads"])) == (False, ["one", "two"])
    assert (found["failure"]["code"], found["failure"]["outcome"]) == ("checkpoint_absent", "terminal")
    assert found["workloads"]["two"]["failure"]["code"] == "checkpoint_absent"
    assert found["workloads"]["two"]["failure"]["step"] == "container"
    assert found["msg"].startswith("2 of 2 workload(s) failed. one: ")
    assert "hunter2" not in json.dumps(found)


def test_a_name_that_stands_twice_is_refused(call: Call, tmp_path: Path) -> None:
    given = {"workloads": [WORKLOADS[0], WORKLOADS[0]], "staging_dir": str(tmp_path / "state")}
    assert call("containerd_restore", state="checked", **given)["failure"]["code"] == "workload_duplicate"


def test_no_workload_is_no_change(call: Call, tmp_path: Path) -> None:
    found = call("containerd_restore", workloads=[], staging_dir=str(tmp_path / "state"))
    assert (found["changed"], found["workloads"]) == (False, {})


# --- what it makes of the steps' results


class Module:
    """As much of an AnsibleModule as the step touches."""

    def __init__(self, **parameters: Any) -> None:
        plain = {
            **dict.fromkeys(("driver_root", "lease", "record", "runtimes", "policy")),
            **dict.fromkeys(("force", "rebuild", "assume_prepared"), False),
            "huge_pages": "keep",
            "prewarm": "never",
            "parallel_memory": "never",
            **dict.fromkeys(("restore_timeout", "cuda_timeout", "gpu_retries", "keep_evidence", "parallel"), 1),
            "staging_dir": "/state",
            "owner": "me",
            "alive_seconds": 1.0,
            "workloads": WORKLOADS,
        }
        self.params = {**plain, **parameters}
        self.check_mode = False
        self.warnings: list[str] = []

    def warn(self, text: str) -> None:
        self.warnings.append(text)


class Client:
    """Not asked."""

    another = None


def test_problems_are_told_and_fail_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    verdict = Verdict(warnings=["slow"])
    verdict.refuse("two", NodeError("vram_short", "Too little.", "Free some.", outcome=RETRYABLE))
    predicted = {"one": Prediction(4.2, 1.0, "an estimate"), "two": None}
    monkeypatch.setattr(restore_batch, "check_all", lambda _client, _jobs, _parallel, _check: (verdict, predicted))
    module: Any = Module(state="checked")
    client: Any = Client()
    assert containerd_restore.step(module, client) == {
        "changed": False,
        "problems": [
            {
                "workload": "two",
                "code": "vram_short",
                "message": "Too little.",
                "remedy": "Free some.",
                "outcome": "retryable",
            }
        ],
        "predicted": {"one": {"seconds": 4.2, "ahead": 1.0, "basis": "an estimate", "crowd": 1.0}, "two": None},
    }
    assert module.warnings == ["slow"]


def test_one_that_failed_fails_the_module_and_the_others_changes_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def restore_all(_client: Any, jobs: list[restore_params.Job], parallel: int, check: bool) -> list[Result]:
        assert (parallel, check) == (1, False)
        fine, ill = Result(jobs[0], receipt_written=True), Result(jobs[1], step="gpu", warnings=["odd"])
        ill.fail(NodeError("cuda_restore_failed", "It is lost.", "Restore it anew.", details={"pid": 7}))
        return [fine, ill]

    monkeypatch.setattr(restore_batch, "restore_all", restore_all)
    module: Any = Module(state="restored")
    client: Any = Client()
    found = containerd_restore.step(module, client)
    assert (found["failed"], found["changed"], module.warnings) == (True, True, ["odd"])
    assert found["msg"] == "1 of 2 workload(s) failed. two: It is lost. Restore it anew."
    assert (found["failure"]["code"], found["failure"]["details"]) == ("cuda_restore_failed", {"pid": 7})
    assert found["workloads"]["one"]["failure"] is None
    assert found["workloads"]["two"]["changed"] is False
    assert list(found["diff"]["after"]) == ["one"]
