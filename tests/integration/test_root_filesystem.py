# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a container has written comes back as it was: names, attributes, access lists, devices, links, holes, owners."""

from __future__ import annotations

import os
import pathlib
import shutil
import stat
import struct
from collections.abc import Iterator
from typing import Any, Callable

import pytest
from gpuops_lab import image, workload
from gpuops_lab.config import Node
from gpuops_lab.node import output
from node_listing import listing, settled_difference

NAME = "workload"
REFERENCES = tuple(f"gpuops.test/root:{number}" for number in (1, 2, 3))
STATE = "/var/lib/gpuops-restore"
RunModule = Callable[..., dict[str, Any]]
Tree = dict[str, tuple[Any, ...]]


@pytest.fixture(scope="module", autouse=True)
def imported(node: Node) -> None:
    workload.ctr(node, "k8s.io", "images", "import", workload.place_image(node))
    # ctr of containerd 2.1 cannot import for another than the usual snapshotter; a container has the image unpacked.
    run(node, "--snapshotter", "native")
    workload.delete(node, NAME)
    node.inside(f"/var/log/{NAME}.log").unlink()
    # The first namespace leaves the directory of all as a mount.
    output(node, ["ip", "netns", "add", "first"])
    output(node, ["ip", "netns", "delete", "first"])


@pytest.fixture
def clean(node: Node) -> Iterator[None]:
    """The node is afterwards as it was before."""
    before = listing(node)
    yield
    workload.delete(node, NAME)
    shutil.rmtree(node.inside(f"{STATE}/receipts"), ignore_errors=True)
    node.inside(f"/var/log/{NAME}.log").unlink()
    assert settled_difference(node, before) == []


def root(node: Node) -> pathlib.Path:
    """The container's root file system, by its first process."""
    lines = map(str.split, workload.ctr(node, "k8s.io", "tasks", "ls").splitlines())
    pid = next(words[1] for words in lines if words[0] == NAME and words[2] == "RUNNING")
    return pathlib.Path(node.inside(f"/proc/{pid}/root"))


def run(node: Node, *options: str) -> pathlib.Path:
    arguments = ["--detach", "--log-uri", workload.log_uri(NAME), *options, image.REFERENCE, NAME]
    workload.ctr(node, "k8s.io", "run", *arguments)
    workload.await_count(node, NAME, 2)
    return root(node)


def tree(top: pathlib.Path) -> Tree:
    """What there is of each file in the root file system, but for the counter's own and what is mounted.

    Times to the second, as containerd's layers have them.
    """
    found: Tree = {}
    device = top.stat().st_dev
    for directory, directories, names in os.walk(top):
        directories[:] = [name for name in directories if os.lstat(os.path.join(directory, name)).st_dev == device]
        for name in (".", *names):
            path = os.path.normpath(os.path.join(directory, name))
            place = os.path.relpath(path, top)
            if place.startswith("var/count") or os.lstat(path).st_dev != device:
                continue
            about = os.lstat(path)
            attributes = {one: os.getxattr(path, one, follow_symlinks=False) for one in listed(path)}
            link = os.readlink(path) if stat.S_ISLNK(about.st_mode) else ""
            size = 0 if stat.S_ISDIR(about.st_mode) else about.st_size
            mine = (about.st_mode, about.st_uid, about.st_gid, about.st_rdev, size, link)
            moved = stat.S_ISDIR(about.st_mode) or stat.S_ISLNK(about.st_mode)
            found[place] = (*mine, 0 if moved else about.st_nlink, 0 if moved else int(about.st_mtime), attributes)
    return found


def listed(path: str) -> list[str]:
    return sorted(os.listxattr(path, follow_symlinks=False))


def access_list(*entries: tuple[int, int, int]) -> bytes:
    """POSIX ACL as an extended attribute has it: version 2, then tag, permissions and id of each entry."""
    return struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *entry) for entry in entries)


#: Owner rw, user 1000 r, group r, mask r, others nothing.
ACL = access_list((1, 6, 0xFFFFFFFF), (2, 4, 1000), (4, 4, 0xFFFFFFFF), (16, 4, 0xFFFFFFFF), (32, 0, 0xFFFFFFFF))


def write(top: pathlib.Path) -> None:
    """What people's programs leave: state files of build tools, access lists, attributes, devices, holes, links."""
    (top / "srv/dir").mkdir(parents=True)
    (top / "srv/keep").write_text("1\n", encoding="ascii")
    for name in ("srv/.wh.keep", "srv/.wh.other", "var/.wh.count", "srv/dir/.wh..wh..opq"):
        (top / name).write_text(name, encoding="ascii")
    (top / "srv/.wh.tree/.wh.deep").mkdir(parents=True)
    (top / "srv/.wh.tree/.wh.deep/file").write_text("deep\n", encoding="ascii")
    os.link(top / "srv/.wh.tree/.wh.deep/file", top / "srv/hard")
    (top / "srv/.wh.link").symlink_to("/nowhere")
    # Attributes on what was written, on a file and a directory of the image that are otherwise as they were.
    os.setxattr(top / "srv/keep", "user.a", b"x\0y")
    os.setxattr(top / "srv/keep", "trusted.t", b"t")
    os.setxattr(top / "srv/.wh.keep", "user.hidden", b"h")
    os.setxattr(top / "srv/dir", "user.d", b"d")
    os.setxattr(top / "tmp", "user.image", b"directory")
    os.setxattr(top / "bin/counter", "user.image", b"file")
    os.setxattr(top / "srv/.wh.link", "trusted.link", b"l", follow_symlinks=False)
    (top / "srv/acl").touch()
    os.chmod(top / "srv/acl", 0o640)
    os.setxattr(top / "srv/acl", "system.posix_acl_access", ACL)
    os.setxattr(top / "srv/dir", "system.posix_acl_default", ACL)
    (top / "srv/capable").write_bytes(b"#!")
    os.setxattr(top / "srv/capable", "security.capability", struct.pack("<IIIII", 0x02000001, 1 << 10, 0, 0, 0))
    # Devices, pipes, owners, modes, holes.
    os.mknod(top / "srv/null", stat.S_IFCHR | 0o622, os.makedev(1, 3))
    os.mknod(top / "srv/block", stat.S_IFBLK | 0o600, os.makedev(7, 200))
    os.mkfifo(top / "srv/pipe")
    (top / "srv/owned").write_bytes(b"o")
    os.chown(top / "srv/owned", 4_000_000, 12)
    os.chmod(top / "srv/owned", 0o6751)
    with open(top / "srv/sparse", "wb") as stream:
        stream.truncate(64 << 20)
        stream.seek(32 << 20)
        stream.write(b"in the middle")
    (top / "srv" / ("n" * 255)).touch()
    (top / os.fsdecode(b"srv/\xff\xfe no text")).touch()
    shutil.rmtree(top / "etc")
    (top / "bin/wget").unlink()


def captured(run_module: RunModule, number: int, leave: str) -> dict[str, Any]:
    wanted = {"container_id": NAME, "name": REFERENCES[number], "leave": leave, "force": True}
    return run_module("containerd_checkpoint", wanted)


def restored(node: Node, run_module: RunModule, number: int) -> pathlib.Path:
    run_module("containerd_checkpoint_stage", {"checkpoint": REFERENCES[number]})
    asked = {"name": NAME, "checkpoint": REFERENCES[number]}
    run_module("containerd_restore", {"workloads": [asked], "huge_pages": "keep"})
    workload.await_count(node, NAME, workload.count(node, NAME) + 2)
    return root(node)


def gone(node: Node, run_module: RunModule, number: int) -> None:
    for module in ("containerd_task", "containerd_container"):
        run_module(module, {"container_id": NAME, "state": "absent"})
    run_module("containerd_checkpoint_stage", {"checkpoint": REFERENCES[number], "state": "absent"})
    workload.ctr(node, "k8s.io", "images", "rm", "--sync", REFERENCES[number])


@pytest.mark.every_containerd
@pytest.mark.usefixtures("clean")
def test_all_that_was_written_comes_back_any_number_of_times(node: Node, run_module: RunModule) -> None:
    """Copied while the workload goes on, compared in place where it is ended; what was restored is captured again."""
    top = run(node)
    write(top)
    before = tree(top)
    assert "7 files whose names begin with .wh." in str(captured(run_module, 0, "running")["warnings"])
    workload.delete(node, NAME)
    top = restored(node, run_module, 0)
    assert tree(top) == before
    assert (top / "srv/.wh.tree/.wh.deep/file").samefile(top / "srv/hard")
    assert (top / "srv/sparse").read_bytes()[32 << 20 : (32 << 20) + 13] == b"in the middle"
    captured(run_module, 1, "stopped")
    gone(node, run_module, 0)
    assert tree(restored(node, run_module, 1)) == before
    gone(node, run_module, 1)


@pytest.mark.usefixtures("clean")
def test_attributes_are_taken_where_nothing_is_copied(node: Node, run_module: RunModule) -> None:
    """Files of a workload that is ended are compared where they are: by containerd to read only, so that they stay."""
    top = run(node)
    os.setxattr(top / "tmp", "user.image", b"directory")
    (top / "etc/acl").touch()
    os.setxattr(top / "etc/acl", "system.posix_acl_access", ACL)
    before = tree(top)
    assert captured(run_module, 0, "paused").get("warnings", []) == []
    run_module("containerd_checkpoint", {"container_id": NAME, "name": REFERENCES[0], "state": "settled"})
    # The first change of these files since they were compared.
    shutil.move(top / "bin/wget", top / "etc/moved")
    (top / "bin/counter").rename(top / "bin/renamed")
    (top / "bin/renamed").rename(top / "bin/counter")
    workload.delete(node, NAME)
    assert tree(restored(node, run_module, 0)) == before
    gone(node, run_module, 0)


@pytest.mark.usefixtures("clean")
def test_another_snapshotter(node: Node, run_module: RunModule, expect_failure: RunModule) -> None:
    """A root file system that is a directory by itself keeps its attributes; names that it cannot keep are refused."""
    top = run(node, "--snapshotter", "native")
    os.setxattr(top / "tmp", "user.image", b"directory")
    (top / "etc/.wh.file").touch()
    for check in (True, False):
        wanted = {"container_id": NAME, "name": REFERENCES[0]}
        found = expect_failure("containerd_checkpoint", wanted, "written_name_reserved", check=check)
        assert "/etc/.wh.file" in found["msg"] and "native" in found["msg"]
    (top / "etc/.wh.file").unlink()
    before = tree(top)
    captured(run_module, 0, "running")
    workload.delete(node, NAME)
    assert tree(restored(node, run_module, 0)) == before
    gone(node, run_module, 0)
