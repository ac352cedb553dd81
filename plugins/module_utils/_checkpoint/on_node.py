# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A checkpoint that lives on the node: its dump is its staged form, and nothing of the memory is anywhere else.

In containerd it is an index like any other checkpoint's, with spec, options, writable layer and memory volumes as
blobs; but in place of the tar of CRIU's images the index names a list of their files. So the digest of the index is its
identity as for others: it names whatever is not memory by content, and the memory by the files' names, sizes and
times, by which a staged checkpoint is recognised too. To name it by content would take reading it all once more, while
the workload stands still; and the times keep two dumps of the same sizes apart. The image that is written from it
later has another digest, and says which one it had before.
"""

from __future__ import annotations

import json
import os
import re
import stat as stat_module
from collections.abc import Mapping
from typing import Any

from .._containerd import content
from .._containerd.client import Client
from .._core import strict_json
from .._core.errors import InputError
from .._core.strict_json import StrictJsonError
from .._criu import image_files
from .._oci.image import Descriptor
from .._streams.tar_extract import FileStat
from . import writer
from .reader import BYTES_ANNOTATION, COMPLETES_ANNOTATION, CRIU, CRIU_FILES
from .staged import REQUIRED

FORMAT = "gpuops.restore/criu-files/1"
#: Bytes of a list that somebody else wrote: a hundred thousand files.
MAX_LIST = 8 << 20
#: What CRIU and runc call their files.
_FILE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+=-]{0,200}\Z")
#: Bytes, and nanoseconds since the epoch.
_MOST = 1 << 62


def listed(client: Client, images: str) -> Descriptor:
    """Write the list of a dump's files, which is looked through first; its descriptor for the index.

    Raises InputError ``criu_images_incomplete``, ``criu_images_not_plain``.
    """
    files, total = _files(images)
    document = {"format": FORMAT, "files": files}
    data = json.dumps(document, separators=(",", ":"), sort_keys=True).encode()
    found = writer.blob(client, data, CRIU_FILES)
    return Descriptor(CRIU_FILES, found.digest, found.size, {BYTES_ANNOTATION: str(total)})


def _files(images: str) -> tuple[dict[str, Any], int]:
    files: dict[str, Any] = {}
    for name in sorted(os.listdir(images)):
        stat = os.lstat(os.path.join(images, name))
        if not stat_module.S_ISREG(stat.st_mode):
            raise writer.not_plain(os.path.join(images, name))
        files[name] = {"size": stat.st_size, "mtime_ns": stat.st_mtime_ns}
    missing = [name for name in REQUIRED if name not in files]
    if missing:
        raise _incomplete(images, f"it lacks {' and '.join(missing)}")
    try:
        short = image_files.cut_off(images)
    except (OSError, image_files.UnreadableError) as error:
        raise _incomplete(images, str(error)) from error
    if short:
        raise _incomplete(images, f"{short} has fewer pages than CRIU counted")
    return files, sum(entry["size"] for entry in files.values())


def read_list(data: bytes, total: int) -> dict[str, FileStat]:
    """The files of a list that another node wrote, which add up to ``total`` bytes. Raises InputError
    ``criu_files_invalid``."""
    try:
        document = strict_json.parse_object(data, MAX_LIST)
    except StrictJsonError as error:
        raise _invalid(str(error)) from error
    entries = document.get("files")
    if document.get("format") != FORMAT or not isinstance(entries, dict):
        raise _invalid("it has another format")
    files = {}
    for name, entry in entries.items():
        if not _FILE_NAME.match(name):
            raise _invalid(f"it names a file {name[:80]!r}")
        given = entry if isinstance(entry, dict) else {}
        files[name] = FileStat(*(_count(given.get(key), name) for key in ("size", "mtime_ns")))
    missing = [name for name in REQUIRED if name not in files]
    if missing:
        raise _invalid(f"it lacks {' and '.join(missing)}")
    found = sum(file.size for file in files.values())
    if found != total:
        raise _invalid(f"its files add up to {found} bytes, not {total}")
    return files


def _count(number: object, name: str) -> int:
    if isinstance(number, int) and not isinstance(number, bool) and 0 <= number < _MOST:
        return number
    raise _invalid(f"it gives {name} no usable size and time")


def _invalid(why: str) -> InputError:
    return InputError(
        "criu_files_invalid",
        f"The list of CRIU's files that the checkpoint brings is not usable: {why}.",
        "The checkpoint is damaged or hostile: capture the workload again.",
    )


def completed_document(document: Mapping[str, Any], criu: Descriptor, digest: str) -> dict[str, Any]:
    """The index of a whole image: the checkpoint's own, with the tar of CRIU's images in place of the list.

    ``digest``: of the checkpoint's own index.
    """
    manifests = [
        {**child, "mediaType": CRIU, "digest": criu.digest, "size": criu.size, "annotations": {}}
        if child.get("mediaType") == CRIU_FILES
        else child
        for child in document["manifests"]
    ]
    for child in manifests:
        if not child.get("annotations"):
            child.pop("annotations", None)
    annotations = {**document.get("annotations", {}), COMPLETES_ANNOTATION: digest}
    return {**document, "manifests": manifests, "annotations": annotations}


def store_completed(client: Client, name: str, target: Descriptor, criu: Descriptor) -> Descriptor:
    """Write the index of the whole image. Raises NodeError ``checkpoint_collected``.

    ``target``: the checkpoint's own index; ``criu``: the tar, which is in the content store.
    """
    document = completed_document(content.read_document(client, target), criu, target.digest)
    return writer.store_index(client, name, document, content.children(target, document, name))


def _incomplete(images: str, why: str) -> InputError:
    return InputError(
        "criu_images_incomplete",
        f"The dump in {images} is not whole: {why}.",
        "Take the checkpoint again, and look for errors in the dump log of that time.",
        details={"path": images},
    )
