# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Bad input: metadata that cannot be used."""

from __future__ import annotations

import json
from typing import Any, Callable

import make_images
import pytest
from bad_input import Refuses
from gpuops_lab import image, workload
from gpuops_lab.config import Node

REF = "gpuops.test/checkpoint:1"
CONTAINER, INFO = "containerd_container", "containerd_checkpoint_info"
RunModule = Callable[..., dict[str, Any]]
#: The text, how it is refused, and what the message has to name.
TEXTS = {
    "not-json": ("{originalImage: x", "metadata not JSON", "line 1"),
    "a-list": ("[]", "metadata of wrong types", "list"),
    "no-keys": ("{}", "metadata lacks keys", "originalImage"),
    "no-image": (json.dumps({"snapshotter": "overlayfs"}), "metadata lacks keys", "originalImage"),
    "image-is-a-number": (json.dumps({"originalImage": 7}), "metadata of wrong types", "originalImage"),
    "spec-is-text": (json.dumps({"originalImage": "x:1", "ociSpec": "{}"}), "metadata of wrong types", "ociSpec"),
    "spec-without-process": (
        json.dumps({"originalImage": image.REFERENCE, "ociSpec": {"ociVersion": "1.0.2"}}),
        "spec invalid",
        "process",
    ),
    "another-image": (json.dumps({"originalImage": "gpuops.test/gone:1"}), "base image absent", "gpuops.test/gone:1"),
}


@pytest.fixture(scope="module", autouse=True)
def good(node: Node) -> None:
    make_images.good(node, REF)


@pytest.fixture
def refuses(expect_failure: RunModule, unchanged: Callable[..., Any]) -> Refuses:
    return Refuses(expect_failure, unchanged)


@pytest.mark.parametrize("case", TEXTS)
def test_metadata(refuses: Refuses, run_module: RunModule, case: str) -> None:
    text, what, word = TEXTS[case]
    params = {"container_id": "x", "checkpoint": REF, "metadata_content": text}
    if case == "another-image":
        # The digest that the checkpoint recorded tells that the image is there under another name.
        assert run_module(CONTAINER, params, check=True)["container"]["image"] == image.REFERENCE
        return
    refused = refuses(CONTAINER, params, what, word)
    problems = run_module(INFO, params)["problems"]
    assert [problem["code"] for problem in problems] == [refused["failure"]["code"]]


def test_metadata_file_missing(refuses: Refuses) -> None:
    params = {"container_id": "x", "checkpoint": REF, "metadata": "/var/lib/gone.json"}
    refuses(CONTAINER, params, "metadata unreadable", "/var/lib/gone.json")


def test_containerd_restarts_with_cri(node: Node) -> None:
    assert workload.cri_problems(node) == []
