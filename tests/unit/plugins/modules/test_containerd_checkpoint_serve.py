# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A checkpoint from one node to another: a server process on a content store of files, asked by our own client."""

from __future__ import annotations

import json
import os
import pathlib
import signal
import ssl
import stat
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from typing import Any

import pytest

from ansible_collections.gpuops.restore.plugins.module_utils._host import processes
from ansible_collections.gpuops.restore.plugins.module_utils._transfer import servers
from ansible_collections.gpuops.restore.tests.unit.helpers.ansible_modules import Call
from ansible_collections.gpuops.restore.tests.unit.helpers.containerd_node import Node
from ansible_collections.gpuops.restore.tests.unit.helpers.containerd_samples import (
    BASE_NAME,
    CHECKPOINT_NAME,
    plugin,
)
from ansible_collections.gpuops.restore.tests.unit.helpers.fake_containerd import FakeContainerd

SERVE, REGISTRY = "containerd_checkpoint_serve", "containerd_checkpoint_registry"
TOKEN = "of-this-run-" + "x" * 20
START = {
    "state": "started",
    "id": "one",
    "checkpoints": [CHECKPOINT_NAME],
    "hosts": ["127.0.0.1"],
    "clients": ["127.0.0.1"],
    "listen": "127.0.0.1",
    "token": TOKEN,
}
STOP = {"state": "stopped", "id": "one"}


@pytest.fixture
def records(monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path) -> Iterator[pathlib.Path]:
    """Where the records lie. Nothing serves on when the test has ended."""
    place = tmp_path / "run" / "serve"
    monkeypatch.setattr(servers, "root", lambda: str(place))
    yield place
    for record in place.glob("*.json"):
        servers.stop(str(place), record.stem)


@pytest.fixture
def store(fake: FakeContainerd, node: Node, tmp_path: pathlib.Path) -> pathlib.Path:
    """The content store as files, where containerd says that it is."""
    blobs = tmp_path / "content" / "blobs" / "sha256"
    blobs.mkdir(parents=True)
    for digest, blob in fake.state.blobs.items():
        (blobs / digest.partition(":")[2]).write_bytes(blob.data)
    kept = [entry for entry in fake.state.plugins if entry.type != "io.containerd.content.v1"]
    fake.state.plugins[:] = [*kept, plugin("io.containerd.content.v1", "content", root=str(tmp_path / "content"))]
    return blobs


def leave(fake: FakeContainerd) -> None:
    """Another node: nothing is there."""
    fake.state.blobs.clear()
    fake.state.images.clear()


def pull(call: Call, served: dict[str, Any], **more: Any) -> dict[str, Any]:
    found = served["checkpoints"][CHECKPOINT_NAME]
    given = {"reference": found["reference"], "certificate": served["certificate"], "token": TOKEN, **more}
    return call(REGISTRY, state="pulled", name=CHECKPOINT_NAME, digest=found["digest"], **given)


def asked(served: dict[str, Any], path: str, method: str = "GET", token: str = TOKEN, **headers: str) -> Any:
    """The status and the body."""
    url = f"https://127.0.0.1:{served['port']}{path}"
    request = urllib.request.Request(url, method=method, headers={"Authorization": f"Bearer {token}", **headers})
    context = ssl.create_default_context(cadata=served["certificate"])
    try:
        with urllib.request.urlopen(request, context=context, timeout=20) as response:
            return response.status, response.read()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read()


def test_there_and_gone(call: Call, fake: FakeContainerd, node: Node, store: Any, records: pathlib.Path) -> None:
    predicted = call(SERVE, True, **START)
    assert (predicted["changed"], predicted["port"], records.exists()) == (True, None, False)
    served = call(SERVE, **START)
    assert (served["changed"], served["actions"]) == (True, predicted["actions"])
    record = records / "one.json"
    assert stat.S_IMODE(record.stat().st_mode) == 0o600 and TOKEN not in record.read_text() + json.dumps(served)
    assert "PRIVATE KEY" not in record.read_text() + json.dumps(served)
    again = call(SERVE, **START)
    assert (again["changed"], again["port"], again["certificate"]) == (False, served["port"], served["certificate"])

    before = {digest: blob.data for digest, blob in fake.state.blobs.items()}
    leave(fake)
    # What was collected meanwhile is served all the same.
    for blob in store.iterdir():
        blob.unlink()
    pulled = pull(call, served)
    assert (pulled["changed"], pulled["digest"]) == (True, node.checkpoint.digest)
    assert before.items() >= {digest: blob.data for digest, blob in fake.state.blobs.items()}.items()
    assert {node.checkpoint.digest, node.base.digest} <= set(fake.state.blobs)
    assert CHECKPOINT_NAME in fake.state.images

    assert [call(SERVE, True, **STOP)["changed"], call(SERVE, **STOP)["changed"]] == [True, True]
    assert [call(SERVE, True, **STOP)["changed"], call(SERVE, **STOP)["changed"]] == [False, False]
    assert list(records.iterdir()) == []
    with pytest.raises(urllib.error.URLError, match="refused"):
        asked(served, "/v2/")


def test_the_base_image_stays_behind_where_it_is_not_wanted(
    call: Call, fake: FakeContainerd, node: Node, store: Any, records: Any
) -> None:
    served = call(SERVE, **{**START, "base": False})
    leave(fake)
    assert "comes without its base image" in pull(call, served)["warnings"][0]
    assert node.base.digest not in fake.state.blobs and BASE_NAME not in fake.state.images


def test_nothing_else_and_to_nobody_else(
    call: Call, fake: FakeContainerd, node: Node, store: Any, records: Any
) -> None:
    served = call(SERVE, **START)
    blob = f"/v2/checkpoint/blobs/{node.checkpoint.digest}"
    data = fake.state.blobs[node.checkpoint.digest].data
    assert asked(served, blob) == (200, data)
    assert asked(served, blob, "HEAD") == (200, b"")
    assert asked(served, blob, Range="bytes=7-") == (206, data[7:])
    assert asked(served, blob, Range=f"bytes={len(data)}-")[0] == 416
    for path in (
        "/",
        "/v2/checkpoint/manifests/latest",
        "/v2/checkpoint/blobs/../../../../../etc/passwd",
        "//etc/passwd",
    ):
        assert asked(served, path)[0] == 404
    for token in ("", TOKEN[:-1], TOKEN + "x"):
        assert asked(served, blob, token=token) == (401, b"")
        assert asked(served, "/anything", token=token) == (401, b"")
    assert asked(served, blob, "PUT")[0] == asked(served, blob, "DELETE")[0] == 501
    other = call(SERVE, **{**START, "id": "two"})
    leave(fake)
    assert pull(call, served, token="another" * 5)["failure"]["code"] == "registry_denied"
    assert pull(call, served, certificate=other["certificate"])["failure"]["code"] == "registry_tls"
    assert pull(call, served, certificate="none")["failure"]["code"] == "registry_certificate_invalid"
    assert not fake.state.images


def test_only_where_it_was_made_for(call: Call, node: Node, store: Any, records: Any) -> None:
    served = call(SERVE, **{**START, "clients": ["192.0.2.0/24"]})
    with pytest.raises(OSError, match=".+"):
        asked(served, "/v2/")
    elsewhere = call(SERVE, **{**START, "hosts": ["other.example"], "clients": []})
    assert elsewhere["changed"] and elsewhere["checkpoints"][CHECKPOINT_NAME]["reference"].startswith("other.example:")
    with pytest.raises(urllib.error.URLError, match="mismatch"):
        asked(elsewhere, "/v2/")


def test_another_wish_is_another_server(call: Call, node: Node, store: Any, records: pathlib.Path) -> None:
    first = call(SERVE, **START)
    second = call(SERVE, **{**START, "token": TOKEN + "2", "checkpoints": []})
    assert second["changed"] and second["certificate"] != first["certificate"]
    assert asked(second, "/v2/", token=TOKEN + "2") == (200, b"")
    assert [path.name for path in records.iterdir()] == ["one.json"]
    taken = call(SERVE, **{**START, "id": "two", "port": second["port"]})
    assert (taken["failure"]["code"], taken["failure"]["outcome"]) == ("serve_failed", "retryable")
    assert [path.name for path in records.iterdir()] == ["one.json"]


def test_one_that_was_killed_leaves_nothing_for_long(call: Call, node: Node, store: Any, records: pathlib.Path) -> None:
    call(SERVE, **START)
    found = servers.find(str(records), "one")
    assert found is not None
    os.kill(int(found.process.split("/")[1]), signal.SIGKILL)
    while servers.find(str(records), "one") is not None:
        time.sleep(0.01)
    assert call(SERVE, **STOP)["changed"] is False
    assert list(records.iterdir()) == []


def test_one_whose_starter_does_not_live_to_note_it_does_not_begin(
    call: Call, node: Node, store: Any, records: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun: list[servers.Running] = []

    def fail(_path: str, running: servers.Running) -> None:
        begun.append(running)
        raise OSError("the disk is full")

    monkeypatch.setattr(servers, "_write", fail)
    assert call(SERVE, **START)["failed"]
    while processes.lives(begun[0].process):
        time.sleep(0.01)
    assert list(records.iterdir()) == []


def test_it_ends_by_itself(call: Call, node: Node, store: Any, records: pathlib.Path) -> None:
    call(SERVE, **{**START, "idle": 0.1})
    # However long that takes: nothing but itself removes its record.
    while list(records.iterdir()):
        time.sleep(0.01)
    assert call(SERVE, **STOP)["changed"] is False


@pytest.mark.parametrize(
    ("wrong", "code"),
    [
        ({"token": "short"}, "serve_token_short"),
        ({"id": "../one"}, "serve_id_invalid"),
        ({"port": 70000}, "serve_port_invalid"),
        ({"hosts": ["a b"]}, "serve_host_invalid"),
        ({"clients": ["nobody.invalid"]}, "serve_client_unknown"),
        ({"checkpoints": ["no/such:1"]}, "checkpoint_absent"),
    ],
)
def test_what_cannot_be_served(
    call: Call, node: Node, store: Any, records: pathlib.Path, wrong: dict[str, Any], code: str
) -> None:
    assert call(SERVE, **{**START, **wrong})["failure"]["code"] == code
    assert not records.exists() or list(records.iterdir()) == []


def test_a_store_that_is_none_of_files(call: Call, node: Node, store: pathlib.Path, records: pathlib.Path) -> None:
    for blob in store.iterdir():
        blob.unlink()
    assert call(SERVE, **START)["failure"]["code"] == "serve_store_unknown"
