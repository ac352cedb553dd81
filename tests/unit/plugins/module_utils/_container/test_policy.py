# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What of the host a restored container may have."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.gpuops.restore.plugins.module_utils._checkpoint import (
    metadata,
    original,
    staged as staged_checkpoint,
)
from ansible_collections.gpuops.restore.plugins.module_utils._container import container as container_steps
from ansible_collections.gpuops.restore.plugins.module_utils._container.params import ContainerParams
from ansible_collections.gpuops.restore.plugins.module_utils._container.policy import Policy
from ansible_collections.gpuops.restore.plugins.module_utils._containerd.client import Client
from ansible_collections.gpuops.restore.plugins.module_utils._core import labels
from ansible_collections.gpuops.restore.plugins.module_utils._core.errors import RestoreError
from ansible_collections.gpuops.restore.plugins.module_utils._oci import spec_generate
from ansible_collections.gpuops.restore.plugins.module_utils._oci.facts import Facts
from ansible_collections.gpuops.restore.plugins.module_utils._oci.spec_rights import Right
from ansible_collections.gpuops.restore.plugins.module_utils._restore import preflight
from ansible_collections.gpuops.restore.tests.unit.helpers import criu_samples
from ansible_collections.gpuops.restore.tests.unit.helpers.containerd_node import Node
from ansible_collections.gpuops.restore.tests.unit.helpers.containerd_samples import CHECKPOINT_NAME, add_checkpoint
from ansible_collections.gpuops.restore.tests.unit.helpers.fake_containerd import FakeContainerd
from ansible_collections.gpuops.restore.tests.unit.helpers.fake_state import Task

DIGEST = "sha256:" + 64 * "a"


def usual(**linux: Any) -> dict[str, Any]:
    """A container as containerd starts one by its defaults."""
    found = spec_generate.generate({"os": "linux", "config": {"Cmd": ["train"]}}, "train", host_network=True)
    found["linux"]["namespaces"].append({"type": "network"})
    found["linux"].update(linux)
    return found


def privileged(tmp_path: Path) -> dict[str, Any]:
    """One that asks for everything. Its sources are there."""
    found = usual(
        namespaces=[{"type": "mount"}],
        sysctl={"kernel.msgmax": "1"},
        readonlyPaths=[],
        resources={"devices": [{"allow": True, "type": "a", "access": "rwm"}]},
    )
    found["process"]["capabilities"]["bounding"].append("CAP_SYS_ADMIN")
    found["mounts"] += [
        {"destination": "/host", "type": "bind", "source": "/", "options": ["bind", "rw"]},
        {"destination": "/own", "type": "bind", "source": str(tmp_path), "options": ["bind", "rw"]},
        {"destination": "/disk", "type": "ext4", "source": "/dev/sda1"},
    ]
    return found


ALL_OF_IT = {
    "capabilities": ["CAP_SYS_ADMIN"],
    "host_namespaces": ["ipc", "network", "pid", "uts"],
    "devices": ["all"],
    "sysctls": ["kernel.msgmax"],
    "mount_types": ["ext4"],
    "privileged": True,
    "host_control": True,
}


def params(node: Node, policy: Policy | None = None, **source: Any) -> ContainerParams:
    return ContainerParams(
        container_id="train",
        source=original.Source(CHECKPOINT_NAME, **source),
        staging_dir=node.root,
        policy=policy or Policy(),
    )


def refused(client: Client, wanted: ContainerParams) -> RestoreError:
    """The refusal of a run, which check mode and the preflight foretell."""
    found = []
    for check in (True, False):
        with pytest.raises(RestoreError) as caught:
            container_steps.present(client, wanted, check)
        found.append(caught.value)
    assert {error.code for error in found} == {"policy_refused"}
    assert found[0].problem() in preflight.report(client, wanted).problems
    return found[1]


def made(client: Client, wanted: ContainerParams) -> bool:
    assert "policy_refused" not in [problem["code"] for problem in preflight.report(client, wanted).problems]
    return container_steps.present(client, wanted, False).created


def test_a_stranger_s_ordinary_container_comes_back(fake: FakeContainerd, client: Client, node: Node) -> None:
    add_checkpoint(fake.state, base=node.base, original=usual(), captured=False)
    assert made(client, params(node))


def test_all_that_a_stranger_s_asks_for_is_told_with_its_key(
    fake: FakeContainerd, client: Client, node: Node, tmp_path: Path
) -> None:
    sample = add_checkpoint(fake.state, base=node.base, original=privileged(tmp_path), captured=False)
    before = fake.state.listing()
    error = refused(client, params(node))
    assert fake.state.listing() == before
    assert error.details["policy"] == {**ALL_OF_IT, "bind_sources": ["/", str(tmp_path)]}
    for key in error.details["policy"]:
        assert f"({key})" in error.message and f"{key}: " in error.remedy
    assert f"digest: {sample.digest}" in error.remedy


def test_what_the_message_says_is_enough(fake: FakeContainerd, client: Client, node: Node, tmp_path: Path) -> None:
    add_checkpoint(fake.state, base=node.base, original=privileged(tmp_path), captured=False)
    needed = refused(client, params(node)).details["policy"]
    for key in needed:
        # ``privileged`` gives capabilities and devices as well.
        without = {key, "privileged"} if key in ("capabilities", "devices") else {key}
        lacking = {name: value for name, value in needed.items() if name not in without}
        assert set(refused(client, params(node, Policy.from_options(lacking))).details["policy"]) == without
    assert made(client, params(node, Policy.from_options(needed)))


def test_the_message_s_list_has_what_would_pass_without_one(fake: FakeContainerd, client: Client, node: Node) -> None:
    spec = usual()
    for source, option in (("/etc", "rw"), ("/usr", "ro")):
        spec["mounts"].append(
            {"destination": f"/x{source}", "type": "bind", "source": source, "options": ["bind", option]}
        )
    add_checkpoint(fake.state, base=node.base, original=spec, captured=False)
    needed = refused(client, params(node)).details["policy"]
    assert needed == {"bind_sources": ["/etc", "/usr:ro"]}
    more = refused(client, params(node, Policy(bind_sources=("/srv", "/usr:ro")))).details["policy"]
    assert more == {"bind_sources": ["/srv", "/usr:ro", "/etc"]}
    assert "policy_refused" not in [
        found["code"] for found in preflight.report(client, params(node, Policy.from_options(needed))).problems
    ]


@pytest.mark.parametrize("how", ["captured here", "digest of the workload", "digest of the policy"])
def test_a_known_checkpoint_has_what_it_had(
    fake: FakeContainerd, client: Client, node: Node, tmp_path: Path, how: str
) -> None:
    here = how == "captured here"
    sample = add_checkpoint(fake.state, base=node.base, original=privileged(tmp_path), captured=here)
    named = {"digest": sample.digest} if how == "digest of the workload" else {}
    policy = Policy(digests=(sample.digest,)) if how == "digest of the policy" else Policy()
    assert made(client, params(node, policy, **named))


def test_a_name_that_was_moved_is_no_capture(fake: FakeContainerd, client: Client, node: Node, tmp_path: Path) -> None:
    """The label stays on the record when another image takes its name."""
    add_checkpoint(fake.state, base=node.base, original=privileged(tmp_path), captured=False)
    fake.state.images[CHECKPOINT_NAME].labels[labels.CAPTURED] = DIGEST
    refused(client, params(node))


def test_own_captures_can_be_distrusted(fake: FakeContainerd, client: Client, node: Node, tmp_path: Path) -> None:
    add_checkpoint(fake.state, base=node.base, original=privileged(tmp_path))
    refused(client, params(node, Policy(own_captures=False)))


@pytest.mark.parametrize("key", [*ALL_OF_IT, "bind_sources"])
def test_a_key_that_is_given_is_the_whole_truth(
    fake: FakeContainerd, client: Client, node: Node, tmp_path: Path, key: str
) -> None:
    add_checkpoint(fake.state, base=node.base, original=privileged(tmp_path))
    nothing = False if key in ("privileged", "host_control") else []
    error = refused(client, params(node, Policy.from_options({key: nothing})))
    assert list(error.details["policy"]) == [key]
    assert "digest:" not in error.remedy


def test_metadata_get_no_more_than_was_captured(
    fake: FakeContainerd, client: Client, node: Node, tmp_path: Path
) -> None:
    """The digest vouches for the checkpoint, and not for a file that came beside it."""
    add_checkpoint(fake.state, base=node.base, original=usual())
    more = metadata.parse(json.dumps({"originalImage": node.base.name, "ociSpec": privileged(tmp_path)}))
    assert refused(client, params(node, metadata=more)).details["policy"] == {
        **ALL_OF_IT,
        "bind_sources": ["/", str(tmp_path)],
    }
    less = metadata.parse(json.dumps({"originalImage": node.base.name, "ociSpec": usual()}))
    assert made(client, params(node, metadata=less))


def test_the_recorded_facts_count_where_there_are_some(
    fake: FakeContainerd, client: Client, node: Node, tmp_path: Path
) -> None:
    facts = Facts(container="train", rights=("sysctls=kernel.msgmax", "devices=all"))
    add_checkpoint(fake.state, base=node.base, original=privileged(tmp_path))
    notes = {**json.loads(blob(fake))["annotations"], labels.FACTS: facts.render()}
    add_checkpoint(fake.state, base=node.base, original=privileged(tmp_path), annotations=notes)
    found = refused(client, params(node)).details["policy"]
    assert "sysctls" not in found and "devices" not in found
    assert found["capabilities"] == ["CAP_SYS_ADMIN"]


def blob(fake: FakeContainerd) -> bytes:
    data: bytes = fake.state.blobs[fake.state.images[CHECKPOINT_NAME].target.digest].data
    return data


def test_the_operator_s_own_mounts_and_network_need_no_permission(
    fake: FakeContainerd, client: Client, node: Node, tmp_path: Path
) -> None:
    spec = usual(namespaces=[{"type": kind} for kind in ("pid", "ipc", "uts", "mount")])
    spec["mounts"].append({"destination": "/x", "type": "bind", "source": "/etc/stranger", "options": ["bind"]})
    add_checkpoint(fake.state, base=node.base, original=spec, captured=False)
    assert set(refused(client, params(node)).details["policy"]) == {"bind_sources", "host_namespaces"}
    wished = dataclasses.replace(params(node), mounts={"/etc/stranger": str(tmp_path)}, network="host")
    assert made(client, wished)


def test_links_lead_out_of_no_prefix(fake: FakeContainerd, client: Client, node: Node, tmp_path: Path) -> None:
    allowed, outside = tmp_path / "allowed", tmp_path / "outside"
    (outside / "secret").mkdir(parents=True)
    (allowed / "own").mkdir(parents=True)
    (allowed / "link").symlink_to(outside)
    policy = Policy(bind_sources=(str(allowed),))
    for source, good in ((allowed / "own", True), (allowed / "link" / "secret", False), (outside, False)):
        spec = usual()
        spec["mounts"].append({"destination": "/x", "type": "bind", "source": str(source), "options": ["bind"]})
        add_checkpoint(fake.state, base=node.base, original=spec, captured=False)
        wanted = dataclasses.replace(params(node, policy), force=True, rebuild=True)
        if good:
            assert made(client, wanted)
        else:
            refused(client, wanted)


def test_what_runs_already_is_not_asked_again(fake: FakeContainerd, client: Client, node: Node, tmp_path: Path) -> None:
    sample = add_checkpoint(fake.state, base=node.base, original=privileged(tmp_path))
    assert made(client, params(node))
    del fake.state.images[CHECKPOINT_NAME].labels[labels.CAPTURED]
    refused(client, params(node))
    fake.state.tasks["train"] = Task(None, 77, 2)
    assert container_steps.present(client, params(node), False).changed is False
    assert sample.digest == fake.state.containers["train"].labels[labels.CHECKPOINT]


def staged(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capabilities: int) -> None:
    """The checkpoint is staged, and its process has these capabilities in CRIU's images."""
    images = tmp_path / "images"
    images.mkdir(exist_ok=True)
    criu_samples.core(images, "core-1.img", capabilities, seccomp_mode=0)
    found = staged_checkpoint.Staged(str(images), DIGEST, 0, 1, "")
    monkeypatch.setattr(staged_checkpoint, "find", lambda _root, _key: found)


def test_what_criu_s_images_give_a_stranger_s_process_counts_as_well(
    fake: FakeContainerd, client: Client, node: Node, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A spec that asks for nothing proves nothing: CRIU sets the credentials that its images have."""
    staged(monkeypatch, tmp_path, 1 << 21 | 1 << 0)
    add_checkpoint(fake.state, base=node.base, original=usual(), captured=False)
    error = refused(client, params(node))
    assert error.details["policy"] == {"capabilities": ["CAP_SYS_ADMIN"]}
    filtered = Policy(capabilities=("SYS_ADMIN",), seccomp_unconfined=False)
    assert "seccomp_unconfined" in refused(client, params(node, filtered)).details["policy"]
    assert made(client, params(node, Policy(capabilities=("SYS_ADMIN",))))


def test_images_of_what_is_known_are_not_asked_and_a_user_namespace_in_the_spec_proves_nothing(
    fake: FakeContainerd, client: Client, node: Node, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    staged(monkeypatch, tmp_path, 1 << 21)
    add_checkpoint(fake.state, base=node.base, original=usual())
    assert made(client, params(node))
    own = usual()
    own["linux"]["namespaces"].append({"type": "user"})
    own["linux"]["uidMappings"] = [{"containerID": 0, "hostID": 100000, "size": 65536}]
    add_checkpoint(fake.state, base=node.base, original=own, captured=False)
    # Whether there is one is for CRIU's images to say.
    assert refused(client, dataclasses.replace(params(node), force=True)).details["policy"]["capabilities"]
    add_checkpoint(fake.state, base=node.base, original=usual(), captured=False)
    (tmp_path / "images" / "core-1.img").write_bytes(b"damaged")
    wanted = dataclasses.replace(params(node), force=True)
    assert refused(client, wanted).details["policy"] == {"capabilities": ["all"]}


@pytest.mark.parametrize(
    ("right", "given", "allowed"),
    [
        (Right("capabilities", "CAP_SYS_PTRACE"), {"capabilities": ["sys_ptrace"]}, True),
        (Right("capabilities", "CAP_SYS_PTRACE"), {"capabilities": ["all"]}, True),
        (Right("capabilities", "CAP_SYS_PTRACE"), {"capabilities": ["SYS_ADMIN"]}, False),
        (Right("capabilities", "CAP_SYS_PTRACE"), {"privileged": True}, True),
        (Right("capabilities", "CAP_SYS_PTRACE"), {"privileged": True, "capabilities": []}, False),
        (Right("devices", "/dev/fuse"), {"devices": ["/dev/fuse"]}, True),
        (Right("devices", "/dev/infiniband/uverbs0"), {"devices": ["/dev/infiniband/*"]}, True),
        (Right("devices", "/dev/sda"), {"devices": ["/dev/fuse"]}, False),
        (Right("sysctls", "kernel.msgmax"), {"sysctls": ["kernel.msg*"]}, True),
        (Right("sysctls", "kernel.shmmax"), {"sysctls": ["kernel.msg*"]}, False),
        (Right("seccomp_unconfined"), {}, True),
        (Right("seccomp_unconfined"), {"seccomp_unconfined": False}, False),
        (Right("bind_sources", "/srv/data"), {}, True),
        (Right("bind_sources", "/srvdata"), {}, False),
        (Right("bind_sources", "/usr/lib/libcuda.so.1:ro"), {}, True),
        (Right("bind_sources", "/usr/lib/libcuda.so.1"), {}, False),
        (Right("bind_sources", "/etc"), {"bind_sources": ["/etc:ro"]}, False),
        (Right("bind_sources", "/etc:ro"), {"bind_sources": ["/etc"]}, True),
        (Right("bind_sources", "/srv"), {"bind_sources": []}, False),
        (Right("host_control"), {"privileged": True}, False),
        (Right("host_namespaces", "pid"), {"privileged": True}, False),
    ],
)
def test_each_key(right: Right, given: dict[str, Any], allowed: bool) -> None:
    assert Policy.from_options(given).allows(right, ()) == allowed
