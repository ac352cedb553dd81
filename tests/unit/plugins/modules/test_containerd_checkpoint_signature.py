# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ansible_collections.gpuops.restore.plugins.module_utils._core.labels import SIGNATURE
from ansible_collections.gpuops.restore.tests.unit.helpers.ansible_modules import Call
from ansible_collections.gpuops.restore.tests.unit.helpers.containerd_node import Node
from ansible_collections.gpuops.restore.tests.unit.helpers.containerd_samples import BASE_NAME, CHECKPOINT_NAME
from ansible_collections.gpuops.restore.tests.unit.helpers.fake_containerd import FakeContainerd
from ansible_collections.gpuops.restore.tests.unit.helpers.fake_registry import FakeRegistry, running
from ansible_collections.gpuops.restore.tests.unit.helpers.ssh_keys import Key

MODULE = "containerd_checkpoint_signature"


@pytest.fixture
def sign(call: Call) -> Any:
    def act(check: bool = False, **options: Any) -> Any:
        return call(MODULE, check, name=CHECKPOINT_NAME, **options)

    return act


def test_it_is_signed_verified_and_not_signed_again(
    fake: FakeContainerd, sign: Any, node: Node, tmp_path: Path
) -> None:
    # Signatures by this kind of key differ each time.
    key = Key(tmp_path, kind="ecdsa")
    text = key.sign(node.checkpoint.digest)
    refused = sign(state="verified", verify_key=[key.public])
    assert refused["failure"]["code"] == "checkpoint_unsigned"
    predicted = sign(True, signature=text)
    labels = fake.state.images[CHECKPOINT_NAME].labels
    assert predicted["changed"] and SIGNATURE not in labels
    before = dict(labels)
    done = sign(signature=text)
    assert (done["changed"], done["digest"]) == (True, node.checkpoint.digest)
    assert (done["signer"], done["diff"]) == (predicted["signer"], predicted["diff"])
    assert sign(signature=key.sign(node.checkpoint.digest))["changed"] is False
    assert fake.state.images[CHECKPOINT_NAME].labels == {**before, SIGNATURE: text}
    assert sign(state="verified", verify_key=[key.public])["signer"] == done["signer"]
    assert sign(state="verified")["failure"]["code"] == "verify_key_invalid"
    assert [sign(state="absent")["changed"] for _ in range(2)] == [True, False]
    assert fake.state.images[CHECKPOINT_NAME].labels == before


def test_what_does_not_fit_is_not_put_on_it(fake: FakeContainerd, sign: Any, node: Node, tmp_path: Path) -> None:
    key, other = Key(tmp_path, "key"), Key(tmp_path, "other")
    wrong = "sha256:" + "0" * 64
    good = key.sign(node.checkpoint.digest)
    for options, code in (
        ({"signature": key.sign(wrong)}, "signature_invalid"),
        ({"signature": good, "verify_key": [other.public]}, "signer_unknown"),
        ({"signature": good, "digest": wrong}, "image_digest_mismatch"),
    ):
        assert sign(**options)["failure"]["code"] == code
    assert SIGNATURE not in fake.state.images[CHECKPOINT_NAME].labels


@pytest.mark.parametrize("way", ["registry", "archive", "image"])
def test_it_goes_along(way: str, call: Call, fake: FakeContainerd, sign: Any, node: Node, tmp_path: Path) -> None:
    key = Key(tmp_path)
    text = key.sign(node.checkpoint.digest)
    path = str(tmp_path / "archive.tar")

    def registered(registry: FakeRegistry, state: str) -> Any:
        options = {"reference": f"{registry.host}/team/app:1", "server": registry.url}
        access = {"username": "trainer", "password": "hunter2"}
        return call("containerd_checkpoint_registry", state=state, name=CHECKPOINT_NAME, **options, **access)

    def leave(registry: FakeRegistry) -> None:
        if way == "registry":
            # What was pushed before it was signed is signed there, too.
            registered(registry, "pushed")
            sign(signature=text)
            assert registered(registry, "pushed")["changed"]
        else:
            sign(signature=text)
            call("containerd_checkpoint_archive", operation="export", name=CHECKPOINT_NAME, path=path)

    def come(registry: FakeRegistry) -> Any:
        if way == "registry":
            return registered(registry, "pulled")
        if way == "archive":
            return call("containerd_checkpoint_archive", operation="import", name=CHECKPOINT_NAME, path=path)
        return call("containerd_image", name=CHECKPOINT_NAME, archive=path, unpack=False)

    with running() as registry:
        leave(registry)
        for name in (CHECKPOINT_NAME, BASE_NAME):
            del fake.state.images[name]
        assert come(registry)["changed"]
        assert sign(state="verified", verify_key=[key.public])["digest"] == node.checkpoint.digest
        if way == "registry":
            sign(state="absent")
            assert come(registry)["changed"] and not come(registry)["changed"]
            assert sign(state="verified", verify_key=[key.public])["digest"] == node.checkpoint.digest


def test_another_checkpoint_under_the_name_does_not_inherit_it(
    call: Call, fake: FakeContainerd, sign: Any, node: Node, tmp_path: Path
) -> None:
    key = Key(tmp_path)
    path = str(tmp_path / "archive.tar")
    call("containerd_checkpoint_archive", operation="export", name=CHECKPOINT_NAME, path=path)
    base = fake.state.images[BASE_NAME].target
    # As if another one had been there.
    fake.state.images[CHECKPOINT_NAME].labels[SIGNATURE] = key.sign(base.digest)
    fake.state.images[CHECKPOINT_NAME].target.CopyFrom(base)
    call("containerd_image", name=CHECKPOINT_NAME, archive=path, unpack=False, force=True)
    assert fake.state.images[CHECKPOINT_NAME].target.digest == node.checkpoint.digest
    assert SIGNATURE not in fake.state.images[CHECKPOINT_NAME].labels
