# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Checkpoints as files on a real containerd: out, in, from other tools; cut off, hostile, large."""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import json
import os
import subprocess
import tarfile
import time
from collections.abc import Callable, Iterator
from typing import Any

import in_node
import make_dumps
import make_images
import pytest
from gpuops_lab import image, workload
from gpuops_lab.config import Node
from gpuops_lab.node import output
from make_dumps import Dump
from node_listing import listing, settled_difference

#: What the node has beyond the others.
EXTRAS = ("podman",)
MODULE = "containerd_checkpoint_archive"
REF = "gpuops.test/moved:1"
BASE = image.REFERENCE
PLACE = "/opt/archives"
MIB = 1 << 20
LARGE = 256
RunModule = Callable[..., "dict[str, Any]"]
Unchanged = Callable[..., "contextlib.AbstractContextManager[None]"]


@pytest.fixture(scope="module", autouse=True)
def dumped(node: Node) -> Dump:
    """A counter was dumped and is gone; its image stays."""
    found = make_dumps.criu(node)
    node.inside(PLACE).mkdir(mode=0o700, exist_ok=True)
    return found


@pytest.fixture(scope="module")
def podman(node: Node, dumped: Dump) -> make_dumps.Podman:
    """podman has checkpointed a counter, which is gone; podman's own state stays."""
    return make_dumps.podman(node)


@pytest.fixture
def clean(node: Node) -> Iterator[None]:
    """The node is afterwards as it was before, but for what lies in /opt."""
    before = listing(node)
    yield
    forget(node, *(name for name in names(node) if name.startswith("gpuops.test/") and name != BASE))
    # What a restore keeps below /run is for the tests of restores to judge.
    lines = [line for line in settled_difference(node, before) if " /run/gpuops-restore" not in line]
    assert not lines, "the node is not as it was:\n" + "\n".join(lines)


def names(node: Node) -> list[str]:
    return workload.ctr(node, "k8s.io", "images", "ls", "-q").split()


def forget(node: Node, *found: str) -> None:
    if found:
        workload.ctr(node, "k8s.io", "images", "rm", "--sync", *found)


def put(node: Node, name: str, data: bytes) -> str:
    path = f"{PLACE}/{name}"
    node.inside(path).write_bytes(data)
    return path


def export(path: str, **more: Any) -> dict[str, Any]:
    return {"operation": "export", "name": REF, "path": path, **more}


def import_(path: str, **more: Any) -> dict[str, Any]:
    return {"operation": "import", "name": REF, "path": path, **more}


def convert(path: str, **more: Any) -> dict[str, Any]:
    return {"operation": "convert", "name": REF, "path": path, **more}


def directory(**more: Any) -> dict[str, Any]:
    return convert(make_dumps.DIRECTORY, spec=make_dumps.SPEC, rootfs_diff=make_dumps.DIFF, image=BASE, **more)


def twice(run_module: RunModule, params: dict[str, Any]) -> dict[str, Any]:
    """Foretold, done, and then there is nothing to do; the result of doing it."""
    predicted = run_module(MODULE, params, check=True, diff=True)
    done = run_module(MODULE, params, diff=True)
    for key in ("changed", "digest", "actions", "diff"):
        assert predicted[key] == done[key], key
    assert done["changed"]
    for check in (True, False):
        again = run_module(MODULE, params, check=check, diff=True)
        assert not again["changed"] and not again["actions"] and again["digest"] == done["digest"]
        assert again["diff"]["before"] == again["diff"]["after"]
    return done


def goes_on(node: Node, run_module: RunModule, count: int, *, lacking: str = "", name: str = REF, **wish: Any) -> None:
    """containerd_restore brings it back, it counts on from where it was, and is taken away again."""
    assert run_module("containerd_checkpoint_stage", {"checkpoint": name})["changed"]
    done = run_module("containerd_restore", {"workloads": [{"name": "copy", "checkpoint": name, **wish}]})
    assert done["workloads"]["copy"]["task"]["status"] == "RUNNING"
    begun = workload.count(node, "copy")
    assert count <= begun < count + 100
    workload.await_count(node, "copy", begun + 3)
    log = inside(node, "/bin/cat", "/var/count.log")
    numbers = [int(line) for line in log.split()]
    assert numbers == list(range(1, len(numbers) + 1)), "the writable layer is of another moment than the memory"
    if lacking:
        assert os.path.basename(lacking) not in inside(node, "/bin/ls", os.path.dirname(lacking)).split()
    for module in ("containerd_task", "containerd_container"):
        run_module(module, {"container_id": "copy", "state": "absent"})
    output(node, ["rm", "-rf", "/var/lib/gpuops-restore/receipts"])
    run_module("containerd_checkpoint_stage", {"checkpoint": name, "state": "absent"})


def inside(node: Node, *command: str) -> str:
    return workload.ctr(node, "k8s.io", "tasks", "exec", "--exec-id", f"x{time.monotonic_ns()}", "copy", *command)


# --- out and in


@pytest.mark.every_containerd
@pytest.mark.parametrize("ending", ["tar", "tar.gz", "tar.zst"])
def test_out_and_in_and_on(node: Node, run_module: RunModule, dumped: Dump, clean: None, ending: str) -> None:
    kind = {"tar": "none", "tar.gz": "gzip", "tar.zst": "zstd"}[ending]
    made = run_module(MODULE, directory())
    path = f"{PLACE}/out.{ending}"
    written = twice(run_module, export(path))
    archive = node.inside(path)
    assert (archive.stat().st_mode & 0o777, archive.stat().st_size) == (0o600, written["archive"]["size"])
    assert written["digest"] == made["digest"] and written["archive"]["compression"] == kind
    assert not list(archive.parent.glob(".*")), "something is left beside it"
    recorded = json.loads(node.inside(f"{path}.gpuops.json").read_text())
    assert recorded["digest"] == f"sha256:{hashlib.sha256(archive.read_bytes()).hexdigest()}"
    # A copy that came without its time, and one that came without its record.
    os.utime(archive, (1, 1))
    for check in (True, False):
        assert not run_module(MODULE, export(path), check=check)["changed"]
    node.inside(f"{path}.gpuops.json").unlink()
    for check in (True, False):
        assert not run_module(MODULE, export(path), check=check)["changed"]
    assert json.loads(node.inside(f"{path}.gpuops.json").read_text())["digest"] == recorded["digest"]
    archive.chmod(0o644)
    assert run_module(MODULE, export(path))["actions"] == [f"set the mode of {path} from 0644 to 0600"]
    before = workload.ctr(node, "k8s.io", "content", "ls", "-q").split()
    forget(node, REF, BASE)
    assert len(workload.ctr(node, "k8s.io", "content", "ls", "-q").split()) < len(before)
    done = twice(run_module, import_(path))
    assert done["digest"] == made["digest"] and done["archive"]["compression"] == kind
    # The base image is found by its digest; a tag of the checkpoint's choice is made on request only.
    (private,) = [name for name in names(node) if name.startswith(BASE.rpartition(":")[0] + "@")]
    assert REF in names(node) and BASE not in names(node)
    goes_on(node, run_module, dumped.count)
    forget(node, REF, private)
    run_module(MODULE, {**import_(path), "tag_base": True})
    assert {REF, BASE} <= set(names(node)), "the base image has its name back"
    forget(node, REF, BASE)
    if kind == "none":
        # containerd's own client takes it, too.
        workload.ctr(node, "k8s.io", "images", "import", "--no-unpack", path)
        assert {REF, BASE} <= set(names(node))
        assert not run_module(MODULE, import_(path))["changed"]
        forget(node, REF, BASE)
    workload.ctr(node, "k8s.io", "images", "import", workload.ARCHIVE)


def test_without_the_base_image(node: Node, run_module: RunModule, expect_failure: RunModule, clean: None) -> None:
    run_module(MODULE, directory())
    path = f"{PLACE}/small.tar"
    twice(run_module, export(path, base="omit"))
    with_base = run_module(MODULE, export(f"{PLACE}/large.tar"))
    assert node.inside(path).stat().st_size < with_base["archive"]["size"]
    expect_failure(MODULE, export(path), "archive_other_content")
    expect_failure(MODULE, export(path), "archive_other_content", check=True)
    assert run_module(MODULE, export(path, force=True))["changed"]
    assert not run_module(MODULE, export(path))["changed"]
    run_module(MODULE, export(path, force=True, base="omit"))
    forget(node, REF)
    done = twice(run_module, import_(path))
    assert done["archive"]["kept"] == 0
    assert run_module(MODULE, import_(path))["archive"]["kept"] == done["archive"]["blobs"]


def test_what_ctr_exported(node: Node, run_module: RunModule, clean: None) -> None:
    """An archive by ``ctr images export`` is one that import and convert both take, and that export leaves alone."""
    digest = run_module(MODULE, directory())["digest"]
    path = f"{PLACE}/ctr.tar"
    workload.ctr(node, "k8s.io", "images", "export", "--skip-manifest-json", path, REF)
    os.chmod(node.inside(path), 0o600)
    assert not run_module(MODULE, export(path))["changed"]
    forget(node, REF)
    assert run_module(MODULE, import_(path))["digest"] == digest
    forget(node, REF)
    done = twice(run_module, convert(path))
    assert (done["digest"], done["archive"]["kind"]) == (digest, "oci")


# --- from other tools


def kubelet_config(dumped: Dump) -> dict[str, Any]:
    """``config.dump`` as containerd's CRI plugin writes it for the kubelet."""
    return {
        "id": "0123456789abcdef",
        "name": "counter",
        "rootfsImage": BASE,
        "rootfsImageRef": f"gpuops.test/counter@{dumped.base}",
        "rootfsImageName": BASE,
        "runtime": "io.containerd.runc.v2",
        "createdTime": "2026-11-24T05:31:31Z",
        "checkpointedTime": "2026-11-24T05:41:31Z",
        "restoredTime": "0001-01-01T00:00:00Z",
        "restored": False,
    }


@pytest.mark.every_containerd
def test_an_archive_of_the_kubelet(node: Node, run_module: RunModule, dumped: Dump, clean: None) -> None:
    """With containerd: the changed files are a tar within gzip."""
    files = {"status_dump": b"{}", "container_log": b"1\n"}
    data = dumped.archive(kubelet_config(dumped), **{"rootfs-diff_tar": gzip.compress(dumped.diff)}, **files)
    done = twice(run_module, convert(put(node, "checkpoint-pod_ns-counter.tar", data)))
    assert done["archive"]["kind"] == "kubelet"
    goes_on(node, run_module, dumped.count)


def test_an_archive_of_cri_o(node: Node, run_module: RunModule, dumped: Dump, clean: None) -> None:
    """The changed files are a plain tar; those that were deleted are in a list."""
    config = {**kubelet_config(dumped), "rootfsImage": dumped.base[7:], "runtime": "runc"}
    files = {"rootfs-diff_tar": dumped.diff, "deleted_files": b'["/bin/wget"]', "bind_mounts": b"[]"}
    path = put(node, "crio.tar.gz", gzip.compress(dumped.archive(config, **files), 1))
    twice(run_module, convert(path))
    goes_on(node, run_module, dumped.count, lacking="/bin/wget")


@pytest.mark.every_containerd
def test_an_archive_of_podman(node: Node, run_module: RunModule, podman: make_dumps.Podman, clean: None) -> None:
    done = twice(run_module, convert(make_dumps.PODMAN_ARCHIVE))
    assert done["archive"]["kind"] == "podman"
    assert any("skip-file-rwx-check" in str(warning) for warning in done["warnings"])
    assert podman.mounts
    goes_on(node, run_module, podman.count, mounts=podman.mounts, criu={"extra": ["skip-file-rwx-check"]})


@pytest.mark.every_containerd
def test_a_directory_of_criu(
    node: Node, run_module: RunModule, expect_failure: RunModule, dumped: Dump, clean: None
) -> None:
    """With a spec, and with the metadata file; the same images give the same digest."""
    done = twice(run_module, directory())
    assert done["archive"]["kind"] == "directory"
    goes_on(node, run_module, dumped.count)
    # It is what containerd's own client understands, too.
    workload.restore(node, "by-ctr", REF)
    workload.await_count(node, "by-ctr", dumped.count + 3)
    workload.delete(node, "by-ctr")
    output(node, ["sh", "-c", "rm -rf /tmp/ctrd-checkpoint*"])
    metadata = {"originalImage": BASE, "snapshotter": "overlayfs", "snapshotID": "original", "ociSpec": dumped.spec}
    path = put(node, "metadata.json", json.dumps(metadata).encode())
    other = convert(make_dumps.DIRECTORY, metadata=path, rootfs_diff=make_dumps.DIFF)
    assert run_module(MODULE, other)["digest"] == done["digest"]
    expect_failure(MODULE, convert(make_dumps.DIRECTORY, image=BASE), "convert_spec_missing")
    expect_failure(MODULE, convert(make_dumps.DIRECTORY, spec=make_dumps.SPEC), "base_image_unknown")
    expect_failure(MODULE, {**directory(), "rootfs_diff": "/nowhere"}, "archive_missing")


def test_another_base_image_and_another_digest(
    node: Node, run_module: RunModule, expect_failure: RunModule, dumped: Dump, clean: None
) -> None:
    wrong = {**kubelet_config(dumped), "rootfsImageRef": "gpuops.test/counter@sha256:" + 64 * "1"}
    files = {"rootfs-diff_tar": dumped.diff}
    path = put(node, "wrong.tar", dumped.archive(wrong, **files))
    for check in (True, False):
        expect_failure(MODULE, convert(path), "base_image_moved", check=check)
        expect_failure(MODULE, convert(path, image="gpuops.test/nothing:1"), "base_image_absent", check=check)
    first = run_module(MODULE, convert(path, image=BASE))
    later = put(node, "later.tar", dumped.archive(kubelet_config(dumped), dump_log=b"later", **files))
    assert not run_module(MODULE, convert(later))["changed"], "what is not in the image makes no other image"
    changed = put(node, "changed.tar", dumped.archive(kubelet_config(dumped)))
    for check in (True, False):
        expect_failure(MODULE, convert(changed), "image_other_digest", check=check)
    moved = run_module(MODULE, convert(changed, force=True), diff=True)
    assert moved["diff"]["before"] == {"digest": first["digest"]}
    assert not run_module(MODULE, convert(changed))["changed"]


# --- hostile


HOSTILE = {
    "parent": (make_images.member("../escaped", b"x"), "tar_unsafe_name"),
    "absolute": (make_images.member("/etc/escaped", b"x"), "tar_unsafe_name"),
    "device": (make_images.member("checkpoint/null", kind=tarfile.CHRTYPE), "tar_unsafe_type"),
    "link-out": (make_images.member("rootfs-diff.tar", kind=tarfile.SYMTYPE, link="/etc/shadow"), "archive_link"),
    "link-in": (make_images.member("checkpoint/x.img", kind=tarfile.SYMTYPE, link="../config.dump"), "archive_link"),
    "twice": (make_images.member("config.dump", b"{}"), "tar_duplicate_name"),
    "nested": (make_images.member("checkpoint/a/b.img", b"x"), "dump_invalid"),
    "deep": (make_images.member("checkpoint/" + "a/" * 40 + "x", b"x"), "tar_unsafe_name"),
    "layer-out": (
        make_images.member("rootfs-diff.tar", make_images.tar([make_images.member("../x")])),
        "tar_unsafe_name",
    ),
    "layer-not-a-tar": (make_images.member("rootfs-diff.tar", b"x" * 600), "tar_not_a_tar"),
    "deleted-out": (make_images.member("deleted.files", b'["../../etc/passwd"]'), "tar_unsafe_name"),
    "deleted-nested": (make_images.member("deleted.files", b"[" * 100000), "dump_invalid"),
}


def test_a_hostile_dump_is_refused(node: Node, expect_failure: RunModule, unchanged: Unchanged, dumped: Dump) -> None:
    plain = dumped.archive(kubelet_config(dumped)).rstrip(b"\0")
    plain += bytes(-len(plain) % 512)
    with unchanged():
        for entry, code in HOSTILE.values():
            expect_failure(MODULE, convert(put(node, "hostile.tar", plain + entry + bytes(1024))), code)


def test_a_hostile_archive_is_refused(
    node: Node, run_module: RunModule, expect_failure: RunModule, unchanged: Unchanged, clean: None
) -> None:
    run_module(MODULE, directory())
    good = make_images.take_apart(node, REF)
    other = "gpuops.test/hostile:1"
    parts = {
        "blob_missing": good.lacking("criu"),
        "not_a_checkpoint": good.ordinary(),
    }
    huge = good.own()
    huge.index["manifests"][1]["size"] = 1 << 49
    parts["blob_size_mismatch"] = huge
    impossible = good.own()
    impossible.index["manifests"][1]["size"] = 1 << 60
    parts["descriptor_invalid"] = impossible
    wrong = good.own()
    digest = wrong.child("criu")["digest"]
    wrong.blobs[digest] = b"\1" + (wrong.blobs[digest] or b"")[1:]
    parts["digest_mismatch"] = wrong
    nested = good.own()
    for _level in range(6):
        inner = make_images.encoded(nested.index)
        nested.blobs[make_images.digest_of(inner)] = inner
        child = {"mediaType": make_images.INDEX, "digest": make_images.digest_of(inner), "size": len(inner)}
        nested.index["manifests"] = [*nested.index["manifests"][:-1], child]
    parts["archive_too_deep"] = nested
    with unchanged():
        for code, made in parts.items():
            path = put(node, f"{code}.tar", make_images.archive(made, other))
            expect_failure(MODULE, {**import_(path), "name": other}, code)
        expect_failure(MODULE, {**import_(f"{PLACE}/none.tar"), "name": other}, "archive_missing")
        for entry, code in (HOSTILE["parent"], HOSTILE["device"]):
            path = put(node, "entry.tar", make_images.archive(good, other, [entry]))
            expect_failure(MODULE, {**import_(path), "name": other}, code)
        bomb = make_images.zstd(node, make_images.zeros(128))
        expect_failure(MODULE, {**import_(put(node, "bomb", bomb)), "name": other}, "archive_bomb")
        path = put(node, "good.tar", make_images.archive(good, other))
        params = {**import_(path), "name": other, "digest": "sha256:" + 64 * "0"}
        expect_failure(MODULE, params, "image_digest_mismatch")


# --- large


def put_pages(node: Node, mib: int) -> str:
    """A directory of CRIU images that has so many MiB of pages, though not on the disk."""
    path = f"/opt/pages-{mib}"
    place = node.inside(path)
    place.mkdir(exist_ok=True)
    for name in ("inventory.img", "descriptors.json"):
        (place / name).write_bytes(b"[]")
    with open(place / "pages-1.img", "wb") as stream:
        stream.truncate(mib * MIB)
    return path


def peak(node: Node, params: dict[str, Any]) -> int:
    """The module's peak resident memory in bytes."""
    code = (
        "import runpy, sys\n"
        "try: runpy.run_path(sys.argv.pop(1), run_name='__main__')\n"
        "except SystemExit: pass\n"
        "for line in open('/proc/self/status'):\n"
        "    if line.startswith('VmHWM:'): print(line.split()[1], file=sys.stderr)"
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
    assert json.loads(done.stdout)["changed"], done.stdout
    return int(done.stderr.split()[-1]) << 10


def test_memory_is_flat(node: Node, clean: None) -> None:
    """Sixteen times the pages take no more memory, whatever is done with them."""
    peaks: dict[str, list[int]] = {}
    for mib in (LARGE // 16, LARGE):
        archive = f"{PLACE}/pages-{mib}.tar"
        given = {"spec": make_dumps.SPEC, "image": BASE}
        peaks.setdefault("convert", []).append(peak(node, convert(put_pages(node, mib), **given)))
        peaks.setdefault("export", []).append(peak(node, export(archive)))
        forget(node, REF)
        peaks.setdefault("import", []).append(peak(node, import_(archive)))
        forget(node, REF)
        node.inside(archive).unlink()
    told = ", ".join(f"{name} {small >> 20} and {large >> 20} MiB" for name, (small, large) in peaks.items())
    print(f"peak memory for {LARGE // 16} and {LARGE} MiB of pages: {told}")
    assert all(large - small < 24 * MIB for small, large in peaks.values()), told


def test_killed_half_way_and_finished(node: Node, run_module: RunModule, clean: None) -> None:
    """What a killed export wrote is gone after the next one, and the archive is whole."""
    run_module(MODULE, convert(put_pages(node, LARGE // 4), spec=make_dumps.SPEC, image=BASE))
    path = f"{PLACE}/killed.tar"
    place = node.inside(path)
    in_node.killed(node, MODULE, export(path), "_streams.streams:Hasher.update", "#40")
    (partial,) = place.parent.glob("*killed*")
    assert partial.name == ".killed.tar.partial"
    written = partial.stat().st_size
    assert run_module(MODULE, export(path))["changed"]
    assert 0 < written < place.stat().st_size
    assert not run_module(MODULE, export(path))["changed"]
    assert sorted(entry.name for entry in place.parent.glob("*killed*")) == ["killed.tar", "killed.tar.gpuops.json"]
    with tarfile.open(place) as archive:
        for member in archive:
            content = archive.extractfile(member)
            found = hashlib.sha256(content.read()).hexdigest() if content else ""
            assert not member.name.startswith("blobs/") or member.name == f"blobs/sha256/{found}"
    run_module(MODULE, {"operation": "remove", "name": REF, "path": path})
    assert not list(place.parent.glob("*killed*"))


def test_containerd_restarts_with_cri(node: Node) -> None:
    assert workload.cri_problems(node) == []
