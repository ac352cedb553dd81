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

from ansible_collections.gpuops.restore.plugins.module_utils._checkpoint import (
    on_node as checkpoint_on_node,
    reader,
    staged,
    staging,
)
from ansible_collections.gpuops.restore.plugins.module_utils._core import labels
from ansible_collections.gpuops.restore.plugins.module_utils._core.errors import InputError
from ansible_collections.gpuops.restore.plugins.module_utils._host import processes
from ansible_collections.gpuops.restore.plugins.module_utils._oci.facts import Facts
from ansible_collections.gpuops.restore.plugins.module_utils._transfer import pull as pull_step, servers
from ansible_collections.gpuops.restore.tests.unit.helpers.ansible_modules import Call
from ansible_collections.gpuops.restore.tests.unit.helpers.archive_samples import INDEX
from ansible_collections.gpuops.restore.tests.unit.helpers.containerd_node import Node
from ansible_collections.gpuops.restore.tests.unit.helpers.containerd_samples import (
    BASE_NAME,
    CHECKPOINT_NAME,
    CRIU_FILES,
    descriptor,
    plugin,
    record,
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
    for path in place.glob("*.json"):
        servers.stop(str(place), path.stem)


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


def test_one_that_offers_nothing_gives_way_to_another_on_its_port(
    call: Call, node: Node, store: Any, records: pathlib.Path
) -> None:
    """A run that was killed behind its question whether it is reached does not keep the next one from the port."""
    first = call(SERVE, **{**START, "checkpoints": []})
    second = call(SERVE, **{**START, "id": "two", "port": first["port"]})
    assert second["port"] == first["port"] and second["certificate"] != first["certificate"]
    assert [path.name for path in records.iterdir()] == ["two.json"]


@pytest.fixture
def on_node(fake: FakeContainerd, node: Node, tmp_path: pathlib.Path) -> dict[str, str]:
    """The checkpoint lives on the node: a list in place of its memory, which is staged. Where, for the modules."""
    images, state = tmp_path / "images", tmp_path / "state"
    images.mkdir()
    state.mkdir(mode=0o700)
    for name, data in CRIU_FILES.items():
        (images / name).write_bytes(data)
        os.utime(images / name, ns=(5, 1_600_000_000_000_000_007))
    files = {name: {"size": len(data), "mtime_ns": 1_600_000_000_000_000_007} for name, data in CRIU_FILES.items()}
    listed = json.dumps({"format": checkpoint_on_node.FORMAT, "files": files}).encode()
    total = str(sum(map(len, CRIU_FILES.values())))
    entry = descriptor(fake.state, reader.CRIU_FILES, listed, annotations={reader.BYTES_ANNOTATION: total})
    others = [child for child in node.checkpoint.document["manifests"] if child["mediaType"] != reader.CRIU]
    notes = {**node.checkpoint.document["annotations"], labels.FACTS: Facts(container="app").render()}
    document = {**node.checkpoint.document, "manifests": [entry, *others], "annotations": notes}
    digest = record(fake.state, CHECKPOINT_NAME, INDEX, document)
    whose = {"namespace": "tests", "container": "app"}
    key = digest.partition(":")[2]
    staging.adopt(str(images), digest=entry["digest"], size=int(total), root=str(state), name=key, only_copy_of=whose)
    return {"staging_dir": str(state), "digest": digest, "key": key}


def test_one_that_lives_on_its_node_comes_as_it_is(
    call: Call, fake: FakeContainerd, on_node: dict[str, str], store: Any, records: Any, tmp_path: pathlib.Path
) -> None:
    served = call(SERVE, **START, staging_dir=on_node["staging_dir"])
    assert served["checkpoints"][CHECKPOINT_NAME]["digest"] == on_node["digest"]
    before = {digest: blob.data for digest, blob in fake.state.blobs.items()}
    leave(fake)
    there = str(tmp_path / "there")
    pulled = pull(call, served, staging_dir=there)
    assert (pulled["changed"], pulled["digest"]) == (True, on_node["digest"])
    found = staged.find(there, on_node["key"])
    assert found is not None and staged.only_copy_of(there, on_node["key"]) == ("tests", "app")
    assert {path.name: path.read_bytes() for path in pathlib.Path(found.directory).iterdir()} == CRIU_FILES
    assert before.items() >= {digest: blob.data for digest, blob in fake.state.blobs.items()}.items()
    assert call(SERVE, **STOP)["changed"]
    # All of it is there, so nobody is asked; and it is asked again where the memory is gone.
    assert pull(call, served, staging_dir=there)["changed"] is False
    staging.remove(there, on_node["key"])
    assert pull(call, served, staging_dir=there)["failure"]["code"] == "registry_unreachable"


def test_its_memory_is_gone_where_it_gets_no_name(
    call: Call,
    fake: FakeContainerd,
    on_node: dict[str, str],
    store: Any,
    records: Any,
    tmp_path: pathlib.Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    served = call(SERVE, **START, staging_dir=on_node["staging_dir"])
    leave(fake)

    def refuse(*_arguments: Any) -> None:
        raise InputError("refused", "No.", "None.")

    monkeypatch.setattr(pull_step, "_create", refuse)
    there = tmp_path / "there"
    assert pull(call, served, staging_dir=str(there))["failure"]["code"] == "refused"
    assert not there.exists()


def test_its_memory_is_taken_from_the_very_server_only(
    call: Call, fake: FakeContainerd, on_node: dict[str, str], store: Any, records: Any, tmp_path: pathlib.Path
) -> None:
    """Who is trusted for another reason could send any memory under the digest."""
    served = call(SERVE, **START, staging_dir=on_node["staging_dir"])
    leave(fake)
    (tmp_path / "ca.pem").write_text(served["certificate"])
    there = tmp_path / "there"
    given = {
        "reference": served["checkpoints"][CHECKPOINT_NAME]["reference"],
        "token": TOKEN,
        "staging_dir": str(there),
    }
    answer = call(REGISTRY, state="pulled", name=CHECKPOINT_NAME, ca_file=str(tmp_path / "ca.pem"), **given)
    assert answer["failure"]["code"] == "checkpoint_on_node" and not there.exists()


def test_whose_memory_is_gone_is_not_offered(
    call: Call, on_node: dict[str, str], store: Any, records: pathlib.Path
) -> None:
    staging.remove(on_node["staging_dir"], on_node["key"])
    answer = call(SERVE, **START, staging_dir=on_node["staging_dir"])
    assert answer["failure"]["code"] == "node_checkpoint_gone" and not list(records.glob("*"))


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
    third = call(SERVE, **START)
    taken = call(SERVE, **{**START, "id": "two", "port": third["port"]})
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
