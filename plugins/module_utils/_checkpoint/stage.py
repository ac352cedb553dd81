# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The step that stages a checkpoint's CRIU images on the node, or removes them."""

from __future__ import annotations

import errno
import glob
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from .._containerd import content, images, leases
from .._containerd.client import Client
from .._core import files
from .._core.errors import InputError, NodeError
from .._host import run_lock
from .._oci.image import Descriptor
from .._streams.decompression import Expansion, compression
from . import reader, signature, staged as staged_checkpoint, staging, staging_root
from .staged import Staged

#: Bytes by which a compression is known.
_MAGIC = 8


@dataclass
class StageResult:
    """What was done, or would be in check mode."""

    changed: bool = False
    #: Whether the directory was made.
    created: bool = False
    directory: str = ""
    #: ``digest``, ``bytes`` and ``files`` of the staged checkpoint.
    staged: dict[str, Any] = field(default_factory=dict)
    before: str = "absent"
    after: str = "absent"
    seconds: float = 0.0
    warnings: list[str] = field(default_factory=list)


def present(
    client: Client,
    name: str,
    root: str,
    lease: str | None,
    check: bool,
    assume_prepared: bool = False,
    verify_key: Sequence[str] = (),
) -> StageResult:
    """Stage the CRIU images of the checkpoint ``name`` below ``root``, verified. Raises InputError, NodeError.

    ``assume_prepared``: in check mode, take a checkpoint that is absent for one that will be there. ``verify_key``:
    public SSH keys one of which has to have signed it.
    """
    try:
        checkpoint = reader.load(client, name)
    except InputError as error:
        if check and assume_prepared and error.code == "checkpoint_absent":
            return StageResult(changed=True, created=True, after="staged")
        raise
    signature.require(name, checkpoint.digest, checkpoint.signature, verify_key)
    criu = reader.require_criu(checkpoint)
    found = staged_checkpoint.find(root, checkpoint.key)
    if found is not None and found.digest == criu.digest:
        result = _result(checkpoint, found, False)
        result.changed = leases.drop_abandoned(client, _purpose(checkpoint.digest), check)
        return result
    if checkpoint.on_node:
        raise reader.gone(checkpoint, root)
    blob = content.stat(client, criu.digest)
    if blob is None or blob.size != criu.size:
        raise InputError(
            "blob_missing" if blob is None else "blob_truncated",
            f"The CRIU images {criu.digest} of the checkpoint {name} "
            + (
                "are not in containerd's content store."
                if blob is None
                else f"have {blob.size} bytes in containerd's content store instead of {criu.size}."
            ),
            "Delete the checkpoint image, then import or pull it again.",
            details={"digest": criu.digest},
        )
    if check:
        if not os.path.isdir(os.path.dirname(os.path.normpath(root))):
            raise NodeError(
                "staging_dir_missing",
                f"The staging directory {root} cannot be opened or made: {os.strerror(errno.ENOENT)}.",
                "Make its parent directory on the node, or set staging_dir to another path.",
                details={"path": root},
            )
        free = files.free_bytes(root)
        if criu.size + files.RESERVE > free:
            raise staging.no_space(root, criu.size + files.RESERVE, free)
        return StageResult(
            changed=True, created=True, after="staged", staged={"digest": criu.digest, "size": criu.size}
        )
    begun = time.monotonic()
    seconds = _seconds(client, criu, root)
    client.track.phase("stage", criu.size)
    with leases.hold(client, lease, _purpose(checkpoint.digest), seconds):
        staged = staging.stage(
            content.read(client, criu.digest, criu.size, seconds),
            expected_digest=criu.digest,
            expected_size=criu.size,
            root=root,
            name=checkpoint.key,
        )
    result = _result(checkpoint, staged, staged.created)
    result.seconds = round(time.monotonic() - begun, 3)
    return result


def _seconds(client: Client, criu: Descriptor, root: str) -> float:
    """How long staging may take: of a compressed tar it is not known before how much there is to write."""
    size = criu.size
    if compression(content.head(client, criu.digest, _MAGIC)) != "none":
        size = max(size, min(size * Expansion.max_ratio, files.free_bytes(root)))
    return client.seconds_for(size)


def absent(
    client: Client, key: str, root: str, check: bool, keep_captured: bool = False, deleted: str = ""
) -> StageResult:
    """Remove the staged directory of the checkpoint with the hexadecimal digest ``key``.

    ``keep_captured``: not where it is all that there is of a checkpoint that has a name. ``deleted``: a name that does
    not count, since outside of check mode it is gone.

    Raises InputError ``staging_name_invalid``, NodeError ``staging_*`` and, while somebody restores from it,
    ConflictError ``busy``.
    """
    # Refuses what is no digest, and a root that is not to be trusted, also where nothing has to be removed.
    staged_checkpoint.find(root, key)
    there = os.path.lexists(os.path.join(root, key)) or bool(glob.glob(f"{glob.escape(root)}/.{key}.partial-*"))
    if keep_captured and (kept := _kept(client, key, root, deleted)):
        return kept
    result = StageResult(changed=there, before="staged" if there else "absent")
    if there and not check:
        with run_lock.removing(f"sha256:{key}", client.busy_seconds):
            # One that another node sends has its name a moment after its files.
            if keep_captured and (kept := _kept(client, key, root, deleted)):
                return kept
            staging.remove(root, key)
    if not check:
        staging_root.remove_root_if_empty(root)
    if leases.drop_abandoned(client, _purpose(f"sha256:{key}"), check):
        result.changed = True
    return result


def absent_by_name(client: Client, name: str, root: str, check: bool, keep_captured: bool) -> StageResult:
    """The same for a checkpoint given as an image reference or as a digest."""
    key = find_key(client, name)
    if key is not None:
        return absent(client, key, root, check, keep_captured)
    untold = f"There is no image {name}, so its staged directory cannot be told; give the digest instead."
    return StageResult(warnings=[untold])


def _kept(client: Client, key: str, root: str, deleted: str) -> StageResult | None:
    """The result for what is all that there is of a checkpoint with a name; None where it can go."""
    whose = staged_checkpoint.only_copy_of(root, key)
    if whose is None or (whose[0] == client.namespace and not _is_named(client, key, deleted)):
        return None
    kept = (
        f"What is staged of sha256:{key} is a checkpoint of {whose[1]} that lives here alone; it stays. "
        "containerd_checkpoint with state: completed writes its image, keep_captured: false deletes it."
    )
    return StageResult(before="staged", after="staged", warnings=[kept])


def find_key(client: Client, name: str) -> str | None:
    """The key of a checkpoint given as an image reference or as a digest; None when no such image is there."""
    if name.startswith("sha256:"):
        return name.split(":", 1)[1]
    image = images.get(client, name)
    return image.target.digest.split(":", 1)[1] if image else None


def _is_named(client: Client, key: str, deleted: str) -> bool:
    return any(image.name != deleted for image in images.by_digest(client, f"sha256:{key}"))


def _purpose(digest: str) -> str:
    return f"stage {digest}"


def _result(checkpoint: reader.Checkpoint, staged: Staged, created: bool) -> StageResult:
    return StageResult(
        changed=created,
        created=created,
        directory=staged.directory,
        staged={"digest": staged.digest, "bytes": staged.bytes, "files": staged.files},
        before="absent" if created else "staged",
        after="staged",
    )
