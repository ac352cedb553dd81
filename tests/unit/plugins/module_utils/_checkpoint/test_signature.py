# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Signatures of checkpoints, made and verified by the real ssh-keygen."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from ansible_collections.gpuops.restore.plugins.module_utils._checkpoint import original, signature, stage
from ansible_collections.gpuops.restore.plugins.module_utils._containerd.client import Client
from ansible_collections.gpuops.restore.plugins.module_utils._core import labels
from ansible_collections.gpuops.restore.plugins.module_utils._core.errors import RestoreError
from ansible_collections.gpuops.restore.tests.unit.helpers.containerd_node import Node
from ansible_collections.gpuops.restore.tests.unit.helpers.containerd_samples import CHECKPOINT_NAME
from ansible_collections.gpuops.restore.tests.unit.helpers.fake_containerd import FakeContainerd
from ansible_collections.gpuops.restore.tests.unit.helpers.ssh_keys import Key

DIGEST, OTHER = "sha256:" + "a" * 64, "sha256:" + "b" * 64


@pytest.fixture(scope="module")
def ours(tmp_path_factory: pytest.TempPathFactory) -> Key:
    return Key(tmp_path_factory.mktemp("ours"))


@pytest.fixture(scope="module")
def theirs(tmp_path_factory: pytest.TempPathFactory) -> Key:
    return Key(tmp_path_factory.mktemp("theirs"), kind="ecdsa")


def code(act: Callable[[], object]) -> str:
    with pytest.raises(RestoreError) as caught:
        act()
    assert caught.value.remedy
    return caught.value.code


def test_one_of_the_keys_has_signed(ours: Key, theirs: Key) -> None:
    for key in (ours, theirs):
        found = signature.require("name", DIGEST, key.sign(DIGEST), [theirs.public, "", ours.public])
        assert found == signature.signer(DIGEST, key.sign(DIGEST))
        assert found.startswith("SHA256:")


def test_nobody_asks_without_keys() -> None:
    assert signature.require("name", DIGEST, "", []) == signature.require("name", DIGEST, "rubbish", ["", " "]) == ""


def test_what_is_not_signed_so_is_refused(ours: Key, theirs: Key) -> None:
    def require(text: str, digest: str = DIGEST) -> str:
        return code(lambda: signature.require("name", digest, text, [ours.public]))

    good = ours.sign(DIGEST)
    assert require("") == "checkpoint_unsigned"
    assert require(theirs.sign(DIGEST)) == "signer_unknown"
    assert require(good, OTHER) == "signature_invalid"
    assert require(ours.sign(DIGEST, namespace="git")) == "signature_invalid"
    body = good.splitlines()
    for text in (
        good.replace(body[3], body[3][::-1]),
        "\n".join(body[:-2]),
        good * 2,
        "-----BEGIN SSH SIGNATURE-----\n\n-----END SSH SIGNATURE-----\n",
        good[:40] + "A" * labels.MAX_SIGNATURE + good[40:],
        "\x00",
    ):
        assert require(text) == "signature_invalid"


@pytest.mark.parametrize(
    "key",
    [
        "rubbish",
        "ssh-ed25519",
        "/root/.ssh/id_ed25519.pub",
        'cert-authority,namespaces="git" ssh-ed25519 AAAA',
        "ssh-ed25519 AAAA\n* ssh-ed25519 BBBB",
        "ssh-ed25519 AAAA comment\n* ssh-ed25519 BBBB",
    ],
)
def test_what_is_no_key_is_refused(key: str, ours: Key) -> None:
    assert code(lambda: signature.require("n", DIGEST, ours.sign(DIGEST), [ours.public, key])) == "verify_key_invalid"


def test_a_node_without_ssh_keygen(ours: Key, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    good = ours.sign(DIGEST)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert code(lambda: signature.require("n", DIGEST, good, [ours.public])) == "ssh_keygen_missing"


def test_an_ssh_keygen_that_is_too_old(ours: Key, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """It has not judged the signature, so nothing is said of that."""
    good = ours.sign(DIGEST)
    program = tmp_path / "ssh-keygen"
    program.write_text("#!/bin/sh\necho 'unknown option -- Y' >&2\necho 'usage: ssh-keygen [-q]' >&2\nexit 1\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    assert code(lambda: signature.require("n", DIGEST, good, [ours.public])) == "ssh_keygen_failed"


def test_a_checkpoint_is_neither_read_nor_staged_unsigned(
    fake: FakeContainerd, client: Client, node: Node, ours: Key
) -> None:
    wanted = original.Source(CHECKPOINT_NAME, verify_key=(ours.public,))

    def staged() -> stage.StageResult:
        return stage.present(client, CHECKPOINT_NAME, node.root, None, False, verify_key=[ours.public])

    for text, expected in ((None, "checkpoint_unsigned"), (ours.sign(OTHER), "signature_invalid")):
        if text is not None:
            fake.state.images[CHECKPOINT_NAME].labels[labels.SIGNATURE] = text
        assert code(lambda: original.read(client, wanted)) == code(staged) == expected
        assert not Path(node.root).exists()
    fake.state.images[CHECKPOINT_NAME].labels[labels.SIGNATURE] = ours.sign(node.checkpoint.digest)
    assert original.read(client, wanted).checkpoint.digest == node.checkpoint.digest
    assert staged().changed
