# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A checkpoint that lives on its node goes to another as it is: the dump's files, from staging into staging.

No image is written for the way, and none is taken apart. The digest of such a checkpoint names its memory by names,
sizes and times, not by content; so its files are taken only from a server that is known by its very certificate.
"""

from __future__ import annotations

import contextlib
import os
import urllib.parse
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .._checkpoint import on_node, reader, staged as staged_checkpoint, staging, staging_root
from .._checkpoint.reader import Checkpoint
from .._containerd import content
from .._containerd.client import Client
from .._core.errors import InputError
from .._core.labels import FACTS
from .._host import run_lock
from .._host.run_lock import ALL, Subject
from .._oci.facts import Facts
from .._oci.image import Descriptor
from .._registry.repository import Repository
from .._streams.tar_extract import FileStat


def served(client: Client, checkpoint: Checkpoint, staging_dir: str) -> dict[str, dict[str, Any]]:
    """Path below the repository -> the file there, of a checkpoint on this node. Raises InputError
    ``node_checkpoint_gone``, ``criu_files_invalid``."""
    found = staged_checkpoint.find(staging_dir, checkpoint.key)
    criu = checkpoint.criu
    if found is None or criu is None or found.digest != criu.digest:
        raise reader.gone(checkpoint, staging_dir)
    entries = {}
    for name in sorted(os.listdir(found.directory)):
        path = os.path.join(found.directory, name)
        entries[_path(checkpoint.key, name)] = {"path": path, "size": os.lstat(path).st_size}
    return entries


@dataclass(frozen=True)
class NodeFiles:
    """The files that a checkpoint brings."""

    #: Of the checkpoint's index, hexadecimal.
    key: str
    #: Of their list.
    digest: str
    files: Mapping[str, FileStat]
    #: The container that was captured.
    container: str
    staging_dir: str

    @property
    def size(self) -> int:
        """Bytes of all of them."""
        return sum(file.size for file in self.files.values())

    @property
    def there(self) -> bool:
        """Whether they are staged here already."""
        found = staged_checkpoint.find(self.staging_dir, self.key)
        return found is not None and found.digest == self.digest


def list_of(children: Sequence[Descriptor]) -> Descriptor | None:
    """The list of files in a checkpoint's index; None for one whose memory is in its image."""
    return next((child for child in children if child.media_type == reader.CRIU_FILES), None)


def read(index: str, listed: Descriptor, data: bytes, annotations: Mapping[str, Any], staging_dir: str) -> NodeFiles:
    """``index``: the checkpoint's digest; ``data``: the list, verified. Raises InputError ``criu_files_invalid``."""
    total = listed.annotations.get(reader.BYTES_ANNOTATION, "")
    files = on_node.read_list(data, int(total) if total.isdecimal() and len(total) < 19 else -1)
    container = Facts.parse(str(annotations.get(FACTS) or "{}")).container or ""
    return NodeFiles(index.partition(":")[2], listed.digest, files, container, staging_dir)


def require_known_server(reference: object, certificate: str) -> None:
    """Raises InputError ``checkpoint_on_node`` unless the server is the one of this run."""
    if not certificate:
        raise InputError(
            "checkpoint_on_node",
            f"The memory of {reference} is not in its image, and a registry does not vouch for it.",
            "Have containerd_checkpoint_serve offer it and give its certificate; or have containerd_checkpoint "
            "(state: completed) write the image, then push that.",
        )


@contextlib.contextmanager
def arrived(client: Client, repository: Repository, files: NodeFiles) -> Iterator[None]:
    """Have them staged; the block gives the checkpoint its name, and where it fails they are gone again.

    Raises InputError, NodeError ``staging_*``, ConflictError ``busy``.
    """
    # Without a name somebody might take them for leftovers.
    keeps = run_lock.held(Subject("image", ALL, f"sha256:{files.key}"), "brings it", client.busy_seconds, shared=True)

    def fetch(name: str, size: int) -> Iterable[bytes]:
        for chunk in repository.file(_path(files.key, name), size):
            client.track.add(len(chunk))
            yield chunk

    with keeps:
        found = staging.arrive(
            files.files,
            fetch,
            digest=files.digest,
            root=files.staging_dir,
            name=files.key,
            only_copy_of={"namespace": client.namespace, "container": files.container},
        )
        try:
            yield
        except BaseException:
            if found.created:
                staging.remove(files.staging_dir, files.key)
                staging_root.remove_root_if_empty(files.staging_dir)
            raise


def is_whole(client: Client, listed: Descriptor | None, index: str, staging_dir: str) -> bool:
    """Whether the memory of a checkpoint is here: in its image, or staged."""
    if listed is None:
        return True
    found = staged_checkpoint.find(staging_dir, index.partition(":")[2])
    return found is not None and found.digest == listed.digest and content.stat(client, listed.digest) is not None


def _path(key: str, name: str) -> str:
    return f"files/{key}/{urllib.parse.quote(name, safe='')}"
