# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Nothing of a checkpoint runs on the host by itself, and it has of the host what somebody vouches for.

Each payload is shown to work where the operator allows it: what it would have done is what the test looks for.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Callable

import in_node
import make_images
import pytest
from gpuops_lab import image, workload
from gpuops_lab.config import Node
from make_images import Parts, imported

REF = "gpuops.test/checkpoint:1"
PAYLOAD, MARKER = "/opt/payload", "/opt/ran"
RUNTIME = "io.containerd.checkpoint.runtime"
RunModule = Callable[..., dict[str, Any]]
Unchanged = Callable[..., Any]


@pytest.fixture(scope="module")
def good(node: Node) -> Parts:
    return make_images.good(node, REF)


@pytest.fixture
def marker(node: Node, good: Parts) -> Iterator[Path]:
    """What a program of the checkpoint's would leave on the host; ``good`` is there."""
    path = node.inside(MARKER)
    path.unlink(missing_ok=True)
    yield path
    path.unlink(missing_ok=True)


def program(node: Node, then: str) -> None:
    """A file of somebody's on the node, as a volume or an unpacked image has them."""
    path = node.inside(PAYLOAD)
    path.write_text(f'#!/bin/sh\necho "$0 $*" >> {MARKER}\n{then}\n', encoding="ascii")
    path.chmod(0o755)


def restore(node: Node, reference: str, **options: Any) -> dict[str, Any]:
    """Stage and restore it, and take it away again; what the restore said of the workload."""
    own = ("allow_hooks", "digest", "metadata_content")
    entry: dict[str, Any] = {"name": "x", "checkpoint": reference}
    entry.update({name: options.pop(name) for name in own if name in options})
    staged = in_node.run_module(node, "containerd_checkpoint_stage", {"checkpoint": reference})
    assert not staged.get("failed"), staged
    done = in_node.run_module(node, "containerd_restore", {"workloads": [entry], "keep_evidence": 0, **options})
    for name, params in (
        ("containerd_task", {"container_id": "x", "state": "absent"}),
        ("containerd_container", {"container_id": "x", "state": "absent"}),
        ("containerd_checkpoint_stage", {"checkpoint": reference, "state": "absent"}),
    ):
        gone = in_node.run_module(node, name, params)
        assert not gone.get("failed"), gone
    assert "workloads" in done, done
    found: dict[str, Any] = done["workloads"]["x"]
    return {**found, "warnings": done.get("warnings") or []}


def code(found: dict[str, Any]) -> str:
    return str((found["failure"] or {}).get("code", ""))


def hostile(good: Parts, key: str) -> Parts:
    """The spec has hooks under that key, as runc runs them on the host before CRIU goes on."""
    spec = make_images.spec_of(good)
    return good.having("spec", make_images.spec_blob({**spec, key: {"createRuntime": [{"path": PAYLOAD}]}}))


@pytest.mark.parametrize("key", ["Hooks", "HOOKS", "hook\u017f"])
def test_a_hook_under_another_spelling_does_not_run(node: Node, good: Parts, marker: Path, key: str) -> None:
    program(node, "exit 0")
    with imported(node, hostile(good, key)) as reference:
        assert code(restore(node, reference)) == "spec_invalid"
    assert not marker.exists()


def test_a_hook_runs_where_it_is_allowed_and_only_there(node: Node, good: Parts, marker: Path) -> None:
    program(node, "exit 0")
    with imported(node, hostile(good, "hooks")) as reference:
        assert code(restore(node, reference)) == ""
        assert not marker.exists()
        assert code(restore(node, reference, allow_hooks=True)) == ""
        assert marker.exists(), "the payload does not do what the test looks for"


def runtime_options(binary_name: str) -> bytes:
    """A marshalled Any of ``containerd.runc.v1.Options`` with ``binary_name``, its field 6."""
    kind, name = b"containerd.runc.v1.Options", binary_name.encode()
    value = b"\x32" + bytes([len(name)]) + name
    return b"\x0a" + bytes([len(kind)]) + kind + b"\x12" + bytes([len(value)]) + value


def with_runtime_options(good: Parts, data: bytes) -> Parts:
    """The same; ctr writes none for containers that have none."""
    made = good.without("runtime-options")
    entry = {
        "mediaType": make_images.KINDS["runtime-options"],
        "digest": make_images.digest_of(data),
        "size": len(data),
        "platform": made.child("criu")["platform"],
    }
    made.index["manifests"].append(entry)
    made.blobs[entry["digest"]] = data
    return made


@pytest.mark.every_containerd
def test_the_shim_that_a_checkpoint_names_does_not_run(node: Node, good: Parts, marker: Path) -> None:
    program(node, 'exec containerd-shim-runc-v2 "$@"')
    with imported(node, good.noted(**{RUNTIME: PAYLOAD})) as reference:
        found = restore(node, reference)
        assert code(found) == "runtime_refused" and PAYLOAD in found["failure"]["msg"]
        assert not marker.exists()
        restore(node, reference, runtimes=[{"name": PAYLOAD}])
        assert marker.exists(), "the payload does not do what the test looks for"


@pytest.mark.every_containerd
def test_the_program_that_a_checkpoint_names_does_not_run(node: Node, good: Parts, marker: Path) -> None:
    program(node, 'exec runc "$@"')
    with imported(node, with_runtime_options(good, runtime_options(PAYLOAD))) as reference:
        found = restore(node, reference)
        assert code(found) == "" and PAYLOAD in json.dumps(found["warnings"])
        assert not marker.exists()
        listed = [{"name": "io.containerd.runc.v2", "binary_name": PAYLOAD}]
        found = restore(node, reference, runtimes=listed)
        assert code(found) == "" and found["warnings"] == []
        assert " restore " in marker.read_text(), "the program of the list did not run"


def test_the_node_s_default_runtime_is_listed(node: Node, good: Parts, marker: Path) -> None:
    """As containerd's configuration has it: so are pods of a node whose default runtime is NVIDIA's."""
    program(node, 'exec runc "$@"')
    file = node.inside("/etc/containerd/config.toml")
    before = file.read_text(encoding="utf-8")
    table = '[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.own'
    runtime = f"{table}]\nruntime_type = 'io.containerd.runc.v2'\n{table}.options]\nBinaryName = '{PAYLOAD}'\n"
    changed = before.replace('default_runtime_name = "runc"', 'default_runtime_name = "own"')
    assert changed != before
    file.write_text(changed + runtime, encoding="utf-8")
    try:
        with imported(node, with_runtime_options(good, runtime_options(PAYLOAD))) as reference:
            found = restore(node, reference)
            assert code(found) == "" and found["warnings"] == []
        assert " restore " in marker.read_text()
    finally:
        file.write_text(before, encoding="utf-8")


@pytest.fixture(scope="module")
def wide(node: Node) -> Iterator[str]:
    """A capture of a container that has a lot of the host."""
    workload.place_image(node)
    workload.ctr(node, workload.NAMESPACE, "images", "import", workload.ARCHIVE)
    node.inside("/opt/shared").mkdir(exist_ok=True)
    # ctr gives them to containers in the node's network.
    for name in ("hosts", "resolv.conf"):
        node.inside(f"/etc/{name}").touch()
    arguments = ["--net-host", "--cap-add", "CAP_SYS_ADMIN"]
    arguments += ["--mount", "type=bind,src=/opt/shared,dst=/mnt,options=bind:rw"]
    workload.ctr(node, workload.NAMESPACE, "run", "--detach", *arguments, image.REFERENCE, "wide")
    workload.await_count(node, "wide", 3)
    name = "gpuops.test/wide:1"
    done = in_node.run_module(
        node, "containerd_checkpoint", {"container_id": "wide", "name": name, "leave": "stopped", "force": True}
    )
    assert not done.get("failed"), done
    yield name
    workload.ctr(node, workload.NAMESPACE, "images", "rm", "--sync", name)


ASKED = {
    "capabilities": ["CAP_SYS_ADMIN"],
    "host_namespaces": ["network"],
    # What would pass without a list has to be in one.
    "bind_sources": ["/etc/hosts:ro", "/etc/resolv.conf:ro", "/opt/shared"],
}


@pytest.mark.every_containerd
def test_what_was_captured_here_has_what_it_had_and_as_a_stranger_s_nothing(
    node: Node, run_module: RunModule, unchanged: Unchanged, wide: str
) -> None:
    seen = run_module("containerd_checkpoint_info", {"checkpoint": wide, "container_id": "x"})
    assert seen["problems"] == []
    # With the node's network ctr gives the container these files, which any container may read.
    usual = {"seccomp_unconfined", "bind_sources=/etc/hosts:ro", "bind_sources=/etc/resolv.conf:ro"}
    rights = set(seen["checkpoint"]["recorded"]["rights"]) - usual
    assert rights == {"bind_sources=/opt/shared", "capabilities=CAP_SYS_ADMIN", "host_namespaces=network"}
    assert code(restore(node, wide)) == ""
    # Metadata that came beside it get no more than it had.
    spec = json.loads(json.dumps(make_images.spec_of(make_images.take_apart(node, wide))))
    spec["linux"]["namespaces"] = [entry for entry in spec["linux"]["namespaces"] if entry["type"] != "pid"]
    metadata = json.dumps({"originalImage": image.REFERENCE, "ociSpec": spec})
    found = restore(node, wide, metadata_content=metadata)
    assert code(found) == "policy_refused"
    assert found["failure"]["failure"]["details"]["policy"] == {"host_namespaces": ["network", "pid"]}
    # The same checkpoint, brought from elsewhere.
    with imported(node, make_images.take_apart(node, wide)) as stranger, unchanged():
        digest = seen["checkpoint"]["digest"]
        found = restore(node, stranger)
        assert code(found) == "policy_refused"
        assert found["failure"]["failure"]["details"]["policy"] == ASKED
        told = run_module("containerd_checkpoint_info", {"checkpoint": stranger, "container_id": "x"})
        assert [problem["code"] for problem in told["problems"]] == ["policy_refused"]
        assert digest in told["problems"][0]["remedy"]
        assert code(restore(node, stranger, policy=ASKED)) == ""
        assert code(restore(node, stranger, digest=digest)) == ""
        assert code(restore(node, stranger, digest=digest, policy={"capabilities": []})) == "policy_refused"
        assert code(restore(node, stranger, digest="sha256:" + 64 * "0")) == "image_digest_mismatch"
