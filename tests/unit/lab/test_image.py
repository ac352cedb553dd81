# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The OCI archive that the lab writes."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile

from gpuops_lab import image


def read(archive: bytes) -> dict[str, bytes]:
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        found = {}
        for entry in tar:
            assert (entry.mtime, entry.uid, entry.gid) == (0, 0, 0)
            handle = tar.extractfile(entry)
            if handle is not None:
                found[entry.name] = handle.read()
        return found


def test_every_blob_is_under_its_digest_with_its_size() -> None:
    layer = image.layer(b"busybox", {"counter": b"counter"})
    files = read(image.image_archive(layer, "gpuops.test/x:1", "amd64"))
    assert json.loads(files["oci-layout"]) == {"imageLayoutVersion": "1.0.0"}
    entry = json.loads(files["index.json"])["manifests"][0]
    assert entry["annotations"]["io.containerd.image.name"] == "gpuops.test/x:1"
    manifest_bytes = files["blobs/sha256/" + entry["digest"].removeprefix("sha256:")]
    manifest = json.loads(manifest_bytes)
    for part, content in (
        (entry, manifest_bytes),
        *((p, None) for p in (manifest["config"], *manifest["layers"])),
    ):
        data = content or files["blobs/sha256/" + part["digest"].removeprefix("sha256:")]
        assert part["digest"] == "sha256:" + hashlib.sha256(data).hexdigest()
        assert part["size"] == len(data)
    config = json.loads(files["blobs/sha256/" + manifest["config"]["digest"].removeprefix("sha256:")])
    assert config["rootfs"]["diff_ids"] == ["sha256:" + hashlib.sha256(layer).hexdigest()]
    assert config["architecture"] == "amd64"
    assert len(files) == 5


def test_same_parts_give_the_same_bytes() -> None:
    first, second = (image.image_archive(image.layer(b"b", {"counter": b"c"}), "r", "amd64") for _ in range(2))
    assert first == second
    assert first != image.image_archive(image.layer(b"b", {"counter": b"d"}), "r", "amd64")


def test_layer_has_the_programs_and_applets() -> None:
    with tarfile.open(fileobj=io.BytesIO(image.layer(b"busybox", {"counter": b"counter"}))) as tar:
        entries = {entry.name: entry for entry in tar}
        counter = tar.extractfile("bin/counter")
        assert counter is not None
        assert counter.read() == b"counter"
    assert entries["bin/counter"].mode == 0o755
    assert entries["bin/sh"].linkname == "busybox"
    assert entries["tmp"].mode == 0o1777
