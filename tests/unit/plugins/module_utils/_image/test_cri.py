# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from ansible_collections.gpuops.restore.plugins.module_utils._containerd import images
from ansible_collections.gpuops.restore.plugins.module_utils._containerd.client import Client
from ansible_collections.gpuops.restore.plugins.module_utils._image import cri as image_cri
from ansible_collections.gpuops.restore.tests.unit.helpers.archive_samples import MANIFEST
from ansible_collections.gpuops.restore.tests.unit.helpers.containerd_samples import add_base, record
from ansible_collections.gpuops.restore.tests.unit.helpers.fake_containerd import FakeContainerd

NAME = "example.test/app:1"


def test_cri_records_go_with_the_last_name(fake: FakeContainerd, client: Client) -> None:
    base = add_base(fake.state, NAME)
    managed = {"io.cri-containerd.image": "managed"}
    record(fake.state, "sha256:" + 64 * "c", MANIFEST, fake.state.blobs[base.digest].data, managed)
    found = images.get(client, NAME)
    assert found is not None
    record(fake.state, "example.test/alias:1", MANIFEST, fake.state.blobs[base.digest].data)
    assert image_cri.references(client, found) == []
    del fake.state.images["example.test/alias:1"]
    assert image_cri.remove(client, found, ordinary=True) == [NAME, "sha256:" + 64 * "c"]
    assert not fake.state.images
