# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.gpuops.restore.plugins.module_utils._checkpoint import metadata
from ansible_collections.gpuops.restore.plugins.module_utils._core.errors import InputError


def test_all_keys() -> None:
    text = json.dumps(
        {"originalImage": "a:1", "snapshotter": "zfs", "snapshotID": "s", "ociSpec": {"ociVersion": "1"}, "more": 1}
    )
    assert metadata.parse(text) == metadata.Metadata("a:1", "zfs", "s", {"ociVersion": "1"})


def test_only_the_image_is_needed() -> None:
    assert metadata.parse('{"originalImage": "a:1"}') == metadata.Metadata("a:1")


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("", "metadata_not_json"),
        ("{", "metadata_not_json"),
        ("[" * 100000, "metadata_not_json"),
        ("[]", "metadata_invalid"),
        ("null", "metadata_invalid"),
        ('"a:1"', "metadata_invalid"),
        ("{}", "metadata_incomplete"),
        ('{"snapshotter": "overlayfs"}', "metadata_incomplete"),
        ('{"originalImage": ""}', "metadata_invalid"),
        ('{"originalImage": 5}', "metadata_invalid"),
        ('{"originalImage": null}', "metadata_invalid"),
        ('{"originalImage": "a", "snapshotter": []}', "metadata_invalid"),
        ('{"originalImage": "a", "snapshotID": ""}', "metadata_invalid"),
        ('{"originalImage": "a", "ociSpec": "{}"}', "metadata_invalid"),
        ('{"originalImage": "a", "ociSpec": {}}', "metadata_invalid"),
        ('{"originalImage": "a", "ociSpec": null}', "metadata_invalid"),
        ('{"originalImage": "a", "OriginalImage": "b"}', "metadata_invalid"),
        ('{"originalimage": "a"}', "metadata_invalid"),
        ('{"originalImage": "a", "ociSpec": {"x": 1}, "OCISpec": {"y": 1}}', "metadata_invalid"),
        ('{"originalImage": "a", "\u017fnapshotter": "zfs"}', "metadata_invalid"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_what_is_no_metadata(text: str, code: str) -> None:
    with pytest.raises(InputError) as caught:
        metadata.parse(text, "metadata file /x")
    assert caught.value.code == code
    assert "/x" in caught.value.message
    assert caught.value.remedy


def test_the_wrong_key_is_named() -> None:
    with pytest.raises(InputError, match="snapshotID"):
        metadata.parse('{"originalImage": "a", "snapshotID": 5}')
    with pytest.raises(InputError, match="image, spec"):
        metadata.parse('{"spec": {}, "image": "a"}')


def test_a_file(tmp_path: Path) -> None:
    path = tmp_path / "m.json"
    path.write_text('{"originalImage": "ü:1"}', encoding="utf-8")
    assert metadata.load(str(path)).original_image == "ü:1"


@pytest.mark.parametrize("content", [None, b"\xff\xfe", "directory"])
def test_a_file_that_cannot_be_read(tmp_path: Path, content: Any) -> None:
    path = tmp_path / "m.json"
    if content == "directory":
        path.mkdir()
    elif content is not None:
        path.write_bytes(content)
    with pytest.raises(InputError) as caught:
        metadata.load(str(path))
    assert caught.value.code == "metadata_unreadable"
    assert str(path) in caught.value.message
