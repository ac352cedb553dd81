# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from typing import Any

import pytest

from ansible_collections.gpuops.restore.plugins.module_utils._probe import probe as probes
from ansible_collections.gpuops.restore.plugins.module_utils._probe.probe import ProbeParams
from ansible_collections.gpuops.restore.tests.unit.helpers.ansible_modules import Call
from ansible_collections.gpuops.restore.tests.unit.helpers.containerd_node import Node
from ansible_collections.gpuops.restore.tests.unit.helpers.containerd_samples import CHECKPOINT_NAME

PROBE = "containerd_probe"


def test_a_container_without_a_task_proves_nothing(call: Call, node: Node) -> None:
    call("containerd_container", container_id="train", checkpoint=CHECKPOINT_NAME, staging_dir=node.root)
    options: dict[str, Any] = {"container_id": "train", "file": {"path": "/var/count"}}
    assert call(PROBE, **options)["failure"]["code"] == "probe_failed"
    foretold = call(PROBE, True, **options)
    assert (foretold["changed"], foretold["probe"]["ok"], foretold["probe"]["kind"]) == (False, None, "file")
    assert foretold["warnings"] == [foretold["probe"]["detail"]]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (
            {"command": ["true"], "exit_status": 3, "return_output": True, "command_seconds": 7},
            {"command": ("true",), "exit_status": 3, "return_output": True, "seconds": 7.0},
        ),
        ({"command": []}, {"command": ("",), "exit_status": 0, "return_output": False, "seconds": 30.0}),
        ({"file": {"path": "/log", "seconds": 2}}, {"path": "/log", "seconds": 2.0}),
        (
            {"http": {"url": "http://127.0.0.1/", "status": [200, 204], "network": "host", "validate_certs": False}},
            {
                "url": "http://127.0.0.1/",
                "statuses": (200, 204),
                "seconds": 10.0,
                "in_container": False,
                "validate_certs": False,
            },
        ),
    ],
)
def test_every_option_reaches_the_probe(
    call: Call, monkeypatch: pytest.MonkeyPatch, options: dict[str, Any], expected: dict[str, Any]
) -> None:
    seen: list[Any] = []

    def probe(_client: Any, params: ProbeParams, check: bool) -> Any:
        seen.append((params, check))
        return probes.ProbeResult(kind="file", ok=True, detail="It changed.", seconds=0.5)

    monkeypatch.setattr(probes, "probe", probe)
    call(PROBE, container_id="train", staging_dir="/state", **options)
    assert seen == [(ProbeParams(container_id="train", staging_dir="/state", **expected), False)]
