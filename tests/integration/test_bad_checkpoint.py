# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Bad input: checkpoint images that are none, that lack parts, or whose blobs are damaged."""

from __future__ import annotations

import json
from typing import Any, Callable

import make_images
import pytest
from bad_input import CODES, Refuses
from gpuops_lab import image, workload
from gpuops_lab.config import Node
from make_images import Parts, imported

REF = "gpuops.test/checkpoint:1"
STAGE, CONTAINER, INFO = "containerd_checkpoint_stage", "containerd_container", "containerd_checkpoint_info"
BASE_NAME = "org.opencontainers.image.ref.name"
RunModule = Callable[..., dict[str, Any]]


@pytest.fixture(scope="module", autouse=True)
def good(node: Node) -> Parts:
    return make_images.good(node, REF)


@pytest.fixture
def refuses(expect_failure: RunModule, unchanged: Callable[..., Any]) -> Refuses:
    return Refuses(expect_failure, unchanged)


def call(name: str, reference: str) -> tuple[str, dict[str, Any]]:
    """A call of the module for that checkpoint."""
    return name, {"checkpoint": reference, **({} if name == STAGE else {"container_id": "x"})}


def problem_codes(run_module: RunModule, reference: str) -> list[str]:
    """What the preflight says about it."""
    return [problem["code"] for problem in run_module(*call(INFO, reference))["problems"]]


@pytest.mark.parametrize("name", [STAGE, CONTAINER])
def test_namespace_without_the_image(refuses: Refuses, name: str) -> None:
    name, params = call(name, REF)
    refuses(name, {**params, "namespace": "elsewhere"}, "namespace without the image", REF, "elsewhere")


@pytest.mark.parametrize("name", [STAGE, CONTAINER])
def test_image_that_is_no_checkpoint(refuses: Refuses, run_module: RunModule, name: str) -> None:
    refuses(*call(name, image.REFERENCE), "image that is no checkpoint", image.REFERENCE)
    assert problem_codes(run_module, image.REFERENCE) == ["not_a_checkpoint"]


def test_index_that_is_no_checkpoint(node: Node, refuses: Refuses, good: Parts) -> None:
    with imported(node, good.ordinary()) as reference:
        refuses(*call(STAGE, reference), "image that is no checkpoint", reference)


@pytest.mark.parametrize("name", [STAGE, CONTAINER])
def test_index_without_criu_images(node: Node, refuses: Refuses, run_module: RunModule, good: Parts, name: str) -> None:
    with imported(node, good.without("criu")) as reference:
        refuses(*call(name, reference), "index without CRIU images", reference)
        assert problem_codes(run_module, reference) == ["checkpoint_without_criu"]


def test_index_without_spec_gets_a_generated_one(
    node: Node, unchanged: Callable[..., Any], run_module: RunModule, good: Parts
) -> None:
    with imported(node, good.without("spec")) as reference, unchanged():
        predicted = run_module(*call(CONTAINER, reference), check=True)
        made = run_module(*call(CONTAINER, reference))
        assert made["created"] and predicted["created"]
        assert predicted["container"] == made["container"]
        assert made["container"]["spec_source"] == "generated"
        run_module(CONTAINER, {"container_id": "x", "state": "absent"})


def test_index_without_spec_and_base_image(node: Node, refuses: Refuses, run_module: RunModule, good: Parts) -> None:
    gone = "gpuops.test/gone:1"
    with imported(node, good.without("spec", "base").noted(**{BASE_NAME: gone})) as reference:
        refuses(*call(CONTAINER, reference), "base image absent", gone)
        assert problem_codes(run_module, reference) == ["base_image_absent"]


def test_index_without_writable_layer_only_warns(
    node: Node, unchanged: Callable[..., Any], run_module: RunModule, good: Parts
) -> None:
    with imported(node, good.without("layer")) as reference, unchanged():
        for check in (True, False):
            made = run_module(*call(CONTAINER, reference), check=check)
            assert made["created"]
            assert "has no writable layer" in json.dumps(made["warnings"])
        run_module(CONTAINER, {"container_id": "x", "state": "absent"})


#: What reads the part, and whether it does so in check mode too.
READERS = {"criu": (STAGE, False), "spec": (CONTAINER, True), "layer": (CONTAINER, False)}


@pytest.mark.parametrize("kind", READERS)
def test_blob_missing(node: Node, refuses: Refuses, run_module: RunModule, good: Parts, kind: str) -> None:
    lacking = good.lacking(kind)
    with imported(node, lacking) as reference:
        refuses(*call(READERS[kind][0], reference), "blob missing", lacking.child(kind)["digest"])
        assert problem_codes(run_module, reference) == ["blob_missing"]


DAMAGES = {
    "file-missing": (make_images.remove, "blob missing", "blob_missing"),
    "truncated": (make_images.truncate, "blob truncated", "blob_truncated"),
    "wrong-digest": (make_images.corrupt, "blob of wrong digest", ""),
}


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("kind", [*READERS, "index"])
def test_blob_damaged_in_the_store(node: Node, refuses: Refuses, good: Parts, kind: str, damage: str) -> None:
    own = good.own()
    digest = own.digest if kind == "index" else own.child(kind)["digest"]
    act, what, code = DAMAGES[damage]
    if not code:
        code = "digest_mismatch" if kind == "criu" else "blob_digest"
    assert code in CODES[what]
    name, in_check_mode = READERS.get(kind, (STAGE, True))
    with imported(node, own) as reference:
        act(node, digest)
        modes = (True, False) if in_check_mode else (False,)
        refuses(*call(name, reference), what, digest, modes=modes, code=code)


def test_spec_unreadable(node: Node, refuses: Refuses, good: Parts) -> None:
    with imported(node, good.having("spec", make_images.spec_blob(b"{not JSON"))) as reference:
        refuses(*call(CONTAINER, reference), "spec unreadable", reference)


def test_spec_invalid(node: Node, refuses: Refuses, good: Parts) -> None:
    with imported(node, good.having("spec", make_images.spec_blob({"ociVersion": "1.0.2"}))) as reference:
        refuses(*call(CONTAINER, reference), "spec invalid", "process")


def test_base_image_absent(node: Node, refuses: Refuses, run_module: RunModule, good: Parts) -> None:
    gone = "gpuops.test/gone:1"
    with imported(node, other_base(good).noted(**{BASE_NAME: gone})) as reference:
        refuses(*call(CONTAINER, reference), "base image absent", gone)
        assert problem_codes(run_module, reference) == ["base_image_absent"]


def test_base_image_moved(node: Node, refuses: Refuses, run_module: RunModule, good: Parts) -> None:
    moved = other_base(good)
    with imported(node, moved) as reference:
        digests = (good.child("base")["digest"], moved.child("base")["digest"])
        refuses(*call(CONTAINER, reference), "base image moved", image.REFERENCE, *digests)
        assert problem_codes(run_module, reference) == ["base_image_moved"]


def test_base_image_unknown(node: Node, refuses: Refuses, good: Parts) -> None:
    with imported(node, good.without("base").noted(**{BASE_NAME: ""})) as reference:
        refuses(*call(CONTAINER, reference), "index without base image", reference)


def other_base(good: Parts) -> Parts:
    """The same from a base image of another digest."""
    manifest = json.loads(good.content("base"))
    return good.having("base", make_images.encoded({**manifest, "annotations": {"test": "another"}}))


def test_containerd_restarts_with_cri(node: Node) -> None:
    assert workload.cri_problems(node) == []
