# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""An image is present, unpacked and pinned, or absent. Private: for this collection's own modules only."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from .._archive.reader import open_archive
from .._containerd import content, daemon, images, leases
from .._containerd.client import Client
from .._containerd.images import Image
from .._core import labels as core_labels
from .._core.errors import RETRYABLE, AlreadyExistsError, InputError, NodeError, RestoreError, RpcError
from .._oci import image as oci_image
from .._streams import streams
from . import archive_import, cri, pull, state as image_state, tree as image_tree, unpack
from .state import State, Wish


@dataclass
class Outcome:
    """What was, or in check mode would be, done. ``before`` and ``after``: digest, unpacked, pinned; empty: absent."""

    changed: bool = False
    created: bool = False
    before: dict[str, Any] = field(default_factory=dict)
    after: dict[str, Any] = field(default_factory=dict)
    actions: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    image: dict[str, Any] = field(default_factory=dict)


def present(client: Client, wish: Wish, check: bool) -> Outcome:
    """Have the image, whole, protected from garbage collection, unpacked if wished.

    Raises InputError, ConflictError (``image_other_digest``, ``image_not_ours``) and NodeError
    (``content_no_space``, ``snapshotter_unknown``, ``pull_unsupported``, ``pull_failed``). After a failure no record,
    content or snapshot of this call is left, unless it was under a lease of the caller's.
    """
    if wish.digest:
        streams.check_digest(wish.digest, "The option digest")
    daemon.require_snapshotter(client, wish.snapshotter)
    state = image_state.read(client, images.get(client, wish.name), wish)
    outcome = Outcome(before=state.brief())
    as_expected = state.complete and wish.digest in ("", state.digest)
    if as_expected and (wish.digest or (not wish.archive and wish.pull != image_state.ALWAYS)):
        _settle(client, wish, state, check, outcome)
    elif wish.archive:
        _from_archive(client, wish, state, check, outcome)
    elif wish.pull == image_state.NEVER:
        raise image_state.not_there(client, wish, state)
    else:
        _from_registry(client, wish, state, check, outcome)
    outcome.changed = bool(outcome.actions)
    if not check:
        after = image_state.read(client, images.get(client, wish.name), wish)
        outcome.image, outcome.after = after.result(), after.brief()
    return outcome


def absent(client: Client, wish: Wish, check: bool) -> Outcome:
    """Have no such record, and no content or snapshots that only it kept.

    Raises ConflictError ``image_not_ours``, ``image_other_digest``.
    """
    found = images.get(client, wish.name)
    if found is None:
        return Outcome()
    state = image_state.read(client, found, wish)
    outcome = Outcome(before=state.brief())
    image_state.require_ours(found, wish)
    if wish.digest not in ("", state.digest) and not wish.force:
        raise image_state.other_digest(wish, state.digest, wish.digest)
    outcome.changed = True
    outcome.actions.append(f"delete the image {wish.name} ({state.digest})")
    if not check:
        ordinary = state.tree is not None and not state.tree.is_checkpoint
        cri.remove(client, found, ordinary)
    return outcome


def _settle(client: Client, wish: Wish, state: State, check: bool, outcome: Outcome, held: bool = False) -> None:
    """The content is there: labels, snapshots and the pin. ``held``: under a lease already."""
    if state.found is None or state.tree is None:
        return
    if state.tree.unlabelled:
        outcome.actions.append(f"label {len(state.tree.unlabelled)} documents for garbage collection")
    if wish.unpack and state.unpacked is False:
        outcome.actions.append(f"unpack it for {wish.snapshotter}")
    pin = _plan_pin(wish, state, outcome)
    if check:
        unpacked = True if wish.unpack and state.unpacked is False else state.unpacked
        pinned = state.pinned if pin is None else pin
        outcome.image = {**state.result(), "unpacked": unpacked, "pinned": pinned}
        outcome.after = {"digest": state.digest, "unpacked": unpacked, "pinned": pinned}
        return
    if state.tree.unlabelled or (wish.unpack and state.unpacked is False):
        with contextlib.nullcontext() if held else _held(client, wish):
            _complete(client, wish, state.found.target, state.tree)
    if pin is not None:
        _pin(client, wish, state.found, pin)


def _from_archive(client: Client, wish: Wish, state: State, check: bool, outcome: Outcome) -> None:
    with open_archive(wish.archive) as archive:
        entry = archive_import.choose(archive, wish.name, wish.digest)
        target = entry.descriptor
        if wish.digest not in ("", target.digest):
            raise image_state.mismatch(f"The archive {wish.archive} has {wish.name} as {target.digest}", wish.digest)
        if state.digest == target.digest and state.complete:
            _settle(client, wish, state, check, outcome)
            return
        image_state.require_movable(wish, state, target.digest)
        plan = archive_import.plan(client, archive, entry)
        unpacking = f" and unpack it for {wish.snapshotter}" if wish.unpack and not plan.is_checkpoint else ""
        what = f"import {target.digest} from {wish.archive}{unpacking}"
        _announce(wish, state, what, target.digest, outcome)
        pin = _plan_pin(wish, state, outcome)
        if check:
            unpacked = None if plan.is_checkpoint else wish.unpack
            _predict(wish, state, target, plan.is_checkpoint, unpacked, outcome)
            outcome.image["size"] = plan.size
            return
        with _held(client, wish):
            archive_import.upload(client, archive, plan)
            tree = _require_whole(client, target, wish.name)
            _complete(client, wish, image_tree.to_record(target), tree)
            _record(client, wish, state, image_tree.to_record(target), pin, outcome)


def _from_registry(client: Client, wish: Wish, state: State, check: bool, outcome: Outcome) -> None:
    reference = pull.reference(wish.name, wish.digest)
    if check:
        _predict_pull(wish, state, reference, outcome)
        return
    with _held(client, wish):
        pulled = pull.fetch(client, reference, wish.hosts_dir)
        target, ordinary = pulled.target, True
        try:
            tree = _require_whole(client, image_tree.from_record(target), wish.name)
            ordinary = not tree.is_checkpoint
            if wish.digest not in ("", target.digest):
                raise image_state.mismatch(f"The registry has {wish.name} as {target.digest}", wish.digest)
            if state.digest == target.digest and state.complete:
                _settle(client, wish, state, check, outcome, held=True)
            else:
                image_state.require_movable(wish, state, target.digest)
                _announce(wish, state, f"pull {reference}", target.digest, outcome)
                pin = _plan_pin(wish, state, outcome)
                _complete(client, wish, target, tree)
                _record(client, wish, state, target, pin, outcome)
        except BaseException:
            # Why it failed counts more than what then cannot be removed either; the lease's expiry takes that.
            with contextlib.suppress(RestoreError):
                cri.remove(client, images.get(client, pulled.name) or pulled, ordinary)
            raise
        cri.remove(client, images.get(client, pulled.name) or pulled, ordinary)


def _predict_pull(wish: Wish, state: State, reference: str, outcome: Outcome) -> None:
    """What the registry has is not known without pulling: only with ``digest`` is this exact."""
    if state.complete and not wish.digest:
        outcome.warnings.append(
            f"Check mode cannot know whether the registry has another {wish.name} by now; it would be pulled to see."
        )
        outcome.image, outcome.after = state.result(), state.brief()
        return
    if wish.digest:
        image_state.require_movable(wish, state, wish.digest)
    # Without a digest it is an incomplete image that is pulled again, most likely the same.
    _announce(wish, state, f"pull {reference}", wish.digest or state.digest, outcome)
    _plan_pin(wish, state, outcome)
    outcome.after = {
        "digest": wish.digest or None,
        "unpacked": wish.unpack,
        "pinned": state.pinned if wish.pinned is None else wish.pinned,
    }
    outcome.image = {"name": wish.name, **outcome.after}


def _announce(wish: Wish, state: State, what: str, digest: str, outcome: Outcome) -> None:
    outcome.actions.append(what)
    if state.found is None:
        outcome.created = True
    elif state.digest != digest:
        outcome.actions.append(f"move {wish.name} from {state.digest} to {digest}")


def _predict(
    wish: Wish,
    state: State,
    target: oci_image.Descriptor,
    checkpoint: bool,
    unpacked: bool | None,
    outcome: Outcome,
) -> None:
    pinned = state.pinned if wish.pinned is None else wish.pinned
    outcome.after = {"digest": target.digest, "unpacked": unpacked, "pinned": pinned}
    outcome.image = {
        "name": wish.name,
        "media_type": target.media_type,
        "checkpoint": checkpoint,
        "chain_id": "",
        "owner": wish.owner if state.found is None else core_labels.owner_of(state.found.labels),
        **outcome.after,
    }


def _complete(client: Client, wish: Wish, target: images.Descriptor, tree: image_tree.Tree) -> None:
    for digest, labels in tree.unlabelled.items():
        content.set_labels(client, digest, labels)
    if not wish.unpack or tree.is_checkpoint:
        return
    try:
        unpack.unpack(client, unpack.rootfs(client, target, wish.name), wish.snapshotter)
    except RpcError as error:
        if "no space left" not in str(error.details.get("text", "")):
            raise
        raise NodeError(
            "snapshots_no_space",
            f"The snapshotter {wish.snapshotter} ran out of space while {wish.name} was unpacked.",
            "Free space on its file system, then run again.",
            outcome=RETRYABLE,
            rpc=error.rpc,
        ) from error


def _record(
    client: Client, wish: Wish, state: State, target: images.Descriptor, pin: bool | None, outcome: Outcome
) -> None:
    """The name comes last, so that it never stands for something half-made."""
    if state.found is not None:
        moved = Image(wish.name, target, state.found.labels)
        if state.digest != target.digest:
            images.update(client, moved, ["target"])
            if core_labels.owner_of(moved.labels) == wish.owner:
                cri.forget(client, state.found)
        if pin is not None:
            _pin(client, wish, moved, pin)
        return
    labels = {core_labels.OWNER: wish.owner}
    if pin:
        labels[core_labels.PINNED] = image_state.PINNED
    try:
        images.create(client, Image(wish.name, target, labels))
    except AlreadyExistsError:
        other = images.get(client, wish.name)
        if other is None or other.target.digest != target.digest:
            raise
        # Somebody else made the same one meanwhile; it is theirs.
        outcome.created = False
        if pin:
            _pin(client, wish, other, pin)


def _plan_pin(wish: Wish, state: State, outcome: Outcome) -> bool | None:
    """True: pin, False: release, None: leave. Raises ConflictError ``image_not_ours`` for a pin of somebody else's."""
    if wish.pinned is None or wish.pinned == state.pinned:
        return None
    if wish.pinned:
        outcome.actions.append("pin it")
        return True
    if state.found is None:
        return None
    ours = wish.owner in (core_labels.owner_of(state.found.labels), state.found.labels.get(core_labels.PINNED_BY))
    if not ours and not wish.force:
        raise image_state.not_ours(state.found, wish, "has been pinned by somebody else")
    outcome.actions.append("release its pin")
    return False


def _pin(client: Client, wish: Wish, found: Image, pin: bool) -> None:
    """Set or remove the label that keeps kubelet's garbage collection away, and the note that it was us."""
    names = [core_labels.PINNED, core_labels.PINNED_BY]
    # containerd removes a label by giving it the empty value.
    wanted = (
        {core_labels.PINNED: image_state.PINNED, core_labels.PINNED_BY: wish.owner} if pin else dict.fromkeys(names, "")
    )
    if pin and core_labels.owner_of(found.labels) == wish.owner:
        names, wanted = [core_labels.PINNED], {core_labels.PINNED: image_state.PINNED}
    images.update(client, Image(found.name, found.target, wanted), [f"labels.{name}" for name in names])


def _require_whole(client: Client, target: oci_image.Descriptor, name: str) -> image_tree.Tree:
    tree = image_tree.survey(client, target)
    lacking = [*tree.missing, *tree.missing_layers]
    if lacking:
        raise InputError(
            "blob_missing",
            f"The blob {lacking[0].digest} ({lacking[0].media_type}) of {name} did not arrive in containerd's content "
            "store.",
            "Import or pull the whole image, base layers included.",
            details={"missing": [item.digest for item in lacking][:100]},
        )
    return tree


@contextlib.contextmanager
def _held(client: Client, wish: Wish) -> Iterator[None]:
    with leases.hold(client, wish.lease or None, f"image {wish.name}"):
        yield
