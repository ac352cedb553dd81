# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Checkpoints to a registry and back, on test doubles of containerd and of a registry that lies and breaks off."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest

from ansible_collections.gpuops.restore.plugins.module_utils._checkpoint import reader as checkpoint_reader
from ansible_collections.gpuops.restore.plugins.module_utils._containerd.client import Client
from ansible_collections.gpuops.restore.plugins.module_utils._core.errors import RETRYABLE, RestoreError
from ansible_collections.gpuops.restore.plugins.module_utils._registry import (
    reference as registry_reference,
    repository as registry_repository,
)
from ansible_collections.gpuops.restore.plugins.module_utils._registry.http import Settings, Transport
from ansible_collections.gpuops.restore.plugins.module_utils._transfer import (
    pull as transfer_pull,
    push as transfer_push,
    registry as transfer_registry,
    registry_manifest,
)
from ansible_collections.gpuops.restore.plugins.module_utils._transfer.registry import Credentials, RegistryParams
from ansible_collections.gpuops.restore.tests.unit.helpers.archive_samples import INDEX
from ansible_collections.gpuops.restore.tests.unit.helpers.containerd_samples import (
    BASE_NAME,
    CHECKPOINT_NAME,
    CRIU,
    LAYER,
    Sample,
    add_base,
    add_checkpoint,
    add_cri_reference,
    put,
    record,
)
from ansible_collections.gpuops.restore.tests.unit.helpers.fake_containerd import FakeContainerd
from ansible_collections.gpuops.restore.tests.unit.helpers.fake_registry import (
    FakeRegistry,
    Handler,
    digest_of,
)


@pytest.fixture
def sample(fake: FakeContainerd) -> Sample:
    return add_checkpoint(fake.state, base=add_base(fake.state))


@pytest.fixture
def waits() -> list[float]:
    """What would have been slept."""
    return []


@pytest.fixture
def work(client: Client, registry: FakeRegistry, waits: list[float]) -> Any:
    """``work(act, check=False, **wish)``."""

    def act(what: Any, check: bool = False, tag: str = "1", **more: Any) -> Any:
        reference = registry_reference.parse(f"{registry.host}/team/app:{tag}")
        transport = Transport(Settings(registry.url, Credentials(), "", timeout=5.0))
        repository = registry_repository.Repository(transport, reference, sleep=waits.append)
        return what.run(client, repository, RegistryParams(CHECKPOINT_NAME, reference, **more), check)

    return act


def push(work: Any, **more: Any) -> Any:
    return work(transfer_push, **more)


def pull(work: Any, **more: Any) -> Any:
    return work(transfer_pull, **{"tag_base": True, **more})


def empty(fake: FakeContainerd) -> dict[str, Any]:
    """Another node: nothing is there. Gives what was."""
    before = {digest: blob.data for digest, blob in fake.state.blobs.items()}
    fake.state.blobs.clear()
    fake.state.images.clear()
    fake.heal()
    return before


def refusal(act: Any, *arguments: Any, **more: Any) -> RestoreError:
    with pytest.raises(RestoreError) as caught:
        act(*arguments, **more)
    assert caught.value.remedy
    return caught.value


def refused_pull(fake: FakeContainerd, work: Any, **more: Any) -> RestoreError:
    """It fails, and what it made goes with its lease."""
    error = refusal(pull, work, **more)
    assert not fake.state.images and not fake.state.leases and not fake.state.ingests
    return error


def change(registry: FakeRegistry, **more: Any) -> dict[str, Any]:
    """The pushed manifest with these changes."""
    document: dict[str, Any] = json.loads(registry.manifests["1"])
    document.update(more)
    registry.manifests["1"] = json.dumps(document).encode()
    return document


# --- there and back


def test_there_and_back_nothing_is_lost(
    fake: FakeContainerd, registry: FakeRegistry, sample: Sample, work: Any, client: Client
) -> None:
    base = fake.state.images[BASE_NAME].target.digest
    predicted, pushed = push(work, check=True), push(work)
    assert (predicted.actions, predicted.transferred, predicted.after) == (
        pushed.actions,
        pushed.transferred,
        pushed.after,
    )
    assert pushed.changed and pushed.digest == sample.digest
    assert not push(work).changed and not push(work, check=True).changed
    before = empty(fake)
    predicted, pulled = pull(work, check=True), pull(work)
    assert (predicted.actions, predicted.transferred, predicted.after) == (
        pulled.actions,
        pulled.transferred,
        pulled.after,
    )
    assert {digest: blob.data for digest, blob in fake.state.blobs.items()} == before
    assert pulled.changed and pulled.digest == sample.digest and not pulled.warnings
    assert fake.state.images[CHECKPOINT_NAME].target.digest == sample.digest
    assert fake.state.images[BASE_NAME].target.digest == base
    assert not fake.state.leases
    assert not pull(work).changed and not pull(work, check=True).changed
    assert not push(work).changed
    index = fake.state.blobs[sample.digest]
    assert set(index.labels.values()) == {child["digest"] for child in sample.document["manifests"]}
    assert checkpoint_reader.load(client, CHECKPOINT_NAME).layout == "container"


def test_every_write_of_a_pull_is_under_its_lease(fake: FakeContainerd, sample: Sample, work: Any) -> None:
    push(work)
    empty(fake)
    pull(work)
    writes = [call.metadata for call in fake.seen if call.name in ("Content/Write", "Images/Create")]
    assert len(writes) > 8 and all(metadata.get("containerd-lease") for metadata in writes)


def test_the_manifest_is_an_ordinary_one(registry: FakeRegistry, sample: Sample, work: Any) -> None:
    push(work)
    document = json.loads(registry.manifests["1"])
    assert document["mediaType"] == "application/vnd.oci.image.manifest.v1+json" and "manifests" not in document
    assert document["artifactType"] == registry_manifest.ARTIFACT
    roles = {layer["digest"]: layer["annotations"][registry_manifest.ROLE] for layer in document["layers"]}
    assert (roles[sample.digest], roles[sample.parts[CRIU]], roles[sample.parts[LAYER]]) == (
        "index",
        "criu",
        "writable-layer",
    )
    assert sorted(roles.values())[:4] == ["base-config", "base-layer", "base-layer", "base-manifest"]
    # No layer is what a registry would look into.
    assert not [
        layer for layer in document["layers"] if "manifest" in layer["mediaType"] or "index" in layer["mediaType"]
    ]
    assert {layer["digest"] for layer in document["layers"]} | {document["config"]["digest"]} <= set(registry.blobs)


def test_the_layout_of_ctr_tasks_checkpoint(fake: FakeContainerd, work: Any, client: Client) -> None:
    add_checkpoint(fake.state, layout="task")
    push(work)
    empty(fake)
    pull(work)
    assert checkpoint_reader.load(client, CHECKPOINT_NAME).layout == "task"


def test_a_base_image_for_several_machines_of_which_one_is_here(fake: FakeContainerd, work: Any) -> None:
    base = add_base(fake.state)
    target = fake.state.images[BASE_NAME].target
    here = {"mediaType": target.media_type, "digest": target.digest, "size": target.size}
    there = {**here, "digest": "sha256:" + 64 * "b", "platform": {"os": "linux", "architecture": "s390x"}}
    top = record(fake.state, BASE_NAME, INDEX, {"schemaVersion": 2, "manifests": [there, here]})
    sample = add_checkpoint(fake.state, base=base)
    document = copy.deepcopy(sample.document)
    document["manifests"][-1] = {"mediaType": INDEX, "digest": top, "size": fake.state.images[BASE_NAME].target.size}
    digest = record(fake.state, CHECKPOINT_NAME, INDEX, document)
    del fake.state.blobs[sample.digest]
    push(work)
    before = empty(fake)
    assert pull(work).digest == digest
    assert {name: blob.data for name, blob in fake.state.blobs.items()} == before
    assert fake.state.images[BASE_NAME].target.digest == top
    assert list(fake.state.blobs[top].labels.values()) == [target.digest]


def test_without_the_base_image(fake: FakeContainerd, registry: FakeRegistry, sample: Sample, work: Any) -> None:
    full = push(work, tag="full")
    lean = push(work, base=False)
    assert (
        lean.transferred["blobs"] < full.transferred["blobs"] and lean.transferred["kept"] == lean.transferred["blobs"]
    )
    # What has it will do for both; what lacks it gets it.
    assert not push(work, tag="full", base=False).changed
    empty(fake)
    pulled = pull(work)
    assert "without its base image" in pulled.warnings[0] and BASE_NAME not in fake.state.images
    assert not pull(work).changed
    assert pull(work, tag="full").actions[-1].startswith("name the base image")
    assert push(work).changed and not push(work, tag="full").changed


def test_a_base_image_that_is_not_whole_here(fake: FakeContainerd, sample: Sample, work: Any) -> None:
    manifest = json.loads(fake.state.blobs[fake.state.images[BASE_NAME].target.digest].data)
    del fake.state.blobs[manifest["layers"][0]["digest"]]
    error = refusal(push, work)
    assert error.code == "blob_missing" and "base: false" in error.remedy
    assert push(work, base=False).changed


# --- conflicts


def test_a_tag_of_another_checkpoint(fake: FakeContainerd, registry: FakeRegistry, sample: Sample, work: Any) -> None:
    push(work)
    first = registry.manifests["1"]
    other = add_checkpoint(fake.state, annotations={"io.containerd.checkpoint.runtime": "other"})
    for check in (True, False):
        error = refusal(push, work, check=check)
        assert error.code == "registry_tag_taken" and sample.digest in error.message
    assert registry.manifests["1"] == first
    assert push(work, force=True).digest == other.digest
    assert refusal(pull, work, digest=sample.digest).code == "image_digest_mismatch"
    registry.manifests["1"] = b"something else"
    assert refusal(push, work).code == "registry_tag_taken"


def test_a_name_of_another_checkpoint(fake: FakeContainerd, sample: Sample, work: Any) -> None:
    push(work)
    other = add_checkpoint(fake.state, annotations={"io.containerd.checkpoint.runtime": "other"})
    assert refusal(pull, work).code == "image_other_digest"
    assert fake.state.images[CHECKPOINT_NAME].target.digest == other.digest
    moved = pull(work, force=True)
    assert moved.actions[-1].startswith(f"move {CHECKPOINT_NAME} from {other.digest}")
    assert fake.state.images[CHECKPOINT_NAME].target.digest == sample.digest


def test_a_pull_makes_no_tag_by_itself(fake: FakeContainerd, sample: Sample, work: Any) -> None:
    push(work)
    base = fake.state.images[BASE_NAME].target.digest
    empty(fake)
    pull(work, tag_base=False)
    assert set(fake.state.images) == {CHECKPOINT_NAME, f"{BASE_NAME.rpartition(':')[0]}@{base}"}
    assert not pull(work, tag_base=False).changed


def test_a_base_image_whose_name_is_taken(fake: FakeContainerd, sample: Sample, work: Any) -> None:
    push(work)
    empty(fake)
    other = add_base(fake.state, text=b" other")
    assert "gets no name" in pull(work).warnings[0]
    assert fake.state.images[BASE_NAME].target.digest == other.digest


@pytest.mark.parametrize("pushed", [True, False], ids=["comes", "comes-not"])
def test_a_base_image_that_only_cri_has_a_record_of_gets_its_name(
    fake: FakeContainerd, sample: Sample, work: Any, pushed: bool
) -> None:
    """CRI's record is no name: it goes when kubelet cleans up."""
    push(work, base=pushed)
    base = add_base(fake.state)
    reference = add_cri_reference(fake.state, base)
    del fake.state.images[BASE_NAME], fake.state.images[CHECKPOINT_NAME]
    pull(work)
    del fake.state.images[BASE_NAME]
    for digest in ("", sample.digest):
        predicted = pull(work, check=True, digest=digest)
        assert BASE_NAME not in fake.state.images
        done = pull(work, digest=digest)
        assert predicted.actions == done.actions and not done.warnings
        assert done.actions[-1] == f"name the base image {BASE_NAME} ({base.digest})"
        assert fake.state.images[BASE_NAME].target.digest == base.digest
        assert not pull(work, digest=digest).changed
        del fake.state.images[BASE_NAME]
    assert reference in fake.state.images and not fake.state.leases


def test_a_base_image_by_another_name_of_somebodys_needs_none(fake: FakeContainerd, sample: Sample, work: Any) -> None:
    push(work)
    base = add_base(fake.state, "example.test/same:1")
    add_cri_reference(fake.state, base)
    del fake.state.images[BASE_NAME]
    pull(work)
    assert not pull(work).changed
    assert BASE_NAME not in fake.state.images


def test_what_is_known_and_whole_is_not_asked_for(
    fake: FakeContainerd, registry: FakeRegistry, sample: Sample, work: Any
) -> None:
    registry.stop()
    assert not pull(work, digest=sample.digest).changed
    del fake.state.blobs[sample.parts[CRIU]]
    assert refusal(pull, work, digest=sample.digest).code == "registry_unreachable"


# --- a registry that is not there, or has not


def test_nothing_there(registry: FakeRegistry, sample: Sample, work: Any) -> None:
    assert refusal(pull, work).code == "registry_not_found"


def test_what_passes_is_tried_again(registry: FakeRegistry, sample: Sample, work: Any, waits: list[float]) -> None:
    registry.answer("GET", "/manifests/", 429, times=1, Retry_After="7")
    registry.answer("HEAD", "/blobs/", 503, times=1)
    registry.answer("PUT", "/manifests/", 500, times=1)
    assert push(work).changed
    assert waits == [7.0, 0.5, 0.5]
    registry.answer("GET", "/manifests/", 503, Retry_After="100000")
    error = refusal(push, work)
    assert (error.code, error.outcome) == ("registry_failed", RETRYABLE) and max(waits) == 30.0
    assert len(waits) == 7


@pytest.mark.parametrize(
    ("status", "code"), [(400, "registry_refused"), (403, "registry_denied"), (413, "registry_refused")]
)
def test_what_does_not_pass_is_not(
    registry: FakeRegistry, sample: Sample, work: Any, waits: list[float], status: int, code: str
) -> None:
    registry.answer("PUT", "/manifests/", status, body=b'{"errors": [{"code": "MANIFEST_INVALID", "message": "no"}]}')
    error = refusal(push, work)
    assert error.code == code and error.outcome == "terminal" and "MANIFEST_INVALID: no" in error.message
    assert not waits and not registry.manifests


# --- uploads


def break_off(handler: Handler, count: int) -> None:
    """Take a part of what comes, then be gone."""
    name = handler.path.rpartition("/")[2].partition("?")[0]
    handler.registry.uploads[name] += handler.take(count)


@pytest.mark.parametrize("knows", [True, False])
def test_an_upload_that_breaks_off_is_gone_on_with(
    fake: FakeContainerd, registry: FakeRegistry, work: Any, waits: list[float], knows: bool
) -> None:
    base = add_base(fake.state)
    large = bytes(range(256)) * (12 << 10)
    sample = add_checkpoint(fake.state, base=base)
    document = copy.deepcopy(sample.document)
    digest, size = put(fake.state, large)
    document["manifests"][0].update(digest=digest, size=size)
    record(fake.state, CHECKPOINT_NAME, INDEX, document)
    registry.knows_uploads = knows
    registry.on("PATCH", "upload1?", lambda handler: break_off(handler, 1 << 20), times=1)
    push(work)
    assert registry.blobs[digest] == large and not registry.uploads and len(waits) == 1
    again = [seen.headers for seen in registry.seen if seen.method == "PATCH"][2]
    assert again.get("Content-Range") == (f"{1 << 20}-{size - 1}" if knows else None)


def test_an_upload_that_is_there_in_spite_of_a_lost_answer(registry: FakeRegistry, sample: Sample, work: Any) -> None:
    def lose(handler: Handler) -> bool:
        if "digest" not in handler.path:
            return False
        name = handler.path.rpartition("/")[2].partition("?")[0]
        registry.put(bytes(registry.uploads.pop(name)))
        return True

    registry.on("PUT", "/uploads/", lose, times=1)
    push(work)
    assert registry.count("POST", "/uploads/") == len(registry.blobs)


def test_a_damaged_blob_is_not_uploaded(
    fake: FakeContainerd, registry: FakeRegistry, sample: Sample, work: Any
) -> None:
    blob = fake.state.blobs[sample.parts[CRIU]]
    blob.data = b"X" + blob.data[1:]
    assert refusal(push, work).code == "digest_mismatch"
    assert not registry.uploads and not registry.manifests and sample.parts[CRIU] not in registry.blobs
    assert digest_of(blob.data) not in registry.blobs


def test_a_blob_that_is_not_whole_is_not_uploaded(fake: FakeContainerd, sample: Sample, work: Any) -> None:
    blob = fake.state.blobs[sample.parts[CRIU]]
    blob.data = blob.data[:-1]
    assert refusal(push, work).code == "blob_missing"


@pytest.mark.parametrize("location", ["http://192.0.2.1/upload", "https://127.0.0.1/upload", "//192.0.2.1/x"])
def test_memory_is_not_uploaded_elsewhere(registry: FakeRegistry, sample: Sample, work: Any, location: str) -> None:
    registry.answer("POST", "/uploads/", 202, Location=location)
    assert refusal(push, work).code == "registry_redirect_refused"
    assert not registry.count("PATCH", "")


def test_uploads_are_not_redirected(registry: FakeRegistry, sample: Sample, work: Any) -> None:
    registry.answer("PATCH", "/uploads/", 307, times=1, Location="/v2/team/app/blobs/uploads/upload0?state=2")
    assert refusal(push, work).code == "registry_redirect_refused"
    assert registry.count("PATCH", "") == 1
    registry.answer("POST", "/uploads/", 202)
    assert refusal(push, work).code == "registry_answer_invalid"


# --- downloads from a registry that lies


def test_a_download_that_breaks_off_is_gone_on_with(
    fake: FakeContainerd, registry: FakeRegistry, sample: Sample, work: Any, waits: list[float]
) -> None:
    push(work)
    data = registry.blobs[sample.parts[CRIU]]

    def part(handler: Handler) -> None:
        handler.reply(200, data[:1000], Content_Length=str(len(data)))

    def without_range(handler: Handler) -> None:
        handler.reply(200, data)

    registry.on("GET", sample.parts[CRIU], part, times=1)
    before = empty(fake)
    pull(work)
    ranges = [
        seen.headers.get("Range") for seen in registry.seen if seen.method == "GET" and sample.parts[CRIU] in seen.path
    ]
    assert ranges == [None, "bytes=1000-"] and len(waits) == 1
    empty(fake)
    registry.on("GET", sample.parts[CRIU], part, times=1)
    registry.on("GET", sample.parts[CRIU], without_range, times=1)
    pull(work)
    assert {digest: blob.data for digest, blob in fake.state.blobs.items()} == before


def test_a_download_that_never_comes_to_its_end(
    fake: FakeContainerd, registry: FakeRegistry, sample: Sample, work: Any, waits: list[float]
) -> None:
    push(work)
    empty(fake)
    size = len(registry.blobs[sample.parts[CRIU]])
    registry.answer("GET", sample.parts[CRIU], 206, Content_Length=str(size), Content_Range="bytes 0-9/10")
    error = refused_pull(fake, work)
    assert (error.code, error.outcome, len(waits)) == ("registry_unreachable", RETRYABLE, 4)


@pytest.mark.parametrize("role", ["criu", "index"])
@pytest.mark.parametrize(
    ("lie", "code"),
    [
        (lambda data: b"X" + data[1:], "digest_mismatch"),
        (lambda data: data + b"X", "size_mismatch"),
        (lambda data: data[:-1], "size_mismatch"),
        (lambda _data: None, "registry_blob_missing"),
    ],
)
def test_other_bytes_than_were_declared(
    fake: FakeContainerd, registry: FakeRegistry, sample: Sample, work: Any, role: str, lie: Any, code: str
) -> None:
    push(work)
    empty(fake)
    digest = sample.parts[CRIU] if role == "criu" else sample.digest
    changed = lie(registry.blobs.pop(digest))
    if changed is not None:
        registry.blobs[digest] = changed
    assert refused_pull(fake, work).code == code


def test_more_bytes_than_announced_by_a_stream(
    fake: FakeContainerd, registry: FakeRegistry, sample: Sample, work: Any
) -> None:
    push(work)
    empty(fake)

    def endless(handler: Handler) -> None:
        handler.send_response(200)
        handler.end_headers()
        for _count in range(64):
            handler.wfile.write(bytes(1 << 20))

    registry.on("GET", sample.parts[CRIU], endless)
    assert refused_pull(fake, work).code == "size_mismatch"


def test_a_manifest_without_an_end(fake: FakeContainerd, registry: FakeRegistry, work: Any) -> None:
    registry.manifests["1"] = b" " * ((4 << 20) + 1)
    assert refused_pull(fake, work).code == "manifest_too_large"


def test_a_manifest_that_is_not_the_one_asked_for(
    fake: FakeContainerd, registry: FakeRegistry, sample: Sample, work: Any
) -> None:
    push(work)
    empty(fake)
    data = registry.manifests["1"]
    registry.answer("GET", "/manifests/", 200, body=data + b" ", Docker_Content_Digest=digest_of(data))
    assert refused_pull(fake, work).code == "digest_mismatch"
    assert refused_pull(fake, work, tag=f"1@{digest_of(data)}").code == "digest_mismatch"


@pytest.mark.parametrize(
    ("change_to", "code"),
    [
        ({"artifactType": "application/vnd.else"}, "registry_not_a_checkpoint"),
        (
            {"artifactType": "", "annotations": {"org.criu.checkpoint.container.name": "a"}},
            "checkpoint_of_another_tool",
        ),
        ({"mediaType": INDEX}, "registry_not_a_checkpoint"),
        ({"manifests": []}, "registry_not_a_checkpoint"),
        ({"layers": []}, "registry_not_a_checkpoint"),
        ({"layers": {}}, "manifest_invalid"),
        ({"layers": [7]}, "descriptor_invalid"),
        ({"layers": [{"mediaType": "x", "digest": "sha256:../../x", "size": 1}]}, "digest_invalid"),
        ({"layers": [{"mediaType": "x", "digest": "sha256:" + 64 * "a", "size": 1 << 60}]}, "descriptor_invalid"),
        ({"layers": [{"mediaType": "x", "digest": "sha256:" + 64 * "a", "size": 1}] * 10001}, "too_many_blobs"),
    ],
)
def test_manifests_that_are_none(
    fake: FakeContainerd, registry: FakeRegistry, sample: Sample, work: Any, change_to: dict[str, Any], code: str
) -> None:
    push(work)
    empty(fake)
    change(registry, **change_to)
    assert refused_pull(fake, work).code == code
    assert not registry.count("GET", "/blobs/")


def test_a_part_that_the_manifest_does_not_offer(
    fake: FakeContainerd, registry: FakeRegistry, sample: Sample, work: Any
) -> None:
    push(work)
    empty(fake)
    layers = json.loads(registry.manifests["1"])["layers"]
    change(registry, layers=[layer for layer in layers if layer["digest"] != sample.parts[CRIU]])
    assert refused_pull(fake, work).code == "blob_missing"
    # The same blob with another size is not what the index names either.
    change(
        registry,
        layers=[{**layer, "size": layer["size"] + (layer["digest"] == sample.parts[CRIU])} for layer in layers],
    )
    assert refused_pull(fake, work).code == "blob_missing"


def test_an_index_that_claims_to_be_huge(
    fake: FakeContainerd, registry: FakeRegistry, sample: Sample, work: Any
) -> None:
    push(work)
    empty(fake)
    layers = json.loads(registry.manifests["1"])["layers"]
    layers[0]["size"] = 9 << 20
    change(registry, layers=layers)
    assert refused_pull(fake, work).code == "manifest_too_large"
    assert not registry.count("GET", "/blobs/")


def test_memory_that_claims_to_be_huge(fake: FakeContainerd, registry: FakeRegistry, work: Any) -> None:
    index = {"mediaType": CRIU, "digest": "sha256:" + 64 * "c", "size": 1 << 49}
    data = json.dumps({"schemaVersion": 2, "manifests": [index]}).encode()
    layer = {
        "mediaType": registry_manifest.DOCUMENT,
        "digest": registry.put(data),
        "size": len(data),
        "annotations": {registry_manifest.ROLE: "index", registry_manifest.MEDIA_TYPE: INDEX},
    }
    document = {"schemaVersion": 2, "artifactType": registry_manifest.ARTIFACT, "layers": [layer, index]}
    registry.manifests["1"] = json.dumps(document).encode()
    error = refused_pull(fake, work)
    assert (error.code, error.outcome) == ("content_no_space", RETRYABLE)
    assert registry.count("GET", "/blobs/") == 1


def test_whatever_call_fails_nothing_is_left(fake: FakeContainerd, sample: Sample, work: Any) -> None:
    """Each call of a pull fails once; afterwards there is neither a record nor a lease, but for the deletion's own."""
    push(work)
    blobs = empty(fake)
    pull(work)
    names = fake.names()
    assert len(names) > 20 and blobs
    for position, name in enumerate(names):
        empty(fake)
        fake.fail_call(position)
        if name in ("Leases/Delete", "Content/Abort"):
            continue  # best effort: the lease expires
        with pytest.raises(RestoreError) as caught:
            pull(work)
        assert caught.value.code == "rpc_failed", name
        fake.heal()
        assert not fake.state.images and not fake.state.leases and not fake.state.ingests, name


def test_options_become_a_repository() -> None:
    reference = registry_reference.parse("registry.test/team/app:1")
    access = transfer_registry.Access(username="trainer", password="correct horse")
    assert "correct horse" not in repr(access)
    for wanted, scope in (("pushed", "pull,push"), ("pulled", "pull"), ("absent", "pull,push,delete")):
        repository = transfer_registry.open_repository(reference, access, wanted)
        settings = repository._transport.settings
        assert settings.scope == f"repository:team/app:{scope}" and settings.server == "https://registry.test"
        assert "correct horse" not in repr(settings)


# --- away again


def untag(work: Any, check: bool = False, **more: Any) -> Any:
    class Absent:
        @staticmethod
        def run(_client: Client, repository: Any, params: RegistryParams, check: bool) -> Any:
            return transfer_push.absent(repository, params, check)

    return work(Absent, check, **more)


def test_a_tag_goes_and_no_other(registry: FakeRegistry, sample: Sample, work: Any) -> None:
    push(work)
    push(work, tag="2")
    predicted = untag(work, True, digest=sample.digest)
    assert "1" in registry.manifests
    done = untag(work, digest=sample.digest)
    assert (done.changed, done.actions, done.before, done.after) == (True, predicted.actions, predicted.before, {})
    # Both stood for the same manifest.
    assert list(registry.manifests) == ["2"]
    assert not untag(work, digest=sample.digest).changed
    assert untag(work, tag="2").changed


def test_a_tag_that_stands_for_something_else_stays(registry: FakeRegistry, sample: Sample, work: Any) -> None:
    push(work)
    error = refusal(untag, work, digest="sha256:" + "0" * 64)
    assert (error.code, error.details["found"]) == ("registry_tag_taken", sample.digest)
    registry.manifests["2"] = b"{}"
    assert refusal(untag, work, tag="2", digest=sample.digest).code == "registry_tag_taken"
    assert sorted(registry.manifests) == ["1", "2"]
    assert untag(work, tag="2", digest=sample.digest, force=True).changed


@pytest.mark.parametrize("status", [400, 405])
def test_a_registry_that_deletes_no_tags_is_told(
    registry: FakeRegistry, sample: Sample, work: Any, status: int
) -> None:
    push(work)
    registry.answer("DELETE", "/manifests/1", status)
    error = refusal(untag, work, digest=sample.digest)
    assert error.code == "registry_delete_unsupported"
    assert "1" in registry.manifests
