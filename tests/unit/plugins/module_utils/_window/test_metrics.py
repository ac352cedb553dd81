# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The file for node_exporter: what is told of captures, restores and failures, and how it is written."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.gpuops.restore.plugins.module_utils._containerd.client import Client
from ansible_collections.gpuops.restore.plugins.module_utils._core.errors import NodeError
from ansible_collections.gpuops.restore.plugins.module_utils._restore import records
from ansible_collections.gpuops.restore.plugins.module_utils._window import metrics
from ansible_collections.gpuops.restore.tests.unit.helpers import capture_samples
from ansible_collections.gpuops.restore.tests.unit.helpers.capture_samples import BOX, Box
from ansible_collections.gpuops.restore.tests.unit.helpers.containerd_node import Node

process = pytest.fixture(capture_samples.process)

#: 2026-11-24T05:31:31Z, as ``date -d ... +%s`` has it.
MOMENT = 1795498291


def receipt(name: str = "training", namespace: str = "k8s.io", **other: Any) -> dict[str, Any]:
    return {
        "name": name,
        "finished_at": "2026-11-24T05:31:31Z",
        "container": {"id": name, "namespace": namespace},
        "seconds": {"window": 4.15, "total": 9.5},
        "gpu": {"bytes": 17679253504},
        **other,
    }


def failed(root: Path, bundle: str, moment: str, code: str = "criu_restore_failed") -> None:
    (root / "debug" / bundle).mkdir(parents=True)
    document = {"failed_at": moment, "failure": {"code": code, "outcome": "terminal"}}
    (root / "debug" / bundle / "failure.json").write_text(json.dumps(document))


def values(text: str) -> dict[str, float]:
    """The samples; comments are checked by their number: two for each metric."""
    lines = text.splitlines()
    samples = dict(line.rsplit(" ", 1) for line in lines if not line.startswith("#"))
    assert len(lines) - len(samples) == 2 * len({name.partition("{")[0] for name in samples})
    return {name: float(value) for name, value in samples.items()}


def test_a_restore(client: Client, tmp_path: Path) -> None:
    records.write_receipt(str(tmp_path), "k8s.io", "training", receipt())
    records.write_receipt(str(tmp_path), "prod", "training", receipt(namespace="prod", gpu=None))
    found = values(metrics.gather(client, str(tmp_path)))
    ours, other = '{namespace="k8s.io",workload="training"}', '{namespace="prod",workload="training"}'
    assert found[f"gpuops_restore_timestamp_seconds{ours}"] == MOMENT
    assert found[f"gpuops_restore_outage_seconds{ours}"] == 4.15
    assert found[f"gpuops_restore_seconds{ours}"] == 9.5
    assert found[f"gpuops_restore_gpu_bytes{ours}"] == 17679253504
    assert found[f"gpuops_restore_seconds{other}"] == 9.5
    assert f"gpuops_restore_gpu_bytes{other}" not in found


@pytest.mark.parametrize("text", ["", "[]", "{", '{"name": "training", "finished_at": "yesterday"}'])
def test_a_receipt_that_cannot_be_read_is_none(client: Client, tmp_path: Path, text: str) -> None:
    (tmp_path / "receipts").mkdir()
    (tmp_path / "receipts" / "training.json").write_text(text)
    assert "gpuops_restore" not in metrics.gather(client, str(tmp_path))


def test_failures_are_counted_and_the_last_one_is_told(client: Client, tmp_path: Path) -> None:
    failed(tmp_path, "training-20261124T053100Z", "2026-11-24T05:31:00Z", "image_absent")
    failed(tmp_path, "training-20261124T053131Z", "2026-11-24T05:31:31Z")
    failed(tmp_path, "prod--a-b-20261124T053131Z", "2026-11-24T05:31:31Z")
    (tmp_path / "debug" / "training-20261124T053200Z").mkdir()
    (tmp_path / "debug" / "not-ours").mkdir()
    found = values(metrics.gather(client, str(tmp_path)))
    assert found['gpuops_failures{namespace="k8s.io",workload="training"}'] == 3
    assert found['gpuops_failures{namespace="prod",workload="a-b"}'] == 1
    last = {name: value for name, value in found.items() if name.startswith("gpuops_failure_timestamp_seconds{")}
    why = 'code="criu_restore_failed",outcome="terminal"'
    assert last == {
        f'gpuops_failure_timestamp_seconds{{namespace="k8s.io",workload="training",{why}}}': MOMENT,
        f'gpuops_failure_timestamp_seconds{{namespace="prod",workload="a-b",{why}}}': MOMENT,
    }


def test_the_newest_capture_of_a_workload_is_told(
    fake: Any, client: Client, node: Node, tmp_path: Path, process: int
) -> None:
    box = Box(fake, client, node, tmp_path, process)
    count = f'gpuops_checkpoints{{namespace="{client.namespace}"}}'
    before = values(metrics.gather(client, str(tmp_path / "none")))[count]
    box.capture()
    found = values(metrics.gather(client, str(tmp_path / "none")))
    labels = f'{{namespace="{client.namespace}",workload="{BOX}"}}'
    assert found[f"gpuops_capture_timestamp_seconds{labels}"] > 1_700_000_000
    assert found[f"gpuops_capture_bytes{labels}"] > 0
    assert found[count] == before + 1


def checkpoint(container: str, moment: str, digest: str, here: bool = True, size: int = 1) -> dict[str, Any]:
    return {"container": container, "taken_at": moment, "digest": digest, "captured_here": here, "size": size}


def test_captures_of_others_and_older_ones_do_not_count(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    there = [
        checkpoint("one", "2026-11-24T05:31:31Z", "b", size=2),
        checkpoint("one", "2026-11-23T05:31:31Z", "a"),
        checkpoint("one", "2026-11-25T05:31:31Z", "c", here=False),
        checkpoint("one", "2026-11-24T05:31:31Z", "b", size=2),
        checkpoint("two", "", "d"),
    ]
    monkeypatch.setattr(metrics.look, "checkpoints", lambda _client: there)
    labels = f'{{namespace="{client.namespace}",workload="one"}}'
    assert values(metrics.gather(client, "/nowhere")) == {
        f"gpuops_capture_timestamp_seconds{labels}": MOMENT,
        f"gpuops_capture_bytes{labels}": 2,
        f'gpuops_checkpoints{{namespace="{client.namespace}"}}': 3,
    }


def test_values_of_labels_are_quoted() -> None:
    text = metrics.text([("gpuops_failures", {"workload": 'a"b\\c\nd'}, 1.0)])
    assert text.splitlines()[-1] == 'gpuops_failures{workload="a\\"b\\\\c\\nd"} 1'


def test_the_file_is_written_once_and_removed_once(tmp_path: Path) -> None:
    path = tmp_path / "gpuops.prom"
    assert metrics.present(str(path), "one\n", check=True) and not path.exists()
    assert metrics.present(str(path), "one\n", check=False)
    assert path.read_text() == "one\n" and path.stat().st_mode & 0o777 == 0o644
    assert not metrics.present(str(path), "one\n", check=False)
    assert metrics.present(str(path), "two\n", check=False)
    assert os.listdir(tmp_path) == ["gpuops.prom"]
    assert metrics.absent(str(path), check=True) and path.exists()
    assert metrics.absent(str(path), check=False)
    assert not metrics.absent(str(path), check=False)


def test_a_link_is_replaced_and_not_followed(tmp_path: Path) -> None:
    target, path = tmp_path / "target", tmp_path / "gpuops.prom"
    target.write_text("another's")
    path.symlink_to(target)
    assert metrics.present(str(path), "ours\n", check=False)
    assert target.read_text() == "another's" and not path.is_symlink() and path.read_text() == "ours\n"


@pytest.mark.parametrize("check", [True, False])
def test_a_directory_in_its_place_is_refused(tmp_path: Path, check: bool) -> None:
    (tmp_path / "gpuops.prom").mkdir()
    with pytest.raises(NodeError) as caught:
        metrics.present(str(tmp_path / "gpuops.prom"), "ours\n", check)
    assert caught.value.code == "metrics_unwritable"


@pytest.mark.parametrize("check", [True, False])
def test_a_directory_that_is_not_there_is_said(tmp_path: Path, check: bool) -> None:
    with pytest.raises(NodeError, match="No such file or directory") as caught:
        metrics.present(str(tmp_path / "absent" / "gpuops.prom"), "ours\n", check)
    assert caught.value.code == "metrics_unwritable"
