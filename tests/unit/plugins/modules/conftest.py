# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""How the tests call a module."""

from __future__ import annotations

from typing import Any

import pytest

from ansible_collections.gpuops.restore.tests.unit.helpers import ansible_modules
from ansible_collections.gpuops.restore.tests.unit.helpers.ansible_modules import Call
from ansible_collections.gpuops.restore.tests.unit.helpers.fake_containerd import FakeContainerd


@pytest.fixture
def call(fake: FakeContainerd) -> Call:
    """``call(module, check=False, **options)`` on the test double of containerd; see :func:`ansible_modules.run`."""

    def act(module: str, check: bool = False, /, **options: Any) -> dict[str, Any]:
        given = {"address": fake.address, "namespace": "tests", "timeout": 5, **options}
        return ansible_modules.run(module, check, given)

    return act
