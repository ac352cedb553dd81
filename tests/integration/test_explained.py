# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A failure that no line explains, of a real runc and CRIU: who it was, and where to look."""

from __future__ import annotations

from typing import Any, Callable

from gpuops_lab import workload
from gpuops_lab.config import Node

REF = "gpuops.test/explained:1"
RunModule = Callable[..., dict[str, Any]]


def test_a_criu_that_does_not_begin_is_sent_to_its_options(node: Node, expect_failure: RunModule) -> None:
    workload.start(node, "box", 0)
    workload.await_count(node, "box", 3)
    asked = {"container_id": "box", "name": REF, "force": True, "criu": {"extra": ["network-lock=bogus"]}}
    failed = expect_failure("containerd_checkpoint", asked, "criu_dump_failed")
    workload.await_count(node, "box", workload.count(node, "box") + 2)
    workload.delete(node, "box")
    assert "CRIU could not dump box" in failed["msg"] and "`criu` of the call" in failed["failure"]["hint"], failed
