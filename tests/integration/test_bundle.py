# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Containers whose runtime adds to their bundle, captured as they run and restored where plain runc is.

The runtime and its hook are stand-ins for NVIDIA's (:mod:`stand_in_runtime`).
"""

from __future__ import annotations

import io
import json
import os
import pathlib
import shutil
import tarfile
from collections.abc import Iterator
from typing import Any, Callable

import in_node
import pytest
import stand_in_runtime
from gpuops_lab import image, node as lab_node, workload
from gpuops_lab.config import Node
from gpuops_lab.node import output
from node_listing import listing, settled_difference

ROOT = pathlib.Path(__file__).resolve().parents[2]
STATE = "/var/lib/gpuops-restore"
RUNTIME = "/usr/local/bin/stand-in-runtime"
NAME, REF = "pod", "gpuops.test/pod:1"
ARCHIVE = "/var/tmp/pod.tar.zst"
LINKED = "gpuops.test/linked:1"
LIBRARY = f"/srv/driver/{stand_in_runtime.LIBRARY}"
RunModule = Callable[..., dict[str, Any]]


def linked_image() -> bytes:
    """The workload's image with the links that distributions have."""
    with tarfile.open(image.archive()) as archive:
        index = json.load(archive.extractfile("index.json"))  # type: ignore[arg-type]
        manifest = _blob(archive, index["manifests"][0]["digest"])
        layer = _blob_bytes(archive, manifest["layers"][0]["digest"])
    buffer = io.BytesIO(layer)
    with tarfile.open(fileobj=buffer, mode="a", format=tarfile.USTAR_FORMAT) as tar:
        for name in ("run", "usr", "usr/lib"):
            entry = tarfile.TarInfo(name)
            entry.type, entry.mode = tarfile.DIRTYPE, 0o755
            tar.addfile(entry)
        for name, target in (("var/run", "/run"), ("lib", "usr/lib")):
            entry = tarfile.TarInfo(name)
            entry.type, entry.linkname = tarfile.SYMTYPE, target
            tar.addfile(entry)
    return image.image_archive(buffer.getvalue(), LINKED, image.architecture())


def _blob(archive: tarfile.TarFile, digest: str) -> Any:
    return json.loads(_blob_bytes(archive, digest))


def _blob_bytes(archive: tarfile.TarFile, digest: str) -> bytes:
    found = archive.extractfile(f"blobs/{digest.replace(':', '/')}")
    assert found is not None
    return found.read()


def provide(node: Node, *, runtime: bool) -> None:
    """A driver's files, the image, and perhaps the stand-in of the runtime."""
    archive = node.inside("/var/lib/gpuops-lab/linked.tar")
    archive.parent.mkdir(parents=True, exist_ok=True)
    archive.write_bytes(linked_image())
    workload.ctr(node, "k8s.io", "images", "import", "/var/lib/gpuops-lab/linked.tar")
    node.inside("/srv/driver").mkdir(parents=True)
    node.inside(LIBRARY).write_text("library\n", encoding="ascii")
    node.inside("/srv/driver/smi").write_text("#!/bin/sh\n", encoding="ascii")
    node.inside("/srv/driver/params").write_text("params\n", encoding="ascii")
    output(node, ["sh", "-c", "mkdir -p /run/stand-in && echo socket > /run/stand-in/socket"])
    output(node, ["mknod", stand_in_runtime.BOUND_DEVICE, "c", "10", "237"])
    if runtime:
        shutil.copyfile(stand_in_runtime.__file__, node.inside(RUNTIME))
        node.inside(RUNTIME).chmod(0o755)


@pytest.fixture(scope="module", autouse=True)
def source(node: Node) -> None:
    """The node with the runtime."""
    provide(node, runtime=True)
    # The first namespace leaves the directory of all as a mount.
    output(node, ["ip", "netns", "add", "first"])
    output(node, ["ip", "netns", "delete", "first"])


@pytest.fixture(scope="module")
def target(node: Node) -> Iterator[Node]:
    """Another node, which has the driver's files, and plain runc alone."""
    (other,) = lab_node.up([f"t-bundle-far-{os.getpid()}"], node.containerd, layers=in_node.layers(ROOT))
    try:
        in_node.install(other, ROOT)
        provide(other, runtime=False)
        yield other
    finally:
        lab_node.down(other.name)


@pytest.fixture
def clean(node: Node) -> Iterator[None]:
    """The node is afterwards as it was before."""
    before = listing(node)
    yield
    workload.delete(node, NAME)
    node.inside("/var/log/source.log").unlink()
    shutil.rmtree(node.inside(f"{STATE}/receipts"), ignore_errors=True)
    assert settled_difference(node, before) == []


def run(node: Node, how: str, *options: str, command: str = "") -> int:
    """A counter that holds the library open; how far it has come."""
    arguments = ["--detach", "--log-uri", workload.log_uri("source"), "--runc-binary", RUNTIME]
    arguments += ["--env", f"STAND_IN={how}", *options, LINKED, NAME]
    script = command or f"exec 9</lib/{stand_in_runtime.LIBRARY}; exec /bin/counter"
    workload.ctr(node, "k8s.io", "run", *arguments, "/bin/sh", "-c", script)
    return workload.await_count(node, NAME, 3)


def inside(node: Node, *command: str) -> str:
    return workload.ctr(node, "k8s.io", "tasks", "exec", "--exec-id", f"e{os.urandom(4).hex()}", NAME, *command)


def module(node: Node, name: str, params: dict[str, Any]) -> dict[str, Any]:
    found = in_node.run_module(node, name, params)
    assert not found.get("failed"), f"{found.get('msg')}\n{found.get('failure')}"
    return found


def capture(node: Node, reference: str) -> dict[str, Any]:
    """Captured, and gone."""
    done = module(node, "containerd_checkpoint", {"container_id": NAME, "name": reference})
    workload.delete(node, NAME)
    return done


def carry(source: Node, target: Node, reference: str) -> None:
    """A checkpoint goes to another node, and is no longer on the one where it was taken."""
    module(source, "containerd_checkpoint_archive", {"operation": "export", "name": reference, "path": ARCHIVE})
    shutil.copyfile(source.inside(ARCHIVE), target.inside(ARCHIVE))
    source.inside(ARCHIVE).unlink()
    workload.ctr(source, "k8s.io", "images", "rm", "--sync", reference)
    imported = {"operation": "import", "name": reference, "path": ARCHIVE}
    module(target, "containerd_checkpoint_archive", imported)
    target.inside(ARCHIVE).unlink()


def restore(node: Node, reference: str, **more: Any) -> list[str]:
    """Restored from its image; what there is to warn of."""
    module(node, "containerd_checkpoint_stage", {"checkpoint": reference})
    asked = {"name": NAME, "checkpoint": reference, **more}
    return [str(text) for text in module(node, "containerd_restore", {"workloads": [asked]}).get("warnings", [])]


def goes_on(node: Node, reached: int) -> None:
    workload.await_count(node, NAME, workload.await_count(node, NAME, reached) + 3)


def remove(node: Node, *references: str) -> None:
    for name in ("containerd_task", "containerd_container"):
        module(node, name, {"container_id": NAME, "state": "absent"})
    for reference in references:
        module(node, "containerd_checkpoint_stage", {"checkpoint": reference, "state": "absent"})
        workload.ctr(node, "k8s.io", "images", "rm", "--sync", reference)


def has_all(node: Node, how: str, original: bool = False) -> None:
    """The driver's files at their places, and the device is open to the container; NVIDIA's hook has it so, too."""
    assert (
        inside(node, "/bin/cat", f"/usr/lib/{stand_in_runtime.LIBRARY}", "/run/stand-in/socket") == "library\nsocket\n"
    )
    # As the kernel tells it: what an exec says may end before all of it has come.
    mounts = node.inside(f"/proc/{workload.pid(node, NAME)}/mountinfo").read_text()
    for place in (f"/usr/lib/{stand_in_runtime.LIBRARY}", "/bin/stand-in-smi"):
        options = next(line.split()[5] for line in mounts.splitlines() if line.split()[4] == place)
        assert "ro" in options.split(","), mounts
    if how == "hook":
        assert inside(node, "/bin/cat", "/proc/version") == "params\n"
    if how == "cdi" or not original:
        device = stand_in_runtime.DEVICE[0] if how == "cdi" else stand_in_runtime.BOUND_DEVICE
        inside(node, "/bin/sh", "-c", f"exec 3<>{device}")


@pytest.mark.usefixtures("clean")
@pytest.mark.parametrize("how", [pytest.param("cdi", marks=pytest.mark.every_containerd), "hook"])
def test_what_the_runtime_added_comes_back_where_plain_runc_is(node: Node, target: Node, how: str) -> None:
    """Twice: what was restored is captured and restored again."""
    references = [f"gpuops.test/{how}:{number}" for number in (1, 2)]
    reached = run(node, how)
    has_all(node, how, original=True)
    done = capture(node, references[0])
    carry(node, target, references[0])
    restore(target, references[0], digest=done["checkpoint"]["digest"])
    has_all(target, how)
    if how == "cdi":
        # ctr takes it from the record, which the original's runtime left as it was.
        assert inside(target, "/bin/sh", "-c", "echo $STAND_IN_DRIVER") == "580.159.04\n"
    goes_on(target, reached)
    again = module(target, "containerd_checkpoint", {"container_id": NAME, "name": references[1]})
    # What runc makes is in the spec now; below /proc it makes nothing.
    places = [one["destination"] for one in again["mounts_taken"]]
    assert again["added_by_runtime"]["mounts"] == [] and places == (["/proc/version"] if how == "hook" else [])
    remove(target, references[0])
    restore(target, references[1])
    has_all(target, how)
    goes_on(target, reached)
    remove(target, references[1])
    places = [f"/lib/{stand_in_runtime.LIBRARY}", "/bin/stand-in-smi", "/var/run/stand-in/socket"]
    if how == "cdi":
        wanted = {"mounts": places, "devices": ["/dev/loop-control"], "env": ["STAND_IN_DRIVER"], "hooks": []}
        assert done["added_by_runtime"] == wanted and done["mounts_taken"] == []
    else:
        taken = {one["destination"]: one["source"] for one in done["mounts_taken"]}
        assert taken == {
            f"/usr/lib/{stand_in_runtime.LIBRARY}": LIBRARY,
            "/bin/stand-in-smi": "/srv/driver/smi",
            "/run/stand-in/socket": "/run/stand-in/socket",
            stand_in_runtime.BOUND_DEVICE: stand_in_runtime.BOUND_DEVICE,
            "/proc/version": "/srv/driver/params",
        }


@pytest.mark.usefixtures("clean")
def test_what_a_hook_mounted_from_nowhere_is_refused_with_the_true_reason(
    node: Node, expect_failure: RunModule
) -> None:
    run(node, "scratch", command="/bin/counter")
    wanted = {"container_id": NAME, "name": REF}
    found = expect_failure("containerd_checkpoint", wanted, "mount_not_in_spec")
    assert "/scratch (ramfs)" in found["msg"] and f"added by a hook of its runtime ({RUNTIME})" in found["msg"]
    assert "mode cdi" in found["msg"]
    goes_on(node, workload.count(node, NAME))


@pytest.mark.usefixtures("clean")
def test_what_another_tools_checkpoint_does_not_name_can_be_given(node: Node, expect_failure: RunModule) -> None:
    """ctr captures the spec of containerd's record; the remedy of the preflight is followed."""
    reached = run(node, "cdi")
    workload.checkpoint(node, NAME, REF)
    workload.delete(node, NAME)
    module(node, "containerd_checkpoint_stage", {"checkpoint": REF})
    found = module(node, "containerd_checkpoint_info", {"checkpoint": REF, "container_id": NAME})
    assert {problem["code"] for problem in found["problems"]} == {"mount_unnamed"}
    library = f"/usr/lib/{stand_in_runtime.LIBRARY}"
    sources = {library: LIBRARY, "/bin/stand-in-smi": "/srv/driver/smi"}
    sources["/run/stand-in/socket"] = "/run/stand-in/socket"
    for place in sources:
        assert any(f"added_mounts: '{place}': SOURCE" in problem["remedy"] for problem in found["problems"])
    wanted = {"container_id": NAME, "checkpoint": REF}
    expect_failure("containerd_container", wanted, "mount_unnamed")
    expect_failure("containerd_container", {**wanted, "mounts": {LIBRARY: LIBRARY}}, "mount_mapping_unused")
    restore(node, REF, added_mounts=sources)
    goes_on(node, reached)
    remove(node, REF)


@pytest.mark.usefixtures("clean")
def test_the_drivers_files_are_found_where_another_node_has_them(node: Node, target: Node) -> None:
    """Of another release under the name of that, of the same one in another folder; what is nowhere is named."""
    reached = run(node, "cdi", command="/bin/counter")
    digest = capture(node, REF)["checkpoint"]["digest"]
    carry(node, target, REF)
    asked = {"checkpoint": REF, "container_id": NAME, "digest": digest}
    library, folder = target.inside(LIBRARY), target.inside("/usr/lib64")
    made = not folder.exists()
    folder.mkdir(exist_ok=True)
    for elsewhere in (library.with_name("libcuda.so.570.86.10"), folder / stand_in_runtime.LIBRARY):
        shutil.move(library, elsewhere)
        assert module(target, "containerd_checkpoint_info", asked)["problems"] == []
        restore(target, REF, digest=digest)
        has_all(target, "cdi")
        goes_on(target, reached)
        remove(target)
        shutil.move(elsewhere, library)
    shutil.move(library, target.inside("/srv/elsewhere"))
    (problem,) = module(target, "containerd_checkpoint_info", asked)["problems"]
    assert problem["code"] == "mount_source_missing" and f"mounts: '{LIBRARY}': NEW-SOURCE" in problem["remedy"]
    restore(target, REF, digest=digest, mounts={LIBRARY: "/srv/elsewhere"})
    has_all(target, "cdi")
    remove(target, REF)
    shutil.move(target.inside("/srv/elsewhere"), library)
    if made:
        folder.rmdir()


POD = "/run/netns/pod"
SANDBOX = "/run/containerd/io.containerd.grpc.v1.cri/sandboxes/0f2a/shm"


@pytest.mark.usefixtures("clean")
def test_a_container_as_a_pod_has_it(node: Node, target: Node) -> None:
    """The pod's network by path, the sandbox's /dev/shm, what CRI writes into labels and annotations, a device plugin's
    or runtime's additions; restored twice where there is no pod.
    """
    references = ["gpuops.test/pod:1", "gpuops.test/pod:2"]
    for one, shm in ((node, SANDBOX), (target, "/srv/shm")):
        output(one, ["ip", "netns", "add", "pod"])
        output(one, ["sh", "-c", f"mkdir -p {shm} && mount -t tmpfs -o size=1m shm {shm} && echo kept > {shm}/file"])
    words = ["--with-ns", f"network:{POD}", "--mount", f"type=bind,src={SANDBOX},dst=/dev/shm,options=rbind:rw"]
    for name, value in (("pod.name", "trainer-0"), ("pod.namespace", "default"), ("container.name", "trainer")):
        words += ["--label", f"io.kubernetes.{name}={value}"]
    for name, value in (("container-type", "container"), ("sandbox-id", "0f2a"), ("container-name", "trainer")):
        words += ["--annotation", f"io.kubernetes.cri.{name}={value}"]
    reached = run(
        node, "pod", *words, command=f"exec 9</lib/{stand_in_runtime.LIBRARY} 8</dev/shm/file; exec /bin/counter"
    )
    digest = capture(node, references[0])["checkpoint"]["digest"]
    carry(node, target, references[0])
    for number, reference in enumerate(references):
        given: dict[str, Any] = {"mounts": {SANDBOX: "/srv/shm"}, "digest": digest} if number == 0 else {}
        restore(target, reference, network=POD, **given)
        goes_on(target, reached)
        has_all(target, "cdi")
        assert inside(target, "/bin/cat", "/dev/shm/file") == "kept\n"
        if number == 0:
            module(target, "containerd_checkpoint", {"container_id": NAME, "name": references[1]})
        remove(target, reference)
    for one, shm in ((node, SANDBOX), (target, "/srv/shm")):
        output(one, ["ip", "netns", "delete", "pod"])
        output(one, ["sh", "-c", f"umount {shm} && rmdir {shm}"])
    output(node, ["sh", "-c", "cd /run/containerd/io.containerd.grpc.v1.cri && rmdir sandboxes/0f2a sandboxes"])
    # umount(8) makes it, for its table.
    shutil.rmtree(node.inside("/run/mount"))


@pytest.mark.usefixtures("clean")
def test_a_source_that_was_replaced_is_found_through_a_link_of_the_image(node: Node, expect_failure: RunModule) -> None:
    """The remedy works: what has been started anew is captured, and comes back at its place behind the link."""
    node.inside("/srv/app.conf").write_text("old\n", encoding="ascii")
    bind = ("--mount", "type=bind,src=/srv/app.conf,dst=/var/run/app.conf,options=rbind:ro")
    run(node, "", *bind, command="/bin/counter")
    output(node, ["sh", "-c", "echo new > /srv/next && mv /srv/next /srv/app.conf"])
    wanted = {"container_id": NAME, "name": REF}
    found = expect_failure("containerd_checkpoint", wanted, "mount_source_replaced")
    assert "/run/app.conf" in found["msg"] and "/srv/app.conf" in found["msg"]
    goes_on(node, workload.count(node, NAME))
    workload.delete(node, NAME)
    reached = run(node, "", *bind, command="/bin/counter")
    capture(node, REF)
    restore(node, REF)
    goes_on(node, reached)
    assert inside(node, "/bin/cat", "/run/app.conf") == "new\n"
    remove(node, REF)
