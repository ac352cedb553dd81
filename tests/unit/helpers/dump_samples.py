# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Checkpoint archives as the kubelet's runtimes and podman write them, built in memory."""

from __future__ import annotations

import tarfile
from typing import Any

from ansible_collections.gpuops.restore.tests.unit.helpers.archive_samples import END, dump, entry, tar
from ansible_collections.gpuops.restore.tests.unit.helpers.containerd_samples import BASE_NAME, spec

IMAGES = {"inventory.img": b"i" * 100, "descriptors.json": b"[]", "pages-1.img": b"p" * 5000}
DIFF = tar({"var/count": b"7"})


def config(base: str, **more: Any) -> dict[str, Any]:
    """``config.dump`` for a container of the image with that digest."""
    name = BASE_NAME.partition(":")[0]
    return {"id": "a1", "rootfsImageName": BASE_NAME, "rootfsImageRef": f"{name}@{base}", **more}


def archive(base: str, *extra: bytes, **files: bytes | None) -> bytes:
    """The tar; ``files`` come instead of the usual ones (``_`` for a dot, None: without it), ``extra`` entries last."""
    usual: dict[str, bytes | None] = {
        "config_dump": dump(config(base)),
        "spec_dump": dump(spec()),
        "rootfs-diff_tar": DIFF,
        "dump_log": b"log",
        **{f"checkpoint/{name.replace('.', '_')}": data for name, data in IMAGES.items()},
    }
    usual.update(files)
    entries = [entry("checkpoint/", kind=tarfile.DIRTYPE)]
    entries += [entry(name.replace("_", "."), data) for name, data in usual.items() if data is not None]
    return b"".join([*entries, *extra]) + END
