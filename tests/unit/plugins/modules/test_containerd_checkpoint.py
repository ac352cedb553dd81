# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from ansible_collections.gpuops.restore.plugins.module_utils._capture import capture as capture_steps, settle
from ansible_collections.gpuops.restore.plugins.module_utils._capture.params import CaptureParams, CaptureResult
from ansible_collections.gpuops.restore.plugins.module_utils._containerd.client import Client
from ansible_collections.gpuops.restore.plugins.module_utils._probe import hook as probe_hook
from ansible_collections.gpuops.restore.plugins.module_utils._probe.probe import ProbeResult
from ansible_collections.gpuops.restore.tests.unit.helpers import ansible_modules, capture_samples
from ansible_collections.gpuops.restore.tests.unit.helpers.ansible_modules import Call
from ansible_collections.gpuops.restore.tests.unit.helpers.capture_samples import BOX, NAME, Box
from ansible_collections.gpuops.restore.tests.unit.plugins.modules.test_window_options import other

CHECKPOINT = "containerd_checkpoint"
PLACES = ("access", "marks_root")

process = pytest.fixture(capture_samples.process)


@pytest.fixture
def box(fake: Any, client: Client, node: Any, tmp_path: Any, process: int, monkeypatch: pytest.MonkeyPatch) -> Box:
    """The module captures where this container's processes are, instead of in this machine's /proc."""
    made = Box(fake, client, node, tmp_path, process)
    places = {place: getattr(made.params, place) for place in PLACES}

    def there(act: Any) -> Any:
        return lambda found, params, *more: act(found, dataclasses.replace(params, **places), *more)

    monkeypatch.setattr(capture_steps, "captured", there(capture_steps.captured))
    monkeypatch.setattr(capture_steps, "foretold", there(capture_steps.foretold))
    monkeypatch.setattr(settle, "settled", there(settle.settled))
    return made


def test_captured_paused_and_settled(call: Call, box: Box) -> None:
    options: dict[str, Any] = {"container_id": BOX, "name": NAME, "staging_dir": box.root, "gpu": "none"}
    predicted = call(CHECKPOINT, True, **options)
    assert (predicted["checkpoint"]["digest"], "sizes" in predicted) == (None, False)
    done = call(CHECKPOINT, leave="paused", **options)
    assert (predicted["changed"], done["changed"], box.status()) == (True, True, capture_samples.PAUSED)
    assert done["recorded"]["container"] == BOX
    assert (sorted(done["sizes"]), done["seconds"]["total"] > 0) == (["criu", "memory_volumes", "writable_layer"], True)
    assert done["checkpoint"]["digest"] == box.fake.state.images[NAME].target.digest
    settled = call(CHECKPOINT, state="settled", **options)
    assert (settled["changed"], box.status()) == (True, capture_samples.RUNNING)
    assert call(CHECKPOINT, **options)["changed"] is False


def test_several_in_one_call(call: Call, box: Box) -> None:
    """One is there, the other one is not: what was captured is told, and so is what was not."""
    lacking = {"container_id": "lacking", "name": "example.test/lacking:1", "gpu": "none"}
    workloads = [lacking, {"container_id": BOX, "name": NAME, "gpu": "none", "store": "node"}]
    given = {"workloads": workloads, "staging_dir": box.root}
    for check in (True, False):
        done = call(CHECKPOINT, check, **given)
        assert (done["failed"], done["failure"]["code"], done["changed"]) == (True, "container_absent", True)
        assert "lacking" in done["msg"] and done["workloads"]["lacking"]["failure"]["code"] == "container_absent"
        assert done["workloads"][BOX]["failure"] is None and done["workloads"][BOX]["changed"]
    assert done["workloads"][BOX]["checkpoint"]["digest"] == box.fake.state.images[NAME].target.digest
    assert done["workloads"][BOX]["seconds"]["standstill"] > 0 and done["workloads"][BOX]["staged"]
    again = call(CHECKPOINT, workloads=workloads[1:], staging_dir=box.root)
    assert (again["changed"], again.get("failed")) == (False, None)


def test_the_examples_hold_for_a_container_that_is_not_ours(
    call: Call, box: Box, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(probe_hook, "run", lambda _client, hook: ProbeResult(hook.target.kind, True, "It ended."))
    box.fake.state.containers[BOX].labels.clear()
    examples = [
        task[f"{ansible_modules.COLLECTION}.{CHECKPOINT}"] for task in ansible_modules.document(CHECKPOINT, "EXAMPLES")
    ]
    assert len(examples) >= 3
    for options in sorted(examples, key=lambda given: given.get("leave") == "stopped"):
        # This machine has no GPU to insist on.
        own = {"container_id": BOX, "gpu": "none"}
        one = (
            {"workloads": [{**options["workloads"][0], **own, "leave": "running"}]}
            if "workloads" in options
            else {**options, **own}
        )
        given = {**one, "staging_dir": box.root}
        found = call(CHECKPOINT, **given)
        assert found.get("changed") is True, found


@pytest.mark.parametrize(
    "name",
    sorted(
        set(ansible_modules.argument_spec(CHECKPOINT))
        - {"state", "busy_timeout", "workloads", "parallel", "progress", "progress_id"}
    ),
)
def test_every_option_reaches_the_capture(call: Call, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    seen: list[CaptureParams] = []

    def captured(_client: Client, params: CaptureParams, _check: bool) -> CaptureResult:
        seen.append(params)
        return CaptureResult()

    monkeypatch.setattr(capture_steps, "captured", captured)
    least = {"container_id": BOX, "name": NAME}
    call(CHECKPOINT, **least)
    call(CHECKPOINT, **{**least, name: other(name, ansible_modules.argument_spec(CHECKPOINT)[name])})
    assert seen[0] != seen[1]
