# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from ansible_collections.gpuops.restore.tests.unit.helpers.ansible_modules import Call
from ansible_collections.gpuops.restore.tests.unit.helpers.containerd_node import Node
from ansible_collections.gpuops.restore.tests.unit.helpers.containerd_samples import BASE_NAME, CHECKPOINT_NAME
from ansible_collections.gpuops.restore.tests.unit.helpers.fake_containerd import FakeContainerd
from ansible_collections.gpuops.restore.tests.unit.helpers.fake_registry import FakeRegistry, running

REGISTRY = "containerd_checkpoint_registry"


@pytest.fixture
def registry() -> Iterator[FakeRegistry]:
    with running() as found:
        yield found


def test_there_and_back(call: Call, fake: FakeContainerd, node: Node, registry: FakeRegistry) -> None:
    options: dict[str, Any] = {
        "name": CHECKPOINT_NAME,
        "reference": f"{registry.host}/team/app:1",
        "server": registry.url,
        "username": "trainer",
        "password": "hunter2",
    }
    predicted = call(REGISTRY, True, state="pushed", **options)
    done = call(REGISTRY, state="pushed", **options)
    assert (predicted["changed"], predicted["actions"], predicted["diff"]) == (True, done["actions"], done["diff"])
    assert (done["digest"], done["registry"]["reference"]) == (node.checkpoint.digest, options["reference"])
    assert call(REGISTRY, state="pushed", **options)["changed"] is False
    assert "hunter2" not in json.dumps(done)
    for name in (CHECKPOINT_NAME, BASE_NAME):
        del fake.state.images[name]
    pulled = call(REGISTRY, state="pulled", owner="me", **options)
    assert (pulled["changed"], pulled["digest"]) == (True, node.checkpoint.digest)
    assert fake.state.images[CHECKPOINT_NAME].labels["io.gpuops.restore/owner"] == "me"
    wrong = call(REGISTRY, state="pulled", digest="sha256:" + "0" * 64, **options)
    assert (wrong["failed"], wrong["failure"]["outcome"]) == (True, "terminal")


def test_a_registry_elsewhere_is_not_asked_by_http(call: Call, node: Node) -> None:
    options = {"name": CHECKPOINT_NAME, "reference": "registry.example/app:1", "server": "http://registry.example"}
    assert call(REGISTRY, state="pushed", **options)["failure"]["outcome"] == "terminal"
