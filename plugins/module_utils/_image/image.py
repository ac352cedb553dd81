# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""An image is present, unpacked and pinned, or absent."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from .._archive.reader import open_archive
from .._containerd import content, daemon, images, leases, space
from .._containerd.client import COMPRESSED, Client
from .._containerd.images import Image
from .._core import labels as core_labels
from .._core.errors import RETRYABLE, AlreadyExistsError, InputError, NodeError, RestoreError, RpcError
from .._core.text import check_digest
from .._host import run_lock
from .._oci.image import Descriptor
from . import archive_import, cri, pull, state as image_state, tree as image_tree, unpack
from .state import ImageParams, State


@dataclass
class ImageResult:
    """What was, or in check mode would be, done. ``before`` and ``after``: digest, unpacked, pinned; empty: absent."""

    changed: bool = False
    created: bool = False
    before: dict[str, Any] = field(default_factory=dict)
    after: dict[str, Any] = field(default_factory=dict)
    actions: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    image: dict[str, Any] = field(default_factory=dict)


def present(client: Client, params: ImageParams, check: bool) -> ImageResult:
    """Make the image present: whole, protected from garbage collection, unpacked and pinned as the parameters say.

    Raises InputError, ConflictError (``image_other_digest``, ``image_not_ours``) and NodeError
    (``content_no_space``, ``snapshotter_unknown``, ``pull_unsupported``, ``pull_failed``). After a failure no record,
    content or snapshot of this call is left, unless it was under a lease of the caller's.
    """
    if params.digest:
        check_digest(params.digest, "The option digest")
    daemon.require_snapshotter(client, params.snapshotter)
    state = image_state.read(client, images.get(client, params.name), params)
    result = ImageResult(before=state.summary())
    as_expected = state.complete and params.digest in ("", state.digest)
    if as_expected and (params.digest or (not params.archive and params.pull != image_state.ALWAYS)):
        _finish(client, params, state, check, result)
    elif params.archive:
        _from_archive(client, params, state, check, result)
    elif params.pull == image_state.NEVER:
        raise image_state.unavailable(client, params, state)
    else:
        _from_registry(client, params, state, check, result)
    result.changed = bool(result.actions)
    if not check:
        after = image_state.read(client, images.get(client, params.name), params)
        result.image, result.after = after.result(), after.summary()
    return result


def absent(client: Client, params: ImageParams, check: bool) -> ImageResult:
    """Make the image absent: its record, and the content and snapshots that only it kept.

    Raises ConflictError ``image_not_ours``, ``image_other_digest``, ``busy``.
    """
    left = leases.drop_abandoned(client, _purpose(params), check)
    found = images.get(client, params.name)
    if found is None:
        return ImageResult(changed=left, actions=["drop the lease of a run that was killed"] if left else [])
    state = image_state.read(client, found, params)
    result = ImageResult(before=state.summary())
    image_state.require_ours(found, params)
    if params.digest not in ("", state.digest) and not params.force:
        raise image_state.other_digest(params, state.digest, params.digest)
    if params.keep_captured and found.labels.get(core_labels.CAPTURED) == state.digest:
        result.after, result.image = result.before, state.result()
        result.warnings.append(
            f"The checkpoint {params.name} ({state.digest}) was captured on this node, which may have its only copy; "
            "it stays. containerd_checkpoint_prune deletes such images by a rule, containerd_image by name."
        )
        return result
    result.changed = True
    result.actions.append(f"delete the image {params.name} ({state.digest})")
    if state.tree is not None and state.tree.is_on_node:
        result.warnings.append(
            f"The memory of {params.name} ({state.digest}) is staged on this node, and no name leads to it any more: "
            "containerd_leftovers takes it away."
        )
    if not check:
        ordinary = state.tree is not None and not state.tree.is_checkpoint
        with run_lock.removing(state.digest, client.busy_seconds):
            cri.remove(client, found, ordinary)
    return result


def _finish(
    client: Client, params: ImageParams, state: State, check: bool, result: ImageResult, leased: bool = False
) -> None:
    """For an image whose content is there: labels, snapshots, pin. ``leased``: the client works under a lease."""
    if state.found is None or state.tree is None:
        return
    if state.tree.unlabelled:
        result.actions.append(f"label {len(state.tree.unlabelled)} documents for garbage collection")
    if params.unpack and state.unpacked is False:
        result.actions.append(f"unpack it for {params.snapshotter}")
    pin = _plan_pin(params, state, result)
    if check:
        unpacked = True if params.unpack and state.unpacked is False else state.unpacked
        pinned = state.pinned if pin is None else pin
        result.image = {**state.result(), "unpacked": unpacked, "pinned": pinned}
        result.after = {"digest": state.digest, "unpacked": unpacked, "pinned": pinned}
        return
    if state.tree.unlabelled or (params.unpack and state.unpacked is False):
        with contextlib.nullcontext() if leased else _leased(client, params, _seconds(client, state.tree.size)):
            _complete(client, params, state.found.target, state.tree)
    if pin is not None:
        _pin(client, params, state.found, pin)


def _from_archive(client: Client, params: ImageParams, state: State, check: bool, result: ImageResult) -> None:
    with open_archive(params.archive) as archive:
        entry = archive_import.choose(archive, params.name, params.digest)
        target = entry.descriptor
        if params.digest not in ("", target.digest):
            what = f"The archive {params.archive} has {params.name} as {target.digest}"
            raise image_state.digest_mismatch(what, params.digest, found=target.digest)
        if state.digest == target.digest and state.complete:
            _finish(client, params, state, check, result)
            return
        image_state.require_movable(params, state, target.digest)
        plan = archive_import.plan(client, archive, entry)
        unpacking = f" and unpack it for {params.snapshotter}" if params.unpack and not plan.is_checkpoint else ""
        what = f"import {target.digest} from {params.archive}{unpacking}"
        _announce(params, state, what, target.digest, result)
        pin = _plan_pin(params, state, result)
        if check:
            unpacked = None if plan.is_checkpoint else params.unpack
            _predict(params, state, target, plan.is_checkpoint, unpacked, result)
            result.image["size"] = plan.size
            return
        client.track.phase("import", plan.size)
        with _leased(client, params, _seconds(client, plan.size), goes_on=True):
            archive_import.upload(client, archive, plan)
            tree = _require_whole(client, target, params.name)
            _complete(client, params, target.bare(), tree)
            signature = core_labels.signature_in(target.annotations)
            _record(client, params, state, target.bare(), pin, result, signature)


def _from_registry(client: Client, params: ImageParams, state: State, check: bool, result: ImageResult) -> None:
    reference = pull.reference(params.name, params.digest)
    if check:
        _predict_pull(params, state, reference, result)
        return
    client.track.phase("pull")
    with _leased(client, params, pull.SECONDS):
        pulled = pull.fetch(client, reference, params.hosts_dir)
        target, ordinary = pulled.target, True
        try:
            tree = _require_whole(client, target, params.name)
            ordinary = not tree.is_checkpoint
            if params.digest not in ("", target.digest):
                what = f"The registry has {params.name} as {target.digest}"
                raise image_state.digest_mismatch(what, params.digest, found=target.digest)
            if state.digest == target.digest and state.complete:
                _finish(client, params, state, check, result, leased=True)
            else:
                image_state.require_movable(params, state, target.digest)
                _announce(params, state, f"pull {reference}", target.digest, result)
                pin = _plan_pin(params, state, result)
                _complete(client, params, target, tree)
                _record(client, params, state, target, pin, result)
        except BaseException:
            # Why it failed counts more than what then cannot be removed either; the lease's expiry takes that.
            with contextlib.suppress(RestoreError):
                cri.remove(client, images.get(client, pulled.name) or pulled, ordinary)
            raise
        cri.remove(client, images.get(client, pulled.name) or pulled, ordinary)


def _predict_pull(params: ImageParams, state: State, reference: str, result: ImageResult) -> None:
    """What the registry has is not known without pulling: only with ``digest`` is this exact."""
    if state.complete and not params.digest:
        result.warnings.append(
            f"Check mode cannot know whether the registry has another {params.name} by now; it would be pulled to see."
        )
        result.image, result.after = state.result(), state.summary()
        return
    if params.digest:
        image_state.require_movable(params, state, params.digest)
    # Without a digest it is an incomplete image that is pulled again, most likely the same.
    _announce(params, state, f"pull {reference}", params.digest or state.digest, result)
    _plan_pin(params, state, result)
    result.after = {
        "digest": params.digest or None,
        "unpacked": params.unpack,
        "pinned": state.pinned if params.pinned is None else params.pinned,
    }
    result.image = {"name": params.name, **result.after}


def _announce(params: ImageParams, state: State, what: str, digest: str, result: ImageResult) -> None:
    result.actions.append(what)
    if state.found is None:
        result.created = True
    elif state.digest != digest:
        result.actions.append(f"move {params.name} from {state.digest} to {digest}")


def _predict(
    params: ImageParams,
    state: State,
    target: Descriptor,
    checkpoint: bool,
    unpacked: bool | None,
    result: ImageResult,
) -> None:
    pinned = state.pinned if params.pinned is None else params.pinned
    result.after = {"digest": target.digest, "unpacked": unpacked, "pinned": pinned}
    result.image = {
        "name": params.name,
        "media_type": target.media_type,
        "checkpoint": checkpoint,
        "chain_id": "",
        "owner": params.owner if state.found is None else core_labels.owner_of(state.found.labels),
        **result.after,
    }


def _complete(client: Client, params: ImageParams, target: Descriptor, tree: image_tree.Tree) -> None:
    for digest, labels in tree.unlabelled.items():
        content.set_labels(client, digest, labels)
    if not params.unpack or tree.is_checkpoint:
        return
    client.track.phase("unpack")
    try:
        unpack.unpack(client, unpack.rootfs(client, target, params.name), params.snapshotter)
    except RpcError as error:
        if not space.ran_out(error):
            raise
        raise NodeError(
            "snapshots_no_space",
            f"The snapshotter {params.snapshotter} ran out of space while {params.name} was unpacked.",
            "Free space on its file system, then run again.",
            outcome=RETRYABLE,
            rpc=error.rpc,
        ) from error


def _record(
    client: Client,
    params: ImageParams,
    state: State,
    target: Descriptor,
    pin: bool | None,
    result: ImageResult,
    signature: str = "",
) -> None:
    """The name comes last, so that it never stands for something half-made."""
    if state.found is not None:
        # Empty, it is removed: the old one is of another digest.
        moved = Image(params.name, target, {**state.found.labels, core_labels.SIGNATURE: signature})
        if state.digest != target.digest:
            images.update(client, moved, ["target", f"labels.{core_labels.SIGNATURE}"])
            if core_labels.owner_of(moved.labels) == params.owner:
                cri.forget(client, state.found)
        if pin is not None:
            _pin(client, params, moved, pin)
        return
    labels = {core_labels.OWNER: params.owner}
    if signature:
        labels[core_labels.SIGNATURE] = signature
    if pin:
        labels[core_labels.PINNED] = image_state.PINNED
    try:
        images.create(client, Image(params.name, target, labels))
    except AlreadyExistsError:
        other = images.get(client, params.name)
        if other is None or other.target.digest != target.digest:
            raise
        # Somebody else made the same one meanwhile; it is theirs.
        result.created = False
        if pin:
            _pin(client, params, other, pin)


def _plan_pin(params: ImageParams, state: State, result: ImageResult) -> bool | None:
    """True: pin, False: release, None: leave. Raises ConflictError ``image_not_ours`` for a pin of somebody else's."""
    if params.pinned is None or params.pinned == state.pinned:
        return None
    if params.pinned:
        result.actions.append("pin it")
        return True
    if state.found is None:
        return None
    ours = params.owner in (core_labels.owner_of(state.found.labels), state.found.labels.get(core_labels.PINNED_BY))
    if not ours and not params.force:
        raise image_state.not_ours(state.found, params, "has been pinned by somebody else")
    result.actions.append("release its pin")
    return False


def _pin(client: Client, params: ImageParams, found: Image, pin: bool) -> None:
    """Set or remove the label that keeps kubelet's garbage collection away, and the note that it was us."""
    names = [core_labels.PINNED, core_labels.PINNED_BY]
    # containerd removes a label by giving it the empty value.
    wanted = (
        {core_labels.PINNED: image_state.PINNED, core_labels.PINNED_BY: params.owner}
        if pin
        else dict.fromkeys(names, "")
    )
    if pin and core_labels.owner_of(found.labels) == params.owner:
        names, wanted = [core_labels.PINNED], {core_labels.PINNED: image_state.PINNED}
    images.update(client, Image(found.name, found.target, wanted), [f"labels.{name}" for name in names])


def _require_whole(client: Client, target: Descriptor, name: str) -> image_tree.Tree:
    tree = image_tree.survey(client, target)
    missing = [*tree.missing, *tree.missing_layers]
    if missing:
        raise InputError(
            "blob_missing",
            f"The blob {missing[0].digest} ({missing[0].media_type}) of {name} did not arrive in containerd's content "
            "store.",
            "Import or pull the whole image, base layers included.",
            details={"missing": [item.digest for item in missing][:100]},
        )
    return tree


def _seconds(client: Client, size: int) -> float:
    """How long an image of ``size`` bytes may take to come in and to be unpacked."""
    return client.seconds_for(size * (1 + COMPRESSED))


@contextlib.contextmanager
def _leased(client: Client, params: ImageParams, seconds: float, goes_on: bool = False) -> Iterator[None]:
    with leases.hold(client, params.lease or None, _purpose(params), seconds, goes_on):
        yield


def _purpose(params: ImageParams) -> str:
    return f"image {params.name}"
