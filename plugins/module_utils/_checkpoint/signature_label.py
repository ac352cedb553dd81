# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The signature of a checkpoint as a state: on its image in containerd, or not."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from .._containerd import images
from .._containerd.client import Client
from .._core import labels
from .._core.errors import InputError
from .._image import state as image_state
from . import reader, signature


@dataclass(frozen=True)
class SignatureParams:
    """What is wanted; see the documentation of ``containerd_checkpoint_signature``."""

    #: Of the checkpoint in containerd.
    name: str
    #: As ``ssh-keygen -Y sign`` gives it; "" for none.
    signature: str = ""
    #: The digest that the checkpoint must have; empty: any.
    digest: str = ""
    #: Public SSH keys one of which has to have signed; none: any key.
    verify_key: tuple[str, ...] = ()


@dataclass
class SignatureResult:
    """What was, or in check mode would be, done."""

    changed: bool
    digest: str
    #: Fingerprint of the key that signed; "" where nobody did.
    signer: str
    before: str


def present(client: Client, params: SignatureParams, check: bool) -> SignatureResult:
    """Have the checkpoint signed. A valid signature by the same key stays: some keys sign differently each time.

    Raises as ``signature.signer`` and ``signature.require``, and InputError ``image_digest_mismatch``.
    """
    checkpoint = _load(client, params)
    text = params.signature.strip() + "\n"
    signer = signature.signer(checkpoint.digest, text)
    signature.require(params.name, checkpoint.digest, text, params.verify_key)
    before = _signer(checkpoint)
    changed = before != signer
    if changed and not check:
        _write(client, checkpoint, text)
    return SignatureResult(changed, checkpoint.digest, signer, before)


def verified(client: Client, params: SignatureParams) -> SignatureResult:
    """Look whether it is signed by one of the keys. Raises as ``signature.require``, also where there is none."""
    if not signature.check_keys(params.verify_key):
        raise InputError(
            "verify_key_invalid",
            f"Nobody can tell whether the checkpoint {params.name} is signed as it has to be: verify_key is empty.",
            "Give the public keys that you trust.",
        )
    checkpoint = _load(client, params)
    signer = signature.require(params.name, checkpoint.digest, checkpoint.signature, params.verify_key)
    return SignatureResult(False, checkpoint.digest, signer, signer)


def absent(client: Client, params: SignatureParams, check: bool) -> SignatureResult:
    """Have no signature on it."""
    checkpoint = _load(client, params)
    if checkpoint.signature and not check:
        _write(client, checkpoint, "")
    return SignatureResult(bool(checkpoint.signature), checkpoint.digest, "", _signer(checkpoint))


def _load(client: Client, params: SignatureParams) -> reader.Checkpoint:
    checkpoint = reader.load(client, params.name)
    if params.digest not in ("", checkpoint.digest):
        what = f"The image {params.name} is {checkpoint.digest}"
        raise image_state.digest_mismatch(what, params.digest, found=checkpoint.digest)
    return checkpoint


def _signer(checkpoint: reader.Checkpoint) -> str:
    """Of the signature that is there; "" also for one that is worth nothing."""
    try:
        return signature.signer(checkpoint.digest, checkpoint.signature) if checkpoint.signature else ""
    except InputError:
        return ""


def _write(client: Client, checkpoint: reader.Checkpoint, text: str) -> None:
    image = images.get(client, checkpoint.name)
    if image is None or image.target.digest != checkpoint.digest:
        raise InputError("checkpoint_absent", f"The image {checkpoint.name} changed while it was read.", "Run again.")
    found = {key: value for key, value in image.labels.items() if key != labels.SIGNATURE}
    if text:
        found[labels.SIGNATURE] = text
    images.update(client, dataclasses.replace(image, labels=found), ["labels"])
