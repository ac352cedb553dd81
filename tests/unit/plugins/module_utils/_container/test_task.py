# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import dataclasses
import json
import os
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.gpuops.restore.plugins.module_utils._checkpoint import original, stage as stage_steps
from ansible_collections.gpuops.restore.plugins.module_utils._container import (
    container as container_steps,
    params as container_params,
    task as task_steps,
    task_end,
)
from ansible_collections.gpuops.restore.plugins.module_utils._container.task_params import TaskParams
from ansible_collections.gpuops.restore.plugins.module_utils._containerd import daemon
from ansible_collections.gpuops.restore.plugins.module_utils._containerd.client import DATA_TIMEOUT, Client
from ansible_collections.gpuops.restore.plugins.module_utils._containerd.messages import message
from ansible_collections.gpuops.restore.plugins.module_utils._core import labels as core_labels, state_dir
from ansible_collections.gpuops.restore.plugins.module_utils._core.errors import (
    RETRYABLE,
    UNKNOWN,
    NodeError,
    RestoreError,
    RpcError,
)
from ansible_collections.gpuops.restore.plugins.module_utils._criu import dump_config
from ansible_collections.gpuops.restore.plugins.module_utils._host import task_worker
from ansible_collections.gpuops.restore.tests.unit.helpers.containerd_node import Node
from ansible_collections.gpuops.restore.tests.unit.helpers.containerd_samples import (
    BASE_NAME,
    CHECKPOINT_NAME,
    CRIU,
    CRIU_FILES,
    add_checkpoint,
    spec,
)
from ansible_collections.gpuops.restore.tests.unit.helpers.fake_containerd import FakeContainerd
from ansible_collections.gpuops.restore.tests.unit.helpers.fake_state import Task

RUNTIME = {
    "io.containerd.checkpoint.runtime": "io.containerd.runc.v2",
    "org.opencontainers.image.ref.name": BASE_NAME,
}
KEY = ("overlayfs", "gpuops-restore-train")
STATUS = {"UNKNOWN": 0, "CREATED": 1, "RUNNING": 2, "STOPPED": 3, "PAUSED": 4, "PAUSING": 5}


def used(fake: FakeContainerd) -> bool:
    return fake.state.snapshots[KEY].labels.get(core_labels.USED) == "true"


@pytest.mark.parametrize("act", [task_steps.started, task_end.stopped, task_end.absent])
def test_a_parked_task_is_left_alone(
    fake: FakeContainerd, client: Client, ready: TaskParams, act: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_task(fake, "PAUSED", os.getpid())
    refused = RestoreError("workload_parked", "Parked.", "Bring it back.")

    def refuse(namespace: str, task: Any) -> None:
        assert (namespace, task.pid) == ("tests", os.getpid())
        raise refused

    monkeypatch.setattr(task_steps.parked, "refuse", refuse)
    for check in (True, False):
        with pytest.raises(RestoreError) as caught:
            act(client, ready, check)
        assert caught.value is refused
    assert fake.state.tasks["train"].status == STATUS["PAUSED"]


def put_task(fake: FakeContainerd, status: str, pid: int = 77) -> None:
    fake.state.tasks["train"] = Task(None, pid, STATUS[status], 137 if status == "STOPPED" else 0)


# --- started


def test_a_task_from_the_staged_checkpoint(fake: FakeContainerd, client: Client, ready: TaskParams) -> None:
    done = task_steps.started(client, ready, False)
    assert (done.changed, done.created, done.before, done.after) == (True, True, "absent", "RUNNING")
    assert done.task == {"id": "train", "pid": os.getpid(), "status": "RUNNING", "exit_status": None}
    assert set(done.seconds) == {"create", "start", "alive"}
    assert done.seconds["alive"] >= 0.05
    request = fake.state.tasks["train"].request
    options = message("containerd.runc.v1.Options")
    options.ParseFromString(request.options.value)
    assert options.criu_image_path == os.path.join(ready.staging_dir, _key(fake), "images")
    assert options.criu_work_path == state_dir.work_dir(ready.staging_dir, "tests", "train")
    assert options.no_new_keyring is True  # the container's own options are kept
    assert not request.checkpoint.digest
    # Where runc has no pipe for the input, CRIU would take the host's /dev/null.
    assert request.stdin == os.path.join(options.criu_work_path, "stdin")
    assert [mount.source for mount in request.rootfs] == ["overlayfs|gpuops-restore-train"]
    assert (request.stdout, request.stderr, request.terminal) == ("file:///dev/null", "file:///dev/null", False)
    again = task_steps.started(client, ready, False)
    assert (again.changed, again.created, again.task) == (False, False, done.task)


def test_criu_may_read_its_images_in_a_user_namespace(
    fake: FakeContainerd, client: Client, ready: TaskParams, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: dict[str, tuple[int, int]] = {}
    monkeypatch.setattr(os, "chown", lambda path, uid, gid, **_more: given.update({path: (uid, gid)}))
    task_steps.started(client, ready, True)
    assert given == {}
    users, groups = ([{"containerID": 0, "hostID": host, "size": 65536}] for host in (100000, 200000))
    found = json.loads(fake.state.containers["train"].spec.value)
    found["linux"]["namespaces"].append({"type": "user"})
    found["linux"].update(uidMappings=users, gidMappings=groups)
    fake.state.containers["train"].spec.value = json.dumps(found).encode()
    task_steps.started(client, ready, False)
    directory = os.path.join(ready.staging_dir, _key(fake), "images")
    files = [os.path.join(directory, name) for name in CRIU_FILES]
    # Still root's, as which CRIU opens some of them before its user is mapped.
    assert given == dict.fromkeys([directory, *files], (-1, 200000))
    assert {os.stat(path).st_mode & 0o777 for path in files} == {0o640}
    assert os.stat(directory).st_mode & 0o777 == 0o750


def _key(fake: FakeContainerd) -> str:
    return str(fake.state.images[CHECKPOINT_NAME].target.digest).split(":", 1)[1]


def test_the_snapshot_is_marked_as_used_before_anything_runs(
    fake: FakeContainerd, client: Client, ready: TaskParams
) -> None:
    seen = []
    fake.on("Tasks/Create", lambda _context: seen.append(used(fake)))
    task_steps.started(client, ready, False)
    assert seen == [True]


def test_the_descriptor_route_gives_the_blob_and_no_directory(
    fake: FakeContainerd, client: Client, ready: TaskParams, node: Node
) -> None:
    task_steps.started(client, dataclasses.replace(ready, route="descriptor"), False)
    request = fake.state.tasks["train"].request
    assert request.checkpoint.digest == node.checkpoint.parts[CRIU]
    assert request.checkpoint.media_type == CRIU
    assert not request.options.value


@pytest.fixture
def own_network(fake: FakeContainerd, client: Client, node: Node) -> TaskParams:
    """As ``ready``, for a container with a network namespace of its own."""
    original_spec = spec()
    original_spec["linux"]["namespaces"].append({"type": "network"})
    add_checkpoint(fake.state, base=node.base, original=original_spec)
    stage_steps.present(client, CHECKPOINT_NAME, node.root, None, False)
    wanted = container_params.ContainerParams("train", original.Source(CHECKPOINT_NAME), staging_dir=node.root)
    container_steps.present(client, wanted, False)
    fake.heal()
    return TaskParams("train", CHECKPOINT_NAME, staging_dir=node.root, alive_seconds=0.05)


@pytest.mark.parametrize("route", ["staged", "descriptor"])
def test_loopback_is_brought_up_by_what_criu_starts(
    fake: FakeContainerd, client: Client, own_network: TaskParams, node: Node, route: str
) -> None:
    (node.programs / "criu").write_text("#!/bin/sh\necho Version: 4.2.1\n", encoding="ascii")
    config = Path(state_dir.criu_config(node.root, "tests", "train"))
    before = config.read_text(encoding="utf-8")
    seen = []

    def restore(_context: Any) -> None:
        seen.append(config.read_text(encoding="utf-8"))
        (config.parent / "loopback.json").write_text('{"up": true}', encoding="utf-8")

    fake.on("Tasks/Start", restore)
    done = task_steps.started(client, dataclasses.replace(own_network, route=route), False)
    assert done.warnings == []
    assert seen == [before + f"action-script={config.parent}/loopback.sh\n"]
    # Later dumps have the same configuration.
    assert config.read_text(encoding="utf-8") == before
    assert sorted(path.name for path in config.parent.iterdir()) == ["criu.conf", "stdin"]


@pytest.fixture
def recorded(fake: FakeContainerd, client: Client, node: Node) -> TaskParams:
    """As ``ready``, of a checkpoint that records a limit which this process has not, at which CRIU then looks."""
    kinds = {"limits": {"1": {"Max open files": "3 3"}}}
    state = json.dumps({"version": 1, "kinds": kinds, "omitted": []})
    add_checkpoint(fake.state, base=node.base, annotations={core_labels.STATE: state, **RUNTIME})
    stage_steps.present(client, CHECKPOINT_NAME, node.root, None, False)
    wanted = container_params.ContainerParams("train", original.Source(CHECKPOINT_NAME), staging_dir=node.root)
    container_steps.present(client, wanted, False)
    fake.heal()
    (node.programs / "criu").write_text("#!/bin/sh\necho Version: 4.2.1\n", encoding="ascii")
    observed = task_worker.observe(os.getpid())
    observed["processes"] = observed["processes"][:1]
    observed["processes"][0]["status"] = "Name:\tjob\nNSpid:\t99\t1\n"
    report = Path(state_dir.criu_config(node.root, "tests", "train")).parent / "state.json"
    fake.on("Tasks/Start", lambda _context: report.write_text(json.dumps(observed), encoding="utf-8"))
    return TaskParams("train", CHECKPOINT_NAME, staging_dir=node.root, alive_seconds=0.05)


def test_what_is_other_than_it_was_is_told(client: Client, recorded: TaskParams) -> None:
    done = task_steps.started(client, recorded, False)
    assert done.differences is not None and [one["kind"] for one in done.differences] == ["limits"]
    assert "Max open files of process 1 was 3 3" in done.differences[0]["message"]
    assert "does not record of its task: mounts" in done.not_compared
    assert any("Max open files" in warning for warning in done.warnings)


@pytest.mark.parametrize(("kinds", "fails"), [(("limits",), True), (("all",), True), (("mounts", "seccomp"), False)])
def test_or_fails_the_restore(
    fake: FakeContainerd, client: Client, recorded: TaskParams, kinds: tuple[str, ...], fails: bool
) -> None:
    params = dataclasses.replace(recorded, fail_on=kinds)
    if not fails:
        assert task_steps.started(client, params, False).created
        return
    with pytest.raises(RestoreError) as caught:
        task_steps.started(client, params, False)
    assert caught.value.code == "task_differs"
    assert "train" not in fake.state.tasks


def test_without_a_record_there_is_nothing_to_compare(client: Client, ready: TaskParams) -> None:
    done = task_steps.started(client, dataclasses.replace(ready, fail_on=("all",)), False)
    assert done.differences is None and "does not record" in done.not_compared
    assert done.warnings == [done.not_compared]


def test_the_nodes_configuration_of_criu_holds_while_it_restores(
    fake: FakeContainerd, client: Client, own_network: TaskParams, node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    (Path(node.root) / "runc.conf").write_text("timeout 60\nverbosity 1\n", encoding="ascii")
    monkeypatch.setattr(dump_config, "NODE_CONFIG", f"{node.root}/runc.conf")
    config = Path(state_dir.criu_config(node.root, "tests", "train"))
    before = config.read_text(encoding="utf-8")
    seen: list[list[str]] = []
    fake.on("Tasks/Start", lambda _context: seen.append(config.read_text(encoding="utf-8").splitlines()))
    task_steps.started(client, own_network, False)
    assert [line for line in seen[0] if line.startswith(("timeout", "verbosity"))] == ["verbosity=4", "timeout 60"]
    assert config.read_text(encoding="utf-8") == before


@pytest.mark.parametrize(
    ("criu", "why"),
    [("3.17.1", "CRIU 3.17.1 runs no scripts under runc"), ("4.2.1", "CRIU has not started what brings it up")],
)
def test_loopback_that_stays_down_is_said(
    client: Client, own_network: TaskParams, node: Node, criu: str, why: str
) -> None:
    (node.programs / "criu").write_text(f"#!/bin/sh\necho Version: {criu}\n", encoding="ascii")
    (warning,) = task_steps.started(client, own_network, False).warnings
    assert "loopback interface of train stays down" in warning and why in warning


@pytest.fixture
def extracts(fake: FakeContainerd, client: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The daemon leaves a copy of the memory, as containerd does on the descriptor route."""
    runtime = tmp_path / "run"
    (runtime / "ctrd-checkpoint-of-others").mkdir(parents=True)
    programs = str(tmp_path / "bin")
    environment = {"PATH": programs, "XDG_RUNTIME_DIR": str(runtime)}
    monkeypatch.setattr(daemon, "daemon_environment", lambda _client: environment)
    fake.on("Tasks/Create", lambda _context: (runtime / "ctrd-checkpoint1").mkdir())
    return runtime


@pytest.mark.parametrize("fails", [False, True])
def test_the_extracted_copy_of_the_memory_is_removed(
    fake: FakeContainerd, client: Client, ready: TaskParams, extracts: Path, fails: bool
) -> None:
    if fails:
        fake.fail("Tasks/Start")
    try:
        task_steps.started(client, dataclasses.replace(ready, route="descriptor"), False)
    except RestoreError:
        assert fails
    assert os.listdir(extracts) == ["ctrd-checkpoint-of-others"]


def test_a_daemon_that_went_away_does_not_hide_the_failure(
    fake: FakeContainerd, client: Client, ready: TaskParams, extracts: Path
) -> None:
    def stop(_context: Any) -> None:
        fake.stop()
        raise RuntimeError("killed")

    fake.on("Tasks/Start", stop, times=1)
    with pytest.raises(RestoreError) as caught:
        task_steps.started(client, dataclasses.replace(ready, route="descriptor"), False)
    assert caught.value.code == "daemon_unavailable"
    assert caught.value.outcome == UNKNOWN  # nobody can say what became of the task
    assert "train" in caught.value.details["left_behind"]


def test_output_goes_to_files_that_only_root_reads(
    fake: FakeContainerd, client: Client, ready: TaskParams, tmp_path: Path
) -> None:
    log = tmp_path / "out.log"
    done = task_steps.started(client, dataclasses.replace(ready, stdout=str(log)), False)
    request = fake.state.tasks["train"].request
    assert (request.stdout, request.stderr) == (f"file://{log}", f"file://{log}")
    assert log.stat().st_mode & 0o777 == 0o600
    assert done.output_created == [str(log)]


def test_a_mount_label_goes_to_the_root_file_system(
    fake: FakeContainerd, client: Client, node: Node, ready: TaskParams
) -> None:
    labelled = spec()
    labelled["linux"]["mountLabel"] = "system_u:object_r:container_file_t:s0:c1,c2"
    add_checkpoint(fake.state, base=node.base, original=labelled)
    wanted = container_params.ContainerParams(
        "train", original.Source(CHECKPOINT_NAME), staging_dir=node.root, force=True
    )
    stage_steps.present(client, CHECKPOINT_NAME, node.root, None, False)
    container_steps.present(client, wanted, False)
    task_steps.started(client, ready, False)
    mounts = fake.state.tasks["train"].request.rootfs
    assert 'context="system_u:object_r:container_file_t:s0:c1,c2"' in mounts[0].options


def test_criu_is_told_of_mounts_that_runc_does_not_make(
    fake: FakeContainerd, client: Client, node: Node, ready: TaskParams, tmp_path: Path
) -> None:
    """Below /proc; while it restores, and not when the container is captured again."""
    wanted = container_params.ContainerParams(
        "train",
        original.Source(CHECKPOINT_NAME),
        added_mounts={"/proc/driver/nvidia/params": str(tmp_path)},
        staging_dir=node.root,
        force=True,
    )
    container_steps.present(client, wanted, False)
    config = Path(state_dir.criu_config(node.root, "tests", "train"))
    before, seen = config.read_text(encoding="utf-8"), []
    fake.on("Tasks/Start", lambda _context: seen.append(config.read_text(encoding="utf-8")))
    task_steps.started(client, ready, False)
    (told,) = seen
    assert told.startswith(before) and f"\nexternal=mnt[/proc/driver/nvidia/params]:{tmp_path}\n" in told
    assert config.read_text(encoding="utf-8") == before


def test_an_ordinary_start_from_the_image(fake: FakeContainerd, client: Client, ready: TaskParams) -> None:
    task_steps.started(client, dataclasses.replace(ready, checkpoint=""), False)
    request = fake.state.tasks["train"].request
    assert not request.options.value and not request.checkpoint.digest
    assert used(fake)


# --- what goes wrong


def world(fake: FakeContainerd, root: str) -> Any:
    listing = fake.state.listing()
    for _parent, _kind, labels, _layers in listing["snapshots"].values():
        labels.pop(core_labels.USED, None)
    return listing, sorted(os.walk(root))


@pytest.mark.parametrize("route", ["staged", "descriptor"])
@pytest.mark.parametrize("name", ["Tasks/Create", "Tasks/Start"])
def test_a_failed_restore_leaves_no_task_and_is_explained(
    fake: FakeContainerd, client: Client, ready: TaskParams, tmp_path: Path, name: str, route: str
) -> None:
    log = state_dir.restore_log(ready.staging_dir, "tests", "train")
    Path(log).write_text("(00.01) Error (criu/files-reg.c:1): Can't open file data/x on restore: No such file\n")
    before = world(fake, ready.staging_dir)
    fake.fail(name, "UNKNOWN", "criu failed: type NOTIFY errno 0")
    with pytest.raises(RestoreError) as caught:
        task_steps.started(client, dataclasses.replace(ready, route=route, stdout=str(tmp_path / "new.log")), False)
    error = caught.value
    assert error.code == "criu_restore_failed"
    assert error.rpc == f"containerd.services.tasks.v1.{name}"
    assert error.details["log"] == log and "data/x" in str(error.details["errors"])
    assert error.details["daemon"] == "criu failed: type NOTIFY errno 0"
    assert "left_behind" not in error.details
    assert world(fake, ready.staging_dir) == before
    assert used(fake)
    assert not (tmp_path / "new.log").exists()


@pytest.mark.parametrize(
    "name",
    ["Snapshots/Mounts", "Snapshots/Update", "Tasks/Create", "Tasks/Start", "Tasks/Wait", "Tasks/Get after the start"],
)
@pytest.mark.parametrize("checkpoint", [CHECKPOINT_NAME, ""], ids=["restore", "ordinary start"])
def test_a_failure_at_any_call_leaves_no_task(
    fake: FakeContainerd, client: Client, ready: TaskParams, tmp_path: Path, name: str, checkpoint: str
) -> None:
    before = world(fake, ready.staging_dir)
    if name.endswith("after the start"):
        fake.on("Tasks/Start", lambda _context: fake.fail("Tasks/Get", times=1))
    else:
        fake.fail(name, times=1)
    wanted = dataclasses.replace(ready, checkpoint=checkpoint, stdout=str(tmp_path / "new.log"))
    with pytest.raises(RestoreError):
        task_steps.started(client, wanted, False)
    assert world(fake, ready.staging_dir) == before
    assert not (tmp_path / "new.log").exists()


def test_output_files_that_were_there_stay_after_a_failure(
    fake: FakeContainerd, client: Client, ready: TaskParams, tmp_path: Path
) -> None:
    log = tmp_path / "old.log"
    log.write_text("before\n", encoding="utf-8")
    fake.fail("Tasks/Start")
    with pytest.raises(RestoreError):
        task_steps.started(client, dataclasses.replace(ready, stdout=str(log)), False)
    assert log.read_text(encoding="utf-8") == "before\n"


@pytest.mark.parametrize("route", ["staged", "descriptor"])
def test_a_restore_takes_as_long_as_its_size_allows(
    fake: FakeContainerd, client: Client, ready: TaskParams, node: Node, route: str
) -> None:
    client.rate = len(fake.state.blobs[node.checkpoint.parts[CRIU]].data) / 1e6
    task_steps.started(client, dataclasses.replace(ready, route=route), False)
    assert fake.seconds("Tasks/Start") == [pytest.approx(1e6, rel=0.05)]
    expected = 2e6 if route == "descriptor" else DATA_TIMEOUT
    assert fake.seconds("Tasks/Create") == [pytest.approx(expected, rel=0.05)]


def test_a_restore_that_outlasts_its_time_is_of_unknown_outcome(
    fake: FakeContainerd, client: Client, ready: TaskParams
) -> None:
    fake.hang("Tasks/Start")
    with pytest.raises(RestoreError) as caught:
        task_steps.started(client, dataclasses.replace(ready, restore_timeout=0.2), False)
    assert (caught.value.code, caught.value.outcome) == ("restore_timeout", UNKNOWN)
    assert fake.state.tasks == {}
    assert fake.count("Tasks/Start") == 1


def test_a_daemon_that_dies_in_the_restore_is_not_a_failed_restore(
    fake: FakeContainerd, client: Client, ready: TaskParams
) -> None:
    fake.drop("Tasks/Start", times=1)
    with pytest.raises(RpcError) as caught:
        task_steps.started(client, ready, False)
    assert (caught.value.code, caught.value.outcome) == ("daemon_unavailable", RETRYABLE)
    assert fake.count("Tasks/Start") == 1
    assert fake.state.tasks == {}


@pytest.mark.parametrize("name", ["Tasks/Get", "Tasks/Delete"])
def test_a_task_that_cannot_be_cleared_away_is_said(
    fake: FakeContainerd, client: Client, ready: TaskParams, name: str
) -> None:
    fake.on("Tasks/Start", lambda _context: fake.fail(name, text="not now"))
    fake.fail("Tasks/Start", "UNKNOWN", "criu failed")
    with pytest.raises(RestoreError) as caught:
        task_steps.started(client, ready, False)
    assert (caught.value.code, caught.value.outcome) == ("criu_restore_failed", UNKNOWN)
    assert "not now" in caught.value.details["left_behind"]


# --- what is refused


def refused(client: Client, fake: FakeContainerd, wanted: TaskParams) -> RestoreError:
    """The refusal, the same in check mode and in a run, with nothing changed."""
    before = fake.state.listing()
    found = []
    for check in (True, False):
        with pytest.raises(RestoreError) as caught:
            task_steps.started(client, wanted, check)
        found.append((caught.value.code, caught.value.message))
    assert found[0] == found[1]
    assert fake.state.listing() == before
    return caught.value


def test_a_used_snapshot_is_never_restored_on(fake: FakeContainerd, client: Client, ready: TaskParams) -> None:
    task_steps.started(client, ready, False)
    task_end.absent(client, ready, False)
    assert refused(client, fake, ready).code == "snapshot_used"


def test_no_container(fake: FakeContainerd, client: Client, ready: TaskParams) -> None:
    wanted = dataclasses.replace(ready, container_id="other")
    assert refused(client, fake, wanted).code == "container_absent"
    predicted = task_steps.started(client, dataclasses.replace(wanted, assume_prepared=True), True)
    assert (predicted.changed, predicted.created) == (True, True)


def test_a_container_of_another_owner(fake: FakeContainerd, client: Client, ready: TaskParams) -> None:
    wanted = dataclasses.replace(ready, owner="somebody")
    assert refused(client, fake, wanted).code == "container_not_ours"
    assert task_steps.started(client, dataclasses.replace(wanted, force=True), False).created is True


def test_a_container_of_another_checkpoint(fake: FakeContainerd, client: Client, ready: TaskParams) -> None:
    add_checkpoint(fake.state, name="other")
    error = refused(client, fake, dataclasses.replace(ready, checkpoint="other", force=True))
    assert error.code == "container_other_checkpoint"


def test_a_checkpoint_that_is_not_staged(fake: FakeContainerd, client: Client, ready: TaskParams) -> None:
    stage_steps.absent(client, _key(fake), ready.staging_dir, False)
    assert refused(client, fake, ready).code == "checkpoint_not_staged"
    assert task_steps.started(client, dataclasses.replace(ready, route="descriptor"), True).changed is True


def test_a_snapshot_that_is_gone(fake: FakeContainerd, client: Client, ready: TaskParams) -> None:
    del fake.state.snapshots[KEY]
    assert refused(client, fake, ready).code == "snapshot_absent"


def test_a_lost_criu_configuration_which_criu_would_ignore(
    fake: FakeContainerd, client: Client, ready: TaskParams
) -> None:
    os.unlink(state_dir.criu_config(ready.staging_dir, "tests", "train"))
    assert refused(client, fake, ready).code == "criu_config_missing"


def test_programs_that_the_daemon_would_not_find(
    fake: FakeContainerd, client: Client, ready: TaskParams, node: Node
) -> None:
    (node.programs / "criu").unlink()
    assert refused(client, fake, ready).code == "criu_missing"
    (node.programs / "iptables-restore").unlink()
    error = refused(client, fake, ready)
    assert isinstance(error, NodeError) and error.code == "node_problems"
    assert "criu" in error.message and "iptables-restore" in error.message


def test_output_into_a_directory_that_is_not_there(fake: FakeContainerd, client: Client, ready: TaskParams) -> None:
    assert refused(client, fake, dataclasses.replace(ready, stdout="/none/x.log")).code == "stdio_no_directory"
