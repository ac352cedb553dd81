# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Waiting for a task that lives on: whoever notices the deadline first, the answer is the same."""

from __future__ import annotations

import pytest

from ansible_collections.gpuops.restore.plugins.module_utils._containerd import tasks
from ansible_collections.gpuops.restore.plugins.module_utils._containerd.client import Client
from ansible_collections.gpuops.restore.plugins.module_utils._core.errors import RpcError
from ansible_collections.gpuops.restore.tests.unit.helpers.fake_containerd import FakeContainerd

pytestmark = pytest.mark.every_python


def test_the_shim_notices_the_deadline_first(fake: FakeContainerd, client: Client) -> None:
    """As a loaded node answered it: ``UNKNOWN``, with the deadline in the text only."""
    fake.fail("Tasks/Wait", "UNKNOWN", "context deadline exceeded: unknown")
    assert tasks.wait(client, "train", 0.5) is None


def test_any_other_error_is_one(fake: FakeContainerd, client: Client) -> None:
    fake.fail("Tasks/Wait", "UNKNOWN", "ttrpc: closed: unknown")
    with pytest.raises(RpcError) as caught:
        tasks.wait(client, "train", 0.5)
    assert caught.value.rpc == "containerd.services.tasks.v1.Tasks/Wait"
