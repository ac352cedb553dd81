# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Deleted files with another name: looked for in this process, refused or taken, and linked for the layer."""

from __future__ import annotations

import dataclasses
import mmap
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.gpuops.restore.plugins.module_utils._capture import unlinked_files
from ansible_collections.gpuops.restore.plugins.module_utils._capture.params import DumpOptions
from ansible_collections.gpuops.restore.plugins.module_utils._capture.unlinked_files import (
    DUMPED,
    LAYER,
    NOWHERE,
    OUTSIDE,
    UnlinkedFile,
)
from ansible_collections.gpuops.restore.plugins.module_utils._containerd.containers import Container
from ansible_collections.gpuops.restore.plugins.module_utils._core import labels as core_labels
from ansible_collections.gpuops.restore.plugins.module_utils._core.errors import RestoreError
from ansible_collections.gpuops.restore.plugins.module_utils._host import mountinfo

ME = os.getpid()
SHM = {"mounts": [{"destination": "/dev/shm", "type": "bind", "source": "/pod/shm"}]}
Place = Callable[..., str]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A file with two names, both there."""
    (tmp_path / "one").write_text("content", encoding="ascii")
    os.link(tmp_path / "one", tmp_path / "two")
    return tmp_path / "one"


def found(path: Path, spec: dict[str, Any] | None = None) -> list[UnlinkedFile]:
    return [one for one in unlinked_files.find([ME], spec or {}) if one.path == str(path)]


def test_one_that_is_open(file: Path) -> None:
    with file.open("rb") as first, file.open("rb"):
        assert found(file) == [], "it has its name"
        file.unlink()
        (one,) = found(file)
        assert (one.pid, one.result()) == (ME, {"pid": ME, "path": str(file)})
        assert os.path.samestat(os.stat(one.handle), os.fstat(first.fileno()))
        assert str(one) == f"{file} of process {ME}"
    assert found(file) == [], "it is closed"


def test_one_that_is_only_mapped(file: Path) -> None:
    with file.open("r+b") as stream:
        area = mmap.mmap(stream.fileno(), 0)
    # Python's mapping has a descriptor of its own.
    descriptors = [int(name) for name in os.listdir("/proc/self/fd") if leads_to(name, file)]
    for descriptor in descriptors:
        os.close(descriptor)
    file.unlink()
    (one,) = found(file)
    assert "/map_files/" in one.handle
    assert os.stat(one.handle).st_nlink == 1
    del area


def leads_to(name: str, file: Path) -> bool:
    return os.path.exists(f"/proc/self/fd/{name}") and os.readlink(f"/proc/self/fd/{name}") == str(file)


def test_one_without_any_name_and_one_that_is_no_file(file: Path, tmp_path: Path) -> None:
    directory = tmp_path / "directory"
    directory.mkdir()
    descriptor = os.open(directory, os.O_RDONLY)
    directory.rmdir()
    memory = os.memfd_create("never had a name")
    os.write(memory, b"x" * 8192)
    with file.open("r+b") as stream:
        stream.write(b"x" * 8192)
        stream.flush()
        file.unlink()
        file.with_name("two").unlink()
        assert found(file) == found(directory) == []
        mine = [one for one in unlinked_files.nameless([ME], {}) if one.path in (str(file), "/memfd:never had a name")]
        assert [(one.path, one.links, one.bytes) for one in mine] == [(str(file), 0, 8192)]
    os.close(descriptor)
    os.close(memory)
    assert unlinked_files.find([2**22 + 1], {}) == unlinked_files.nameless([2**22 + 1], {}) == []


@pytest.mark.parametrize(
    ("mount", "spec", "place"),
    [
        ("/ / rw - overlay overlay rw", {}, LAYER),
        ("/ /dev/shm rw - tmpfs shm rw", {}, DUMPED),
        ("/ /dev/shm rw - tmpfs shm rw", SHM, OUTSIDE),
        ("/ /dev/shm/deep rw - tmpfs shm rw", SHM, OUTSIDE),
        ("/ /dev/shmem rw - tmpfs shm rw", SHM, DUMPED),
        ("/ /data rw - ext4 /dev/sda1 rw", {}, OUTSIDE),
    ],
)
def test_where_it_is_by_its_mount(
    file: Path, monkeypatch: pytest.MonkeyPatch, mount: str, spec: dict[str, Any], place: str
) -> None:
    with file.open("rb") as stream:
        lines = Path(f"/proc/self/fdinfo/{stream.fileno()}").read_text(encoding="ascii").splitlines()
        number = next(line.split()[1] for line in lines if line.startswith("mnt_id:"))
        file.unlink()
        monkeypatch.setattr(mountinfo, "read", lambda _path: f"{number} 1 0:50 {mount}\n")
        assert [one.place for one in found(file, spec)] == [place]
        monkeypatch.setattr(mountinfo, "read", lambda _path: f"{int(number) + 1} 1 0:50 {mount}\n")
        assert [one.place for one in found(file, spec)] == [NOWHERE], "nobody knows its mount"


# --- whether it can be taken


def one(place: str, path: str = "/var/one", inode: int = 1) -> UnlinkedFile:
    return UnlinkedFile(7, path, place, "/proc/7/fd/3", (1, inode))


def container(annotations: dict[str, str], **labels: str) -> Container:
    empty = {field.name: "" for field in dataclasses.fields(Container) if field.default is dataclasses.MISSING}
    return Container(**{**empty, "id": "box", "labels": labels, "spec": {"annotations": annotations}})  # type: ignore[arg-type]


OURS = {core_labels.OWNER: "gpuops.restore"}


@pytest.mark.parametrize(
    ("files", "option", "annotations", "labels", "codes"),
    [
        ([], "false", {}, {}, []),
        ([one(LAYER), one(DUMPED)], "auto", {}, {}, []),
        ([one(LAYER)], "true", {}, {}, []),
        ([one(LAYER)], "false", {}, {}, ["unlinked_files_open"]),
        ([one(OUTSIDE)], "auto", {}, {}, ["unlinked_file_outside"]),
        ([one(OUTSIDE), one(LAYER)], "false", {}, {}, ["unlinked_file_outside", "unlinked_files_open"]),
        ([one(NOWHERE)], "auto", {}, {}, ["unlinked_file_outside"]),
        ([one(LAYER)], "false", {"org.criu.config": "/x/criu.conf"}, OURS, ["unlinked_files_open"]),
    ],
)
def test_why_it_cannot_be_taken(
    files: list[UnlinkedFile], option: str, annotations: dict[str, str], labels: dict[str, str], codes: list[str]
) -> None:
    problems = unlinked_files.problems(container(annotations, **labels), files, DumpOptions(link_remap=option))
    assert [problem.code for problem in problems] == codes
    assert all("/var/one of process 7" in problem.message for problem in problems)


def test_a_configuration_that_allows_it_already(tmp_path: Path) -> None:
    (tmp_path / "own.conf").write_text("link-remap\n", encoding="ascii")
    subject = container({"org.criu.config": str(tmp_path / "own.conf")})
    assert unlinked_files.problems(subject, [one(LAYER)], DumpOptions(link_remap="false")) == []


# --- the layer


def test_links_of_the_layer_alone() -> None:
    files = [one(LAYER), one(LAYER), one(DUMPED, "/dev/shm/sem", 2)]
    remaps = [("/var/one", "/var/link_remap.5"), ("/dev/shm/sem", "/dev/shm/link_remap.6")]
    assert unlinked_files.links_of_layer(remaps, files) == {"/var/link_remap.5": files[0]}
    assert unlinked_files.links_of_layer([], files) == {}


@pytest.mark.parametrize("files", [[], [one(OUTSIDE)], [one(LAYER), one(LAYER, inode=2)]])
def test_what_the_layer_could_not_hold_fails(files: list[UnlinkedFile]) -> None:
    with pytest.raises(RestoreError) as caught:
        unlinked_files.links_of_layer([("/var/one", "/var/link_remap.5")], files)
    assert caught.value.code == "link_remap_failed"
    assert "/var/one" in caught.value.message


def test_a_link_is_there_and_then_is_not(file: Path) -> None:
    link = file.with_name("link_remap.5")
    with file.open("rb") as stream:
        file.unlink()
        (deleted,) = found(file)
        with unlinked_files.linked(ME, {str(link): deleted}):
            assert os.path.samestat(link.stat(), os.fstat(stream.fileno()))
        assert [entry.name for entry in file.parent.iterdir()] == ["two"]
        unlinked_files.unlink(ME, [str(link), "/nonexistent/link"])


def test_a_link_that_cannot_be_made_takes_the_others_away(file: Path) -> None:
    with file.open("rb"):
        file.unlink()
        (deleted,) = found(file)
        file.with_name("taken").touch()
        links = {str(file.with_name(name)): deleted for name in ("link_remap.5", "taken")}
        with pytest.raises(RestoreError) as caught, unlinked_files.linked(ME, links):
            pass
        assert caught.value.code == "link_remap_failed"
        assert sorted(entry.name for entry in file.parent.iterdir()) == ["taken", "two"]


def test_no_link_leads_out_of_the_container(file: Path, tmp_path: Path) -> None:
    """The kernel's paths have no links in them; one that does was put there to lead us elsewhere."""
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (tmp_path / "way").symlink_to(elsewhere)
    (elsewhere / "link_remap.5").touch()
    with file.open("rb"):
        file.unlink()
        (deleted,) = found(file)
        with pytest.raises(RestoreError), unlinked_files.linked(ME, {f"{tmp_path}/way/link_remap.6": deleted}):
            pass
        unlinked_files.unlink(ME, [f"{tmp_path}/way/link_remap.5"])
    assert [entry.name for entry in elsewhere.iterdir()] == ["link_remap.5"]
