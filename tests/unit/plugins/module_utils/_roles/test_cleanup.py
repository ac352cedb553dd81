# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a cleanup deletes, by the filter that the role asks."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest

from ansible_collections.gpuops.restore.plugins.filter.restore_decision import restore_decision

ROOT = "/var/lib/gpuops-restore"
RECEIPTS, DEBUG = f"{ROOT}/receipts", f"{ROOT}/debug"
A, B = f"{RECEIPTS}/a.json", f"{RECEIPTS}/b.json"
WORKLOADS = [{"name": "a", "checkpoint": "a:1"}, {"name": "b", "checkpoint": "b:1"}]


def receipt(path: str, name: str, **content: Any) -> dict[str, Any]:
    text = base64.b64encode(json.dumps(content).encode()).decode()
    return {"__restore_node_name": name, "source": path, "content": text}


def cleanup(**known: Any) -> Any:
    whole = {
        "workloads": WORKLOADS,
        "namespace": "k8s.io",
        "prefix": "",
        "traces": [],
        "receipts": [],
        "found": {},
        "receipt_dir": RECEIPTS,
        "debug_dir": DEBUG,
        "evidence": True,
        "output": True,
    }
    return restore_decision({**whole, **known}, "cleanup")


def test_on_a_bare_node_only_names_are_known() -> None:
    assert cleanup() == {"paths": [], "checkpoints": ["a:1", "b:1"], "images": ["a:1", "b:1"]}
    assert cleanup(workloads=[]) == {"paths": [], "checkpoints": [], "images": []}


def test_a_directory_that_would_be_left_empty_goes_as_a_whole() -> None:
    receipts = [receipt(A, "a"), receipt(B, "b")]
    assert cleanup(traces=[RECEIPTS, A, B], receipts=receipts)["paths"] == [RECEIPTS]
    other = f"{RECEIPTS}/c.json"
    assert cleanup(traces=[RECEIPTS, A, B, other], receipts=receipts)["paths"] == [A, B]
    # One with nothing in it, too.
    assert cleanup(traces=[RECEIPTS, DEBUG])["paths"] == [RECEIPTS, DEBUG]


def test_evidence_goes_that_is_of_these_workloads() -> None:
    own = [f"{DEBUG}/a-20260101T000000Z", f"{DEBUG}/b-20260101T000000Z"]
    others = [f"{DEBUG}/ab-20260101T000000Z", f"{DEBUG}/x--a-20260101T000000Z", f"{DEBUG}/a-20260101T000000Z.tar"]
    assert cleanup(traces=[DEBUG, *own])["paths"] == [DEBUG]
    assert cleanup(traces=[DEBUG, *own, *others])["paths"] == own
    assert cleanup(traces=[DEBUG, *own], evidence=False)["paths"] == []
    assert cleanup(traces=[DEBUG, *others], prefix="x--")["paths"] == [others[1]]
    # A name is no pattern.
    dotted = [{"name": "a.b", "checkpoint": "c"}]
    assert cleanup(workloads=dotted, traces=[DEBUG, f"{DEBUG}/axb-20260101T000000Z"])["paths"] == []


@pytest.mark.parametrize("answer", [{"skipped": True}, {"failed": True, "msg": "no"}])
def test_a_receipt_that_was_not_read_says_nothing(answer: dict[str, Any]) -> None:
    found = cleanup(receipts=[{"__restore_node_name": "a", **answer}])
    assert found["checkpoints"] == ["a:1", "b:1"]


def test_a_receipt_says_what_else_goes() -> None:
    said = receipt(
        A,
        "a",
        checkpoint={"digest": "sha256:1"},
        output=["/var/log/a", "/var/log/out"],
        base_image={"name": "base:1"},
        images_imported=["a:1", "more:1"],
    )
    workloads = [{**WORKLOADS[0], "stdout": "/var/log/out", "stderr": ""}, {**WORKLOADS[1], "image": "mine:1"}]
    assert cleanup(workloads=workloads, receipts=[said], traces=[RECEIPTS, A, B]) == {
        "paths": [A, "/var/log/out", "/var/log/a"],
        "checkpoints": ["sha256:1", "b:1"],
        "images": ["a:1", "base:1", "more:1", "b:1", "mine:1"],
    }
    assert cleanup(workloads=workloads, receipts=[said], output=False)["paths"] == [A]


def test_a_receipt_of_another_namespace_is_left() -> None:
    # Earlier releases had one for all namespaces.
    said = receipt(A, "a", container={"namespace": "other"}, checkpoint={"digest": "sha256:1"})
    assert cleanup(receipts=[said], traces=[RECEIPTS, A])["paths"] == []
    assert cleanup(receipts=[said])["checkpoints"] == ["a:1", "b:1"]
    assert cleanup(receipts=[said], namespace="other")["checkpoints"] == ["sha256:1", "b:1"]
    for nobody in ({"container": None}, {"container": {}}, {}):
        assert cleanup(receipts=[receipt(A, "a", **nobody)])["paths"] == [A]


def test_a_base_image_that_was_never_used_goes_too() -> None:
    found = {"a": {"checkpoint": {"base_image": {"name": "base:1"}}}, "b": {"rc": 1}}
    assert cleanup(found=found)["images"] == ["a:1", "base:1", "b:1"]


def test_only_absolute_paths_are_output_files() -> None:
    workloads = [{**WORKLOADS[0], "stdout": "relative", "stderr": "/x"}, {**WORKLOADS[1], "stdout": None}]
    assert cleanup(workloads=workloads)["paths"] == ["/x"]


def test_names_that_differ_in_case_are_two() -> None:
    workloads = [{"name": "a", "checkpoint": "x/A:1"}, {"name": "b", "checkpoint": "x/a:1"}]
    assert cleanup(workloads=workloads)["images"] == ["x/A:1", "x/a:1"]
