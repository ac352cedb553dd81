# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import json
from typing import Any

import pytest

from ansible_collections.gpuops.restore.plugins.module_utils._checkpoint import on_node
from ansible_collections.gpuops.restore.plugins.module_utils._core.errors import InputError

pytestmark = pytest.mark.every_python


def document(**files: Any) -> bytes:
    found = {
        "inventory.img": {"size": 3, "mtime_ns": 5},
        "descriptors.json": {"size": 2, "mtime_ns": 5},
        **{name.replace("_", "/"): entry for name, entry in files.items()},
    }
    return json.dumps({"format": on_node.FORMAT, "files": found}).encode()


def test_files_of_another_node() -> None:
    found = on_node.read_list(document(pages={"size": 4, "mtime_ns": 7}), 9)
    assert {name: (file.size, file.mtime_ns) for name, file in found.items()} == {
        "inventory.img": (3, 5),
        "descriptors.json": (2, 5),
        "pages": (4, 7),
    }


@pytest.mark.parametrize(
    "data",
    [
        b"[]",
        b"{",
        b'{"format": "gpuops.restore/criu-files/1"}',
        document().replace(b"criu-files/1", b"criu-files/2"),
        document(below_a={"size": 0, "mtime_ns": 0}),
        document(**{"..": {"size": 0, "mtime_ns": 0}}),
        document(**{".complete.json": {"size": 0, "mtime_ns": 0}}),
        document(**{"": {"size": 0, "mtime_ns": 0}}),
        document(a={"size": -1, "mtime_ns": 0}),
        document(a={"size": True, "mtime_ns": 0}),
        document(a={"size": 0.0, "mtime_ns": 0}),
        document(a={"size": 0}),
        document(a={"size": 0, "mtime_ns": 1 << 62}),
        document(a=[0, 0]),
        document(a={"size": 1, "mtime_ns": 0}),
        document().replace(b"inventory.img", b"inventory.imh"),
    ],
)
def test_a_list_that_is_none(data: bytes) -> None:
    with pytest.raises(InputError) as caught:
        on_node.read_list(data, 5)
    assert caught.value.code == "criu_files_invalid" and caught.value.remedy
