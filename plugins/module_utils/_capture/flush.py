# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Memory goes to the disk while CRIU still dumps, so that little is left to wait for when it has done.

Left alone, the kernel keeps what CRIU writes in the page cache for half a minute or until there is too much of it, and
the workload would stand still first for the copy and then for the disk.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterator

from .._checkpoint import staging
from .._core import files
from .._core.errors import NodeError, is_full

_PAUSE = 0.1


@contextlib.contextmanager
def flushing(images: str, root: str) -> Iterator[None]:
    """Write the pages files of a dump out while the block lasts. ``root``: the staging directory.

    Raises NodeError ``staging_io`` and ``staging_no_space`` at the end of a block that went well: the kernel tells of
    what it could not write only once, so whoever syncs the files later does not hear of it.
    """
    over = threading.Event()
    errors: list[OSError] = []
    thread = threading.Thread(target=_flush, args=(images, over, errors), daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
    if errors:
        if is_full(errors[0]):
            raise staging.no_space(root, None, files.free_bytes(root)) from errors[0]
        raise NodeError(
            "staging_io",
            f"The dump in {images} cannot be written to the disk: {errors[0]}.",
            "Check the file system under it, or set staging_dir to another one.",
        ) from errors[0]


def _flush(images: str, over: threading.Event, errors: list[OSError]) -> None:
    while not over.wait(_PAUSE):
        try:
            for name in os.listdir(images):
                if name.startswith("pages-") and not over.is_set():
                    _write_out(os.path.join(images, name))
        except OSError as error:
            # Of the directory, too: a thread that ends unheard would leave the rest to the end.
            errors.append(error)
            return


def _write_out(path: str) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        os.fdatasync(descriptor)
    finally:
        os.close(descriptor)
