# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What is on a node: the containers, whether each can be captured, and the checkpoints."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.gpuops.restore.plugins.module_utils._capture import complete
from ansible_collections.gpuops.restore.plugins.module_utils._containerd.client import Client
from ansible_collections.gpuops.restore.plugins.module_utils._core import labels
from ansible_collections.gpuops.restore.plugins.module_utils._core.errors import InputError
from ansible_collections.gpuops.restore.plugins.module_utils._window import answers, look, selection
from ansible_collections.gpuops.restore.plugins.module_utils._window.look import LookParams
from ansible_collections.gpuops.restore.tests.standin import standin
from ansible_collections.gpuops.restore.tests.unit.helpers import capture_samples
from ansible_collections.gpuops.restore.tests.unit.helpers.capture_samples import BOX, NAME, Box
from ansible_collections.gpuops.restore.tests.unit.helpers.containerd_node import Node

pytest_plugins = ["ansible_collections.gpuops.restore.tests.unit.helpers.cuda_fixtures"]

GPU = standin.uuid(0)
GIB = standin.GIB

process = pytest.fixture(capture_samples.process)


@pytest.fixture
def box(fake: Any, client: Client, node: Node, tmp_path: Path, process: int) -> Box:
    made = Box(fake, client, node, tmp_path, process)
    made.bundle.mkdir()
    made.running = json.loads(fake.state.containers[BOX].spec.value)
    (made.bundle / "config.json").write_text(json.dumps(made.running), encoding="utf-8")
    return made


def gather(box: Box, **changes: Any) -> dict[str, Any]:
    params = LookParams(
        staging_dir=box.root,
        marks_root=str(box.run),
        access=dataclasses.replace(box.params.access, control_device="/nonexistent"),
    )
    return look.gather(box.client, dataclasses.replace(params, **changes))


def of(found: dict[str, Any], container_id: str = BOX) -> dict[str, Any]:
    (one,) = (entry for entry in found["workloads"] if entry["id"] == container_id)
    return dict(one)


def test_a_container_that_can_be_captured_and_its_checkpoint(box: Box) -> None:
    found = of(gather(box))
    assert (found["state"], found["live"], found["pid"]) == ("RUNNING", True, box.pid)
    assert [entry["pid"] for entry in found["processes"]] == [box.pid]
    assert (found["capturable"], found["problems"], found["gpu"]) == (True, [], False)
    assert found["predicted"]["total"] > 0 and found["estimated_size"] >= 0 and found["owner"] == "gpuops.restore"
    box.untouched()
    box.capture()
    seen = gather(box)
    assert of(seen)["capturable"] is True
    (kept,) = (one for one in seen["checkpoints"] if one["name"] == NAME)
    assert (kept["container"], kept["called"], kept["captured_here"], kept["gpu"]) == (BOX, BOX, True, False)
    # By the whole way: what was captured is what a restore takes.
    wanted = selection.parse({"names": ["b*"], "checkpoint": "example.test/{name}:1"})
    assert [one.checkpoint for one in selection.restores(wanted, answers.seen(seen), "gpu-a")] == [NAME]


def test_a_checkpoint_is_known_by_the_digest_that_it_had_before_its_image_was_written(box: Box) -> None:
    noted = box.capture(store="node", leave="stopped").digest
    (before,) = (one for one in gather(box)["checkpoints"] if one["name"] == NAME)
    assert (before["digest"], before["earlier"]) == (noted, "")
    complete.completed(box.client, dataclasses.replace(box.params, store="both"), False)
    (after,) = (one for one in gather(box)["checkpoints"] if one["name"] == NAME)
    assert after["digest"] != noted and after["earlier"] == noted


def test_each_reason_of_the_preflight_is_told_by_itself(box: Box) -> None:
    (box.here.proc / "1").mkdir(exist_ok=True)
    for program in ("criu", "runc"):
        (Path(box.bundle).parents[1] / "bin" / program).unlink()
    found = of(gather(box))
    assert found["capturable"] is False and found["estimated_size"] is found["predicted"] is None
    assert len({problem["code"] for problem in found["problems"]}) >= 2
    assert all(problem["message"] for problem in found["problems"])


def test_one_that_stands_still_cannot_be_captured(box: Box) -> None:
    box.fake.state.tasks[BOX].status = capture_samples.PAUSED
    assert [problem["code"] for problem in of(gather(box))["problems"]] == ["task_paused"]


@pytest.mark.parametrize("there", [True, False])
def test_one_without_processes_is_not_examined(box: Box, there: bool) -> None:
    if there:
        box.fake.state.tasks[BOX].status = capture_samples.STOPPED
    else:
        del box.fake.state.tasks[BOX]
    found = of(gather(box))
    assert (found["live"], found["capturable"], found["pid"]) == (False, None, None)
    assert found["state"] == ("STOPPED" if there else "ABSENT")


def test_a_pods_own_container_is_no_workload_and_has_the_labels_of_the_pod(box: Box, node: Node) -> None:
    pod = {"io.kubernetes.pod.namespace": "training", "io.kubernetes.pod.name": "bert-0", "io.kubernetes.pod.uid": "u"}
    state = box.fake.state
    state.containers[BOX].labels.update({**pod, "io.kubernetes.container.name": "trainer"})
    pause = capture_samples.record(node)
    pause.id = "pause"
    pause.labels.clear()
    pause.labels.update({**pod, "io.cri-containerd.kind": "sandbox", "team": "nlp"})
    state.containers["pause"] = pause
    state.tasks["pause"] = state.tasks[BOX]
    found = gather(box)
    assert (of(found)["name"], of(found)["labels"]["team"]) == ("training-bert-0-trainer", "nlp")
    assert of(found)["pod"] == {"namespace": "training", "name": "bert-0", "uid": "u", "container": "trainer"}
    assert [problem["code"] for problem in of(found, "pause")["problems"]] == ["pod_sandbox"]
    wanted = selection.parse({"labels": {"team": "nlp"}})
    assert [one.workload.identity.id for one in selection.captures(wanted, answers.seen(found), "a")] == [BOX]


def test_a_pods_container_is_found_by_its_pods_labels_when_it_was_restored_too(box: Box, node: Node) -> None:
    pod = {"io.kubernetes.pod.namespace": "training", "io.kubernetes.pod.name": "bert-0", "io.kubernetes.pod.uid": "u"}
    state = box.fake.state
    box.running["annotations"] = {"io.kubernetes.cri.sandbox-id": "pause"}
    (box.bundle / "config.json").write_text(json.dumps(box.running), encoding="utf-8")
    state.containers[BOX].spec.value = json.dumps(box.running).encode()
    state.containers[BOX].labels.update({**pod, "tier": "gpu"})
    pause = capture_samples.record(node)
    pause.id = "pause"
    pause.labels.update({**pod, "io.cri-containerd.kind": "sandbox", "team": "nlp"})
    state.containers["pause"] = pause
    box.capture()
    # The pod is gone.
    del state.containers["pause"], state.containers[BOX], state.tasks[BOX]
    (kept,) = (one for one in gather(box)["checkpoints"] if one["name"] == NAME)
    assert kept["labels"] == {"tier": "gpu", "team": "nlp"}
    restored = capture_samples.record(node)
    restored.labels.update(labels.of_origin(kept["labels"]))
    state.containers[BOX] = restored
    assert of(gather(box))["labels"] == {"tier": "gpu", "team": "nlp"}


def test_what_holds_memory_of_a_gpu(box: Box, world: standin.World) -> None:
    pid = world.add_process(standin.RUNNING, {GPU: GIB})
    box.hold(box.pid, pid)
    found = gather(box, preflight=False)
    assert found["nvml"]["available"], found["nvml"]
    one = of(found)
    assert (one["gpu"], one["gpu_memory"], one["gpu_uuids"]) == (True, GIB, [found["gpus"][0]["uuid"]])
    assert [entry["pid"] for entry in one["gpu_processes"]] == [pid]
    assert one["capturable"] is None


def test_names_that_are_not_there(box: Box) -> None:
    assert [one["id"] for one in gather(box, names=(BOX,))["workloads"]] == [BOX]
    with pytest.raises(InputError, match="no container bax in containerd's namespace tests"):
        gather(box, names=(BOX, "bax"))
