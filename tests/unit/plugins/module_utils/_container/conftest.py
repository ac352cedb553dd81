# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A container that only lacks its task."""

from __future__ import annotations

import pytest

from ansible_collections.gpuops.restore.plugins.module_utils._checkpoint import original, stage as stage_steps
from ansible_collections.gpuops.restore.plugins.module_utils._container import (
    container as container_steps,
    params as container_params,
)
from ansible_collections.gpuops.restore.plugins.module_utils._container.task_params import TaskParams
from ansible_collections.gpuops.restore.plugins.module_utils._containerd.client import Client
from ansible_collections.gpuops.restore.tests.unit.helpers.containerd_node import Node
from ansible_collections.gpuops.restore.tests.unit.helpers.containerd_samples import CHECKPOINT_NAME
from ansible_collections.gpuops.restore.tests.unit.helpers.fake_containerd import FakeContainerd


@pytest.fixture
def ready(fake: FakeContainerd, client: Client, node: Node) -> TaskParams:
    """Checkpoint staged, container made: only the task lacks."""
    stage_steps.present(client, CHECKPOINT_NAME, node.root, None, False)
    wanted = container_params.ContainerParams("train", original.Source(CHECKPOINT_NAME), staging_dir=node.root)
    container_steps.present(client, wanted, False)
    fake.heal()
    return TaskParams("train", CHECKPOINT_NAME, staging_dir=node.root, alive_seconds=0.05, grace_seconds=0.3)
