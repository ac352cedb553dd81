# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The workload image: an OCI archive with busybox and our own static programs, made on the spot."""

from __future__ import annotations

import hashlib
import io
import json
import pathlib
import platform
import subprocess
import tarfile
import tempfile
from collections.abc import Mapping

from gpuops_lab import root
from gpuops_lab.config import LabError, cache_dir

REFERENCE = "gpuops.test/counter:1"
FILE_NAME = "counter.oci.tar"
SOURCES = pathlib.Path(__file__).resolve().parent.parent
PROGRAMS = ("counter", "talker", "holder", "ended")
APPLETS = ("cat", "echo", "kill", "ls", "ps", "sh", "sleep", "tail", "touch", "true", "wget", "wc")
# Names of the OCI image specification, by `uname -m`.
ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}


def archive() -> pathlib.Path:
    """The archive in the cache, built when its parts have changed; needs gcc on the host."""
    busybox = root.root_directory() / "usr/bin/busybox"
    sources = b"".join(_source(program).read_bytes() for program in PROGRAMS)
    parts = hashlib.sha256(sources + pathlib.Path(__file__).read_bytes() + busybox.read_bytes())
    target = cache_dir() / f"image-{parts.hexdigest()[:12]}" / FILE_NAME
    if not target.exists():
        with root.cache_lock("image"):
            target.parent.mkdir(exist_ok=True)
            temporary = target.with_suffix(".partial")
            programs = {program: _compile(program) for program in PROGRAMS}
            temporary.write_bytes(image_archive(layer(busybox.read_bytes(), programs), REFERENCE, architecture()))
            temporary.rename(target)
    return target


def architecture() -> str:
    """This machine in the words of OCI."""
    return ARCHITECTURES.get(platform.machine(), platform.machine())


def _source(program: str) -> pathlib.Path:
    return SOURCES / f"{program}.c"


def _compile(program: str) -> bytes:
    with tempfile.TemporaryDirectory() as directory:
        made = pathlib.Path(directory) / program
        command = ["gcc", "-O2", "-Wall", "-Wextra", "-Werror", "-static", "-o", str(made), str(_source(program))]
        try:
            result = subprocess.run(command, capture_output=True, text=True, check=False)
        except FileNotFoundError:
            raise LabError("gcc is not installed; run tests/lab/prerequisites.sh") from None
        if result.returncode:
            raise LabError(f"{program}.c does not compile:\n{result.stderr[-2000:]}")
        return made.read_bytes()


def layer(busybox: bytes, programs: Mapping[str, bytes]) -> bytes:
    """The image's only layer, an uncompressed tar."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for name, mode in (("bin", 0o755), ("etc", 0o755), ("tmp", 0o1777), ("var", 0o755)):
            tar.addfile(_entry(name, tarfile.DIRTYPE, mode))
        for name, content in (("busybox", busybox), *programs.items()):
            entry = _entry(f"bin/{name}", tarfile.REGTYPE, 0o755)
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
        for applet in APPLETS:
            entry = _entry(f"bin/{applet}", tarfile.SYMTYPE, 0o777)
            entry.linkname = "busybox"
            tar.addfile(entry)
    return buffer.getvalue()


def image_archive(layer_tar: bytes, reference: str, machine: str) -> bytes:
    """An OCI image layout as a tar: one image with one layer; the same input gives the same bytes.

    Media types and file names are those of the OCI image specification 1.1.
    """
    blobs: dict[str, bytes] = {}
    layer_part = _blob(blobs, "application/vnd.oci.image.layer.v1.tar", layer_tar)
    config = {
        "architecture": machine,
        "os": "linux",
        "config": {"Entrypoint": ["/bin/counter"], "Env": ["PATH=/bin"], "WorkingDir": "/"},
        "rootfs": {"type": "layers", "diff_ids": [layer_part["digest"]]},
    }
    manifest = {
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": _blob(blobs, "application/vnd.oci.image.config.v1+json", _json(config)),
        "layers": [layer_part],
    }
    entry = _blob(blobs, "application/vnd.oci.image.manifest.v1+json", _json(manifest))
    entry["platform"] = {"architecture": machine, "os": "linux"}
    # containerd's import takes the image's name from its own annotation, other tools from the OCI one.
    entry["annotations"] = {
        "io.containerd.image.name": reference,
        "org.opencontainers.image.ref.name": reference,
    }
    index = {"schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": [entry]}
    files = {"oci-layout": _json({"imageLayoutVersion": "1.0.0"}), "index.json": _json(index)}
    files.update((f"blobs/sha256/{digest}", content) for digest, content in blobs.items())
    return _tar(files)


def _blob(blobs: dict[str, bytes], media_type: str, content: bytes) -> dict[str, object]:
    digest = hashlib.sha256(content).hexdigest()
    blobs[digest] = content
    return {"mediaType": media_type, "digest": f"sha256:{digest}", "size": len(content)}


def _json(value: object) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()


def _tar(files: Mapping[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for name in ("blobs", "blobs/sha256"):
            tar.addfile(_entry(name, tarfile.DIRTYPE, 0o755))
        for name in sorted(files):
            entry = _entry(name, tarfile.REGTYPE, 0o644)
            entry.size = len(files[name])
            tar.addfile(entry, io.BytesIO(files[name]))
    return buffer.getvalue()


def _entry(name: str, kind: bytes, mode: int) -> tarfile.TarInfo:
    entry = tarfile.TarInfo(name)
    entry.type, entry.mode, entry.mtime = kind, mode, 0
    return entry
