# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Checkpoints as other tools write them, made in a node: a CRIU directory, archives of the kubelet's kind, podman's."""

from __future__ import annotations

import dataclasses
import gzip
import io
import json
import pathlib
import tarfile
import time
from collections.abc import Mapping
from typing import Any

from gpuops_lab import image, workload
from gpuops_lab.config import LabError, Node
from gpuops_lab.node import output

DIRECTORY, DIFF, SPEC = "/opt/dump/images", "/opt/dump/rootfs-diff.tar", "/opt/dump/spec.json"
PODMAN_ARCHIVE = "/opt/podman.tar.gz"
_PODMAN = (
    *("env", "PODMAN_IGNORE_CGROUPSV1_WARNING=1", "TMPDIR=/opt", "podman"),
    *("--root", "/opt/podman/root", "--runroot", "/opt/podman/run", "--storage-driver", "vfs"),
    *("--cgroup-manager", "cgroupfs", "--events-backend", "file", "--runtime", "runc"),
)
# podman raises the limits of the process above what a test machine may allow.
_LIMITS = ("--ulimit", "nofile=20000:20000", "--ulimit", "nproc=32768:32768")


@dataclasses.dataclass(frozen=True)
class Dump:
    """A counter that was dumped with CRIU and is gone. ``count``: where it was; ``diff``: its changed files, a tar."""

    count: int
    images: Mapping[str, bytes]
    diff: bytes
    spec: dict[str, Any]
    base: str

    def archive(self, config: Mapping[str, Any], **more: bytes) -> bytes:
        """An archive of the kubelet's kind with that ``config.dump``; ``more`` files by name, ``_`` for a dot."""
        files = {
            "config.dump": json.dumps(config).encode(),
            "spec.dump": json.dumps(self.spec).encode(),
            "dump.log": b"(00.000000) Version: 4.1.1\n",
            "stats-dump": b"\0",
            **{f"checkpoint/{name}": data for name, data in self.images.items()},
            **{name.replace("_", "."): data for name, data in more.items()},
        }
        return packed(files)


def packed(files: Mapping[str, bytes]) -> bytes:
    """A tar of these files, with their directories before them, as Go's archivers write it."""
    tar = io.BytesIO()
    with tarfile.open(fileobj=tar, mode="w", format=tarfile.PAX_FORMAT) as writer:
        for directory in sorted({name.rpartition("/")[0] for name in files} - {""}):
            entry = tarfile.TarInfo(directory + "/")
            entry.type, entry.mode = tarfile.DIRTYPE, 0o700
            writer.addfile(entry)
        for name, data in files.items():
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode, entry.mtime = len(data), 0o600, 1_700_000_000.5
            writer.addfile(entry, io.BytesIO(data))
    return tar.getvalue()


def criu(node: Node) -> Dump:
    """Run the counter, dump it into DIRECTORY, and keep what else a checkpoint is made of."""
    workload.start(node, "original", 8)
    workload.await_count(node, "original", 10)
    output(node, ["mkdir", "-p", DIRECTORY])
    workload.ctr(node, "k8s.io", "tasks", "checkpoint", "--exit", "--image-path", DIRECTORY, "original")
    output(node, ["sh", "-c", f"ctr -n k8s.io snapshots diff original > {DIFF}"])
    node.inside(SPEC).write_text(workload.ctr(node, "k8s.io", "containers", "info", "--spec", "original"))
    rows = [row.split() for row in workload.ctr(node, "k8s.io", "images", "ls").splitlines()]
    base = next(row[2] for row in rows if row and row[0] == image.REFERENCE)
    workload.delete(node, "original")
    diff = gzip.decompress(node.inside(DIFF).read_bytes())
    with tarfile.open(fileobj=io.BytesIO(diff)) as reader:
        count = reader.extractfile("var/count")
        assert count is not None
        reached = int(count.read())
    images = {path.name: path.read_bytes() for path in sorted(node.inside(DIRECTORY).iterdir())}
    return Dump(reached, images, diff, json.loads(node.inside(SPEC).read_text()), base)


@dataclasses.dataclass(frozen=True)
class Podman:
    """A counter that podman checkpointed and removed; ``mounts``: its binds, whose sources are gone with it."""

    count: int
    mounts: dict[str, str]


def podman(node: Node) -> Podman:
    """Have podman run the counter and export a checkpoint of it to PODMAN_ARCHIVE."""
    output(node, [*_PODMAN, "load", "--quiet", "--input", workload.place_image(node)])
    arguments = ["--name", "pod", "--network", "none", "--log-driver", "k8s-file", *_LIMITS]
    output(node, [*_PODMAN, "run", "--detach", *arguments, image.REFERENCE])
    deadline = time.monotonic() + 20
    while _podman_count(node) < 10:
        if time.monotonic() > deadline:
            raise LabError("the counter under podman does not count")
        time.sleep(0.2)
    output(node, [*_PODMAN, "container", "checkpoint", "pod", "--export", PODMAN_ARCHIVE, "--compress", "gzip"])
    output(node, [*_PODMAN, "rm", "--force", "pod"])
    with tarfile.open(node.inside(PODMAN_ARCHIVE)) as archive:
        spec = json.loads(_member(archive, "spec.dump"))
        with tarfile.open(fileobj=io.BytesIO(_member(archive, "rootfs-diff.tar"))) as diff:
            count = int(_member(diff, "var/count"))
    binds = {mount["destination"]: mount["source"] for mount in spec["mounts"] if mount["type"] == "bind"}
    return Podman(count, {source: _replaced(node, target) for target, source in binds.items()})


def _podman_count(node: Node) -> int:
    return len(output(node, [*_PODMAN, "logs", "pod"]).split())


def _member(archive: tarfile.TarFile, name: str) -> bytes:
    found = archive.extractfile(name)
    assert found is not None
    return found.read()


def _replaced(node: Node, target: str) -> str:
    """Something to mount at ``target`` of the restored container."""
    path = f"/opt/podman-mounts{target}"
    place: pathlib.Path = node.inside(path)
    if target == "/dev/shm":
        place.mkdir(parents=True, exist_ok=True)
    else:
        place.parent.mkdir(parents=True, exist_ok=True)
        place.touch()
    return path
