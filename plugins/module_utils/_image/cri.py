# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Removing an image record beside CRI, which gives every image of its namespace a second one.

containerd's CRI plugin answers to a new image in ``k8s.io`` with a record named by the config's digest, and then labels
the first one (internal/cri/store/image and its event monitor). The second keeps the content alive when the first is
deleted, so it has to go with it, unless another name still stands for the image.
"""

from __future__ import annotations

import time
from typing import Callable

from .._containerd import daemon, images
from .._containerd.client import Client
from .._containerd.images import Image

_NAMESPACE = "k8s.io"
_MANAGED = "io.cri-containerd.image"
#: Seconds that CRI is given to notice an image that was made only just now.
_SECONDS = 2.0


def is_reference(image: Image) -> bool:
    """Whether CRI made the record, for an image of another name."""
    return image.name.startswith("sha256:") and image.labels.get(_MANAGED) == "managed"


def references(client: Client, image: Image) -> list[str]:
    """CRI's records that stand only for this image; empty while another name stands for it too."""
    others = [found for found in images.by_digest(client, image.target.digest) if found.name != image.name]
    return [found.name for found in others] if all(is_reference(found) for found in others) else []


def remove(
    client: Client,
    image: Image,
    ordinary: bool,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> list[str]:
    """Delete the record, CRI's with it, and collect the garbage; returns the names deleted.

    ``ordinary``: an image with a config, which CRI takes notice of; a checkpoint has none.
    """
    unnoticed = ordinary and client.namespace == _NAMESPACE and image.labels.get(_MANAGED) is None
    if unnoticed and daemon.cri_ok(daemon.plugins(client)):
        _await(client, image, clock, sleep)
    names = [image.name, *references(client, image)]
    for name in names:
        images.delete(client, name, sync=name == names[-1])
    return names


def forget(client: Client, image: Image) -> list[str]:
    """Delete CRI's records of an image whose own record is gone or stands for another digest now."""
    names = references(client, image)
    for name in names:
        images.delete(client, name)
    return names


def _await(client: Client, image: Image, clock: Callable[[], float], sleep: Callable[[float], None]) -> None:
    """Wait for CRI's second record of an image that was made only just now."""
    give_up = clock() + _SECONDS
    while clock() < give_up:
        found = images.get(client, image.name)
        if found is None or found.labels.get(_MANAGED) is not None:
            return
        sleep(0.05)
