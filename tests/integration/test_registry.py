# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Checkpoints by way of Debian's docker-registry, with TLS and basic auth, from one node to another."""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import queue
import signal
import subprocess
from collections.abc import Iterator
from typing import Any, Callable

import in_node
import pytest
import registry_server
from gpuops_lab import image, node as lab_node, workload
from gpuops_lab.config import Node
from gpuops_lab.node import output
from node_listing import listing, settled_difference
from registry_server import CA_FILE, DIRECTORY, HOST, PASSWORD, PORT, USER, Relay

ROOT = pathlib.Path(__file__).resolve().parents[2]
MODULE = "containerd_checkpoint_registry"
NAME = f"{HOST}:{PORT}/checkpoints/counter:1"
#: What the other node's way to the registry is asked for, that it can be broken.
BY_RELAY = 5444
#: The base image, without its tag.
BASE = image.REFERENCE.rpartition(":")[0]
ACCESS = {"username": USER, "password": PASSWORD, "ca_file": CA_FILE}
RunModule = Callable[..., dict[str, Any]]


@pytest.fixture(scope="module")
def registry(node: Node) -> Iterator[int]:
    """The registry runs, and a counter was captured as NAME and is gone; gives how far it had come."""
    with registry_server.serving(node):
        workload.start(node, "source", 16)
        workload.await_count(node, "source", 10)
        done = in_node.run_module(node, "containerd_checkpoint", {"container_id": "source", "name": NAME})
        assert not done.get("failed"), done
        reached = workload.count(node, "source")
        workload.delete(node, "source")
        yield reached


@pytest.fixture(scope="module")
def other(node: Node, registry: int) -> Iterator[Node]:
    """A second node that reaches the registry and has nothing else."""
    version = os.environ.get("GPUOPS_CONTAINERD", "1.7")
    (made,) = lab_node.up([f"t-registry2-{os.getpid()}"], version, layers=in_node.layers(ROOT))
    try:
        in_node.install(made, ROOT)
        registry_server.introduce(made, node.inside(CA_FILE))
        # The namespace comes into being with its first object, and stays.
        for state in ("present", "absent"):
            call(made, "containerd_lease", {"id": "warm", "state": state})
        yield made
    finally:
        lab_node.down(made.name)


@pytest.fixture
def relay(node: Node, other: Node) -> Iterator[Relay]:
    """The way from the other node to the registry."""
    found = Relay(other, node, PORT, PORT)
    try:
        yield found
    finally:
        found.close()


def options(state: str, **more: Any) -> dict[str, Any]:
    return {"state": state, "name": NAME, **ACCESS, **more}


def call(node: Node, module: str, params: dict[str, Any], **more: Any) -> dict[str, Any]:
    result: dict[str, Any] = in_node.run_module(node, module, params, **more)
    assert not result.get("failed"), f"{result.get('msg')}\n{result.get('failure')}"
    assert PASSWORD not in json.dumps(result)
    return result


def children(node: Node, name: str) -> dict[str, str]:
    """Media type -> digest of what the index names, and under "" its own."""
    rows = workload.ctr(node, "k8s.io", "images", "ls", f"name=={name}").split()
    digest = next(word for word in rows if word.startswith("sha256:"))
    index = json.loads(output(node, ["ctr", "-n", "k8s.io", "content", "get", digest]))
    return {"": digest, **{child["mediaType"]: child["digest"] for child in index["manifests"]}}


def forget(node: Node, *names: str) -> None:
    for name in names:
        call(node, "containerd_image", {"name": name, "state": "absent"})


@pytest.mark.every_containerd
def test_pushed_pulled_on_another_node_and_restored(
    node: Node, other: Node, relay: Relay, registry: int, run_module: RunModule
) -> None:
    before = listing(node)
    predicted = run_module(MODULE, options("pushed"), check=True, diff=True)
    pushed = run_module(MODULE, options("pushed"), diff=True)
    assert predicted["changed"] and pushed["changed"]
    assert [predicted[key] for key in ("actions", "diff", "registry")] == [
        pushed[key] for key in ("actions", "diff", "registry")
    ]
    for check in (True, False):
        again = run_module(MODULE, options("pushed"), check=check)
        assert (again["changed"], again["registry"]["bytes"], again["actions"]) == (False, 0, [])
    assert settled_difference(node, before) == []

    empty = listing(other)
    predicted = call(other, MODULE, options("pulled"), check=True, diff=True)
    assert settled_difference(other, empty) == []
    pulled = call(other, MODULE, options("pulled"), diff=True)
    assert [predicted[key] for key in ("actions", "diff", "registry")] == [
        pulled[key] for key in ("actions", "diff", "registry")
    ]
    assert pulled["digest"] == pushed["digest"] and pulled["registry"]["bytes"] > 16 << 20
    # By its digest: no tag is made of what a checkpoint says.
    assert f"name the base image {BASE}@sha256:" in pulled["actions"][1]
    for check in (True, False):
        assert not call(other, MODULE, options("pulled"), check=check)["changed"]
    assert children(other, NAME) == children(node, NAME)
    found = call(other, "containerd_checkpoint_info", {"checkpoint": NAME})
    assert found["problems"] == []

    call(other, "containerd_checkpoint_stage", {"checkpoint": NAME})
    call(other, "containerd_restore", {"workloads": [{"name": "moved", "checkpoint": NAME}]})
    begun = workload.count(other, "moved")
    assert begun >= registry
    workload.await_count(other, "moved", begun + 3)
    for module in ("containerd_task", "containerd_container"):
        call(other, module, {"container_id": "moved", "state": "absent"})
    call(other, "containerd_checkpoint_stage", {"checkpoint": NAME, "state": "absent"})
    other.inside("/var/lib/gpuops-restore/receipts/moved.json").unlink()
    other.inside("/var/lib/gpuops-restore/receipts").rmdir()
    # Collected and garbage: everything hangs on the two names.
    forget(other, NAME, base_of(other))
    assert settled_difference(other, empty) == []


def test_without_its_base_image(node: Node, other: Node, relay: Relay, run_module: RunModule) -> None:
    lean = f"{HOST}:{PORT}/checkpoints/lean:1"
    before = listing(other)
    pushed = run_module(MODULE, options("pushed", reference=lean, base=False))
    full = run_module(MODULE, options("pushed"))
    assert pushed["registry"]["blobs"] < full["registry"]["blobs"]
    # What lacks nothing is kept; what lacks the base image gets it.
    kept = run_module(MODULE, options("pushed", base=False))
    assert (kept["changed"], kept["registry"]["manifest_digest"]) == (False, full["registry"]["manifest_digest"])
    pinned = f"{lean}@{pushed['registry']['manifest_digest']}"
    pulled = call(other, MODULE, options("pulled", reference=pinned))
    assert any("without its base image" in warning for warning in _texts(pulled))
    assert BASE not in workload.ctr(other, "k8s.io", "images", "ls", "-q")
    # With the digest known and everything there, the registry is not needed: a full one lacks the base image.
    relay.close()
    again = call(other, MODULE, options("pulled", base=False, digest=pulled["digest"]))
    assert not again["changed"]
    forget(other, NAME)
    assert settled_difference(other, before) == []


def base_of(node: Node) -> str:
    """The name that a pull gave the base image."""
    names = workload.ctr(node, "k8s.io", "images", "ls", "-q").split()
    (found,) = [name for name in names if name.startswith(f"{BASE}@")]
    return found


def _texts(result: dict[str, Any]) -> list[str]:
    return [
        str(entry.get("msg", entry)) if isinstance(entry, dict) else str(entry) for entry in result.get("warnings", [])
    ]


def test_a_broken_connection_is_gone_on_with(node: Node, other: Node, run_module: RunModule) -> None:
    """In both directions. (The registry purges by itself what it has of the upload that broke.)"""
    run_module(MODULE, options("pushed"))
    reference = f"{HOST}:{BY_RELAY}/checkpoints/broken:1"
    relay = Relay(node, node, BY_RELAY, PORT)
    try:
        relay.break_after(8 << 20)
        done = run_module(MODULE, options("pushed", reference=reference))
        assert done["changed"] and relay.broken == 1
        assert not run_module(MODULE, options("pushed", reference=reference))["changed"]
    finally:
        relay.close()
    before = listing(other)
    relay = Relay(other, node, PORT, PORT)
    try:
        relay.break_after(8 << 20)
        call(other, MODULE, options("pulled"))
        assert relay.broken == 1
        forget(other, NAME, base_of(other))
        assert settled_difference(other, before) == []
    finally:
        relay.close()


def test_killed_half_way_and_run_again(node: Node, other: Node, relay: Relay, run_module: RunModule) -> None:
    """The next run takes over what a killed pull left, and finishes."""
    run_module(MODULE, options("pushed"))
    before = listing(other)
    begun: queue.SimpleQueue[subprocess.Popen[bytes]] = queue.SimpleQueue()
    relay.break_after(8 << 20, lambda: os.killpg(begun.get().pid, signal.SIGKILL))
    process = in_node.start(other, MODULE, options("pulled"))
    begun.put(process)
    assert process.wait(60) == -signal.SIGKILL and relay.broken == 1
    left = listing(other)
    assert any("gpuops-restore-" in line for rows in left.values() for line in rows)
    assert call(other, MODULE, options("pulled"))["changed"]
    assert children(other, NAME) == children(node, NAME)
    forget(other, NAME, base_of(other))
    assert settled_difference(other, before) == []


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"password": "battery staple"}, "registry_denied"),
        ({"username": None, "password": None}, "registry_denied"),
        ({"token": "t0ken", "username": None, "password": None}, "registry_denied"),
        ({"ca_file": None}, "registry_tls"),
        ({"server": f"http://{HOST}:{PORT}"}, "registry_plain_http"),
        ({"reference": f"{HOST}:{PORT}/checkpoints/nothing:1", "state": "pulled"}, "registry_not_found"),
        ({"reference": "checkpoints/counter:1"}, "registry_reference_invalid"),
        ({"digest": "sha256:" + 64 * "0"}, "image_digest_mismatch"),
        ({"name": "gpuops.test/nothing:1", "reference": NAME}, "checkpoint_absent"),
        ({"auth_file": "/nonexistent", "username": None, "password": None}, "registry_auth_file_invalid"),
    ],
)
def test_refused_with_nothing_changed(
    node: Node, registry: int, expect_failure: RunModule, change: dict[str, Any], code: str
) -> None:
    before = listing(node)
    wanted = {key: value for key, value in {**options("pushed"), **change}.items() if value is not None}
    failed = expect_failure(MODULE, wanted, code)
    assert "battery staple" not in json.dumps(failed) and "t0ken" not in json.dumps(failed)
    assert settled_difference(node, before) == []


def test_tag_that_stands_for_something_else(
    node: Node, registry: int, run_module: RunModule, expect_failure: RunModule
) -> None:
    """Another checkpoint, made by ctr, moves a tag, and an image its name, by force alone."""
    run_module(MODULE, options("pushed"))
    second = "gpuops.test/second:1"
    workload.start(node, "second", 1)
    workload.checkpoint(node, "second", second)
    workload.delete(node, "second")
    expect_failure(MODULE, options("pushed", name=second, reference=NAME), "registry_tag_taken")
    auth = node.inside("/root/auth.json")
    login = output(node, ["python3", "-c", f"import base64; print(base64.b64encode(b'{USER}:{PASSWORD}').decode())"])
    auth.write_text(json.dumps({"auths": {f"{HOST}:{PORT}": {"auth": login.strip()}}}))
    by_file = {"ca_file": CA_FILE, "auth_file": "/root/auth.json"}
    moved = {"state": "pushed", "name": second, "reference": NAME, "force": True, **by_file}
    assert run_module(MODULE, moved)["changed"]
    expect_failure(MODULE, options("pulled"), "image_other_digest")
    run_module(MODULE, options("pushed", force=True))
    call(node, "containerd_image", {"name": second, "state": "absent", "force": True})
    auth.unlink()


def peak(node: Node, params: dict[str, Any]) -> tuple[int, float]:
    """The module's peak resident memory in KiB, and its seconds."""
    code = (
        "import runpy, sys\n"
        "try: runpy.run_path(sys.argv.pop(1), run_name='__main__')\n"
        "except SystemExit: pass\n"
        "print([l for l in open('/proc/self/status') if l.startswith('VmHWM')][0].split()[1], file=sys.stderr)"
    )
    library, package = in_node.LIBRARY, "ansible_collections/gpuops/restore/plugins"
    command = ["env", f"PYTHONPATH={library}", in_node.PYTHON, "-c", code]
    done = subprocess.run(
        [str(node.directory / "enter"), *command, f"{library}/{package}/modules/{MODULE}.py"],
        input=json.dumps({"ANSIBLE_MODULE_ARGS": params}),
        capture_output=True,
        text=True,
        check=True,
    )
    result = json.loads(done.stdout)
    assert result["changed"], result
    return int(done.stderr.split()[-1]), float(result["seconds"])


#: A checkpoint whose CRIU images are so many MiB of anything, put together from another one's other parts.
LARGE = """
import hashlib, itertools, json, os, sys
from ansible_collections.gpuops.restore.plugins.module_utils._containerd import content, images, leases
from ansible_collections.gpuops.restore.plugins.module_utils._containerd.client import Client
from ansible_collections.gpuops.restore.plugins.module_utils._oci.image import Descriptor

source, name, mib = sys.argv[1], sys.argv[2], int(sys.argv[3])
kind = "application/vnd.oci.image.index.v1+json"

def put(client, part, count, labels):
    hasher = hashlib.sha256()
    for chunk in itertools.repeat(part, count):
        hasher.update(chunk)
    digest, size = "sha256:" + hasher.hexdigest(), len(part) * count
    content.write(client, itertools.repeat(part, count), digest, size, labels)
    return digest, size

with Client("/run/containerd/containerd.sock", "k8s.io") as client, leases.hold(client, None, name):
    target = images.get(client, source).target
    index = json.loads(content.read_all(client, target.digest, target.size))
    digest, size = put(client, os.urandom(1 << 20), mib, {})
    for child in index["manifests"]:
        if child["mediaType"].endswith("criu.tar"):
            child.update(digest=digest, size=size)
    labels = {f"containerd.io/gc.ref.content.{at}": child["digest"] for at, child in enumerate(index["manifests"])}
    data = json.dumps(index).encode()
    digest, size = put(client, data, 1, labels)
    owner = {"io.gpuops.restore/owner": "gpuops.restore"}
    images.create(client, images.Image(name, Descriptor(kind, digest, size), owner))
"""


def test_memory_is_flat(node: Node, registry: int, run_module: RunModule) -> None:
    """Sixteen times as large a checkpoint takes no more memory, neither to push nor to pull."""
    peaks: dict[str, list[int]] = {"pushed": [], "pulled": []}
    for mib in (16, 256):
        name = f"{HOST}:{PORT}/checkpoints/large:{mib}"
        output(node, ["env", f"PYTHONPATH={in_node.LIBRARY}", in_node.PYTHON, "-c", LARGE, NAME, name, str(mib)])
        for state in peaks:
            kib, seconds = peak(node, options(state, name=name))
            peaks[state].append(kib)
            print(f"{state} {mib} MiB: {seconds:.1f} s, {kib >> 10} MiB")
            forget(node, name)
        with contextlib.suppress(FileNotFoundError):
            output(node, ["rm", "-rf", f"{DIRECTORY}/data/docker/registry/v2/repositories/checkpoints/large"])
    for small, large in peaks.values():
        assert large < small + 24 * 1024, peaks
