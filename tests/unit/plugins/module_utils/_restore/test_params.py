# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a workload is turned into, and what is refused."""

from __future__ import annotations

import json
from typing import Any

import pytest

from ansible_collections.gpuops.restore.plugins.module_utils._containerd.runtimes import Runtime
from ansible_collections.gpuops.restore.plugins.module_utils._core.errors import InputError
from ansible_collections.gpuops.restore.plugins.module_utils._gpu.access import GpuAccess
from ansible_collections.gpuops.restore.plugins.module_utils._gpu.teardown import Policy
from ansible_collections.gpuops.restore.plugins.module_utils._restore import params as restore_params
from ansible_collections.gpuops.restore.plugins.module_utils._restore.params import Job, Settings, jobs_of

PARAMETERS: dict[str, Any] = {
    "staging_dir": "/state",
    "owner": "me",
    "force": True,
    "lease": "lease-1",
    "rebuild": False,
    "alive_seconds": 2.5,
    "restore_timeout": 60,
    "cuda_timeout": 30,
    "driver_root": None,
    "gpu_retries": 2,
    "keep_evidence": 1,
    "huge_pages": "keep",
    "prewarm": "never",
    "parallel_memory": "always",
    "assume_prepared": True,
    "record": None,
    "runtimes": [{"name": "io.containerd.own.v1"}],
    "policy": {},
}


def job(settings: Settings | None = None, **workload: Any) -> Job:
    return Job.from_options({"name": "train", "checkpoint": "c:1", **workload}, settings or Settings())


def code(**workload: Any) -> str:
    with pytest.raises(InputError) as caught:
        job(**workload)
    return caught.value.code


def test_what_all_have_in_common_reaches_every_step() -> None:
    settings = restore_params.Settings.from_options(PARAMETERS)
    assert (settings.access, settings.record) == (GpuAccess(cuda_timeout=30.0), {})
    found = job(settings, gpu="required", stdout="/var/log/a", route="descriptor")
    for params in (found.container, found.task):
        assert (params.container_id, params.staging_dir, params.owner, params.force) == ("train", "/state", "me", True)
        assert params.assume_prepared is True
    assert (found.container.lease, found.container.rebuild) == ("lease-1", False)
    assert (found.task.alive_seconds, found.task.restore_timeout, found.task.stdout) == (2.5, 60.0, "/var/log/a")
    assert (found.task.route, found.task.checkpoint) == ("descriptor", "c:1")
    assert found.gpu.retries == 2
    assert found.container.runtimes == (Runtime("io.containerd.own.v1"),)
    assert found.gpu.policy == found.task.gpu, "the way back deals with the GPU as the way forth"
    assert found.gpu.policy == Policy("required", GpuAccess(cuda_timeout=30.0))


def test_what_is_left_out_has_its_default() -> None:
    found = job(mounts=None, env=None, criu=None, vram=None, gpu_map=None, probe=None, gpu=None, record=None)
    assert (found.gpu.policy.mode, found.gpu.gpu_map, found.gpu.vram, found.probe) == ("auto", {}, {}, None)
    assert (found.container.mounts, found.container.env, found.record) == ({}, {}, {})


def test_a_number_of_retries_below_none_is_none() -> None:
    assert job(Settings(gpu_retries=-3)).gpu.retries == 0


def test_secrets_are_not_in_what_is_shown() -> None:
    found = job(env={"TOKEN": "hunter2", "A": 1}, metadata_content='{"originalImage": "x", "snapshotter": "hunter2"}')
    assert found.shown["env"] == ["A", "TOKEN"]
    assert found.container.env == {"TOKEN": "hunter2", "A": "1"}
    assert "hunter2" not in json.dumps(found.shown)


def test_names_are_unique_and_such_that_containerd_takes_them() -> None:
    workloads = [{"name": name, "checkpoint": "c:1"} for name in ("a", "b", "a")]
    with pytest.raises(InputError) as caught:
        jobs_of(workloads, Settings())
    assert caught.value.code == "workload_duplicate"
    assert [found.name for found in jobs_of(workloads[:2], Settings())] == ["a", "b"]
    assert code(name="../a") == "container_id_invalid"
    assert code(name="") == "container_id_invalid"


def test_sizes_may_come_as_text() -> None:
    (job,) = jobs_of([{"name": "a", "checkpoint": "c:1", "vram": {"GPU-1": "12", "GPU-2": 7}}], Settings())
    assert job.gpu.vram == {"GPU-1": 12, "GPU-2": 7}
    for wrong in ("12 GiB", None, [1]):
        assert code(vram={"GPU-1": wrong}) == "vram_invalid"


@pytest.mark.parametrize(
    ("given", "kind", "expected"),
    [
        ({"command": ["true"], "file": None}, "command", {"exit_status": 0, "seconds": 30.0}),
        (
            {"command": ["true"], "command_seconds": 2.0, "exit_status": 3},
            "command",
            {"exit_status": 3, "seconds": 2.0},
        ),
        ({"command": []}, "command", {"command": ("",)}),
        ({"file": {"path": "/x", "seconds": None}}, "file", {"path": "/x", "seconds": 10.0}),
        ({"http": {"url": "http://x", "status": [204], "network": "host"}}, "http", {"in_container": False}),
        ({"http": {"url": "http://x", "status": [204], "validate_certs": False}}, "http", {"statuses": (204,)}),
        ({"http": {"url": "http://x", "network": "container"}}, "http", {"in_container": True}),
    ],
)
def test_a_probe(given: dict[str, Any], kind: str, expected: dict[str, Any]) -> None:
    probe = job(probe=given).probe
    assert probe is not None and probe.kind == kind
    assert {key: getattr(probe, key) for key in expected} == expected


def test_a_probe_is_of_one_kind() -> None:
    assert job(probe={"command": None, "file": None}).probe is None
    assert code(probe={"command": ["true"], "file": {"path": "/x"}}) == "probe_invalid"
    assert code(probe={"exit_status": 0}) == "probe_invalid"
