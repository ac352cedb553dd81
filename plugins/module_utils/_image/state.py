# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The state of an image on the node, and the errors that refuse to change it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from .._containerd.client import Client
from .._containerd.images import Image
from .._core import labels
from .._core.errors import ConflictError, InputError
from . import tree as image_tree, unpack as image_unpack

MISSING, ALWAYS, NEVER = "missing", "always", "never"
PINNED = "pinned"


@dataclass(frozen=True)
class ImageParams:
    """The image that is wanted; see the options of ``containerd_image``."""

    name: str
    #: Path of the archive that it comes from; empty: from a registry.
    archive: str = ""
    #: ``missing``, ``always`` or ``never``.
    pull: str = MISSING
    #: Directory of hosts.toml files for the pull.
    hosts_dir: str = ""
    snapshotter: str = "overlayfs"
    unpack: bool = True
    #: None: as it is.
    pinned: bool | None = None
    #: The digest that it must have; empty: any.
    digest: str = ""
    #: The lease to work under; empty: one of our own for the call.
    lease: str = ""
    owner: str = labels.DEFAULT_OWNER
    force: bool = False
    #: What a capture on this node has made is not removed.
    keep_captured: bool = False


@dataclass(frozen=True)
class State:
    """What the name stands for now."""

    found: Image | None
    tree: image_tree.Tree | None
    #: Name of the snapshot with all layers; empty for checkpoints and incomplete images.
    chain_id: str
    #: None for checkpoints, which are not unpacked.
    unpacked: bool | None

    @property
    def complete(self) -> bool:
        """Whether nothing has to be fetched: layers may be missing once they are unpacked."""
        return self.tree is not None and not self.tree.missing and (not self.tree.missing_layers or bool(self.unpacked))

    @property
    def digest(self) -> str:
        return self.found.target.digest if self.found else ""

    @property
    def pinned(self) -> bool:
        return self.found is not None and self.found.labels.get(labels.PINNED) == PINNED

    def summary(self) -> dict[str, Any]:
        if self.found is None:
            return {}
        return {"digest": self.digest, "unpacked": self.unpacked, "pinned": self.pinned}

    def result(self) -> dict[str, Any]:
        if self.found is None or self.tree is None:
            return {}
        return {
            "name": self.found.name,
            "digest": self.digest,
            "media_type": self.found.target.media_type,
            "size": self.tree.size,
            "checkpoint": self.tree.is_checkpoint,
            "chain_id": self.chain_id,
            "unpacked": self.unpacked,
            "pinned": self.pinned,
            "owner": labels.owner_of(self.found.labels),
        }


def read(client: Client, found: Image | None, params: ImageParams) -> State:
    if found is None:
        return State(None, None, "", None)
    tree = image_tree.survey(client, found.target)
    if tree.is_checkpoint or tree.missing:
        return State(found, tree, "", None if tree.is_checkpoint else False)
    rootfs = image_unpack.rootfs(client, found.target, found.name)
    return State(found, tree, rootfs.chain_id, image_unpack.is_unpacked(client, rootfs, params.snapshotter))


def require_ours(found: Image, params: ImageParams) -> None:
    owner = labels.owner_of(found.labels)
    if owner != params.owner and not params.force:
        raise not_ours(found, params, f"belongs to {owner}" if owner else "was not made by this collection")


def require_movable(params: ImageParams, state: State, digest: str) -> None:
    """Another digest under the name is only replaced by force, or where our own image follows its registry."""
    if state.found is None or state.digest in ("", digest) or params.force:
        return
    follows = params.pull == ALWAYS and not params.archive and labels.owner_of(state.found.labels) == params.owner
    if not follows:
        raise other_digest(params, state.digest, digest)


def other_digest(params: ImageParams, found: str, wanted: str) -> ConflictError:
    return ConflictError(
        "image_other_digest",
        f"The image {params.name} is {found} on this node, not {wanted}.",
        "Use another name; force: true acts on it all the same.",
        details={"name": params.name, "found": found, "wanted": wanted},
    )


def not_ours(found: Image, params: ImageParams, why: str) -> ConflictError:
    return ConflictError(
        "image_not_ours",
        f"The image {found.name} {why}; this run's owner is {params.owner}.",
        "Leave it to whoever made it; force: true acts on it all the same.",
        details={"image": found.name, "owner": labels.owner_of(found.labels), "wanted_owner": params.owner},
    )


def digest_mismatch(what: str, wanted: str, **details: Any) -> InputError:
    """The error for an image that is not the one that the option ``digest`` names; ``what`` begins its message."""
    return InputError(
        "image_digest_mismatch",
        f"{what}, but {wanted} is expected.",
        "Give the archive or the reference of the expected image, or correct digest.",
        details={"wanted": wanted, **details},
    )


def unavailable(client: Client, params: ImageParams, state: State) -> InputError | ConflictError:
    if state.tree is None:
        return InputError(
            "image_absent",
            f"There is no image {params.name} in containerd's namespace {client.namespace}, and pull is never.",
            "Give archive, allow the pull, or correct name or namespace.",
        )
    if params.digest not in ("", state.digest):
        return other_digest(params, state.digest, params.digest)
    missing = [*state.tree.missing, *state.tree.missing_layers]
    return InputError(
        "image_incomplete",
        f"The image {params.name} lacks {len(missing)} blobs on this node, {missing[0].digest} among them.",
        "Give archive, or allow the pull.",
        details={"missing": [item.digest for item in missing][:100]},
    )
