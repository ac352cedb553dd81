# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import pytest
import quick_listing

from ansible_collections.gpuops.restore.plugins.module_utils._containerd.messages import message


def test_an_image_is_told_by_name_target_and_labels_in_one_order() -> None:
    target = message("containerd.types.Descriptor", media_type="type", digest="sha256:ab", size=300)
    image = message("containerd.services.images.v1.Image", name="name", target=target, labels={"a": "1", "b": "2"})
    other = message("containerd.services.images.v1.Image", name="name", target=target, labels={"b": "2", "a": "1"})
    paths = next(paths for kind, _method, _streams, paths in quick_listing._LISTS if kind == "images")
    rows = [[quick_listing.told(each.SerializeToString(), path) for path in paths] for each in (image, other)]
    assert rows[0][:4] == ["name", "type", "sha256:ab", "300"]
    assert rows[0] == rows[1] and "1" in rows[0][4]


def test_a_request_is_as_protobuf_would_write_it() -> None:
    wanted = message("containerd.services.leases.v1.DeleteRequest", id="listing-1", sync=True)
    assert quick_listing.text(1, "listing-1") + b"\x10\x01" == wanted.SerializeToString()


def test_each_field_of_an_answer_is_found() -> None:
    answer = message("containerd.services.leases.v1.ListResponse")
    for name in ("a", "b"):
        answer.leases.add(id=name)
    entries = quick_listing.fields(answer.SerializeToString())[1]
    assert [quick_listing.told(entry, (1,)) for entry in entries] == ["a", "b"]
    assert quick_listing.told(entries[0], (2,)) == ""


def test_what_is_no_message_is_refused() -> None:
    with pytest.raises(ValueError, match="wire type"):
        quick_listing.fields(b"\x0b")
