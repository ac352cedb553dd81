# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import copy
import json

from ansible_collections.gpuops.restore.plugins.module_utils._oci import spec_summary
from ansible_collections.gpuops.restore.tests.unit.helpers.specs import OLD_CGROUP, cri_spec, ctr_spec


def test_redaction() -> None:
    spec = cri_spec()
    spec["process"]["args"] += ["--url", "postgres://joe:pw99@db/x", "export TOKEN=abc123; run", "--verbose"]
    spec["process"]["args"] += ["sh", "curl -H 'Authorization: Bearer ey99' --password geheim x"]
    before = copy.deepcopy(spec)
    shown = spec_summary.redacted(spec)
    text = json.dumps(shown)
    assert spec == before
    for secret in ("sk-1234", "hunter2", "hf_abc", "t0ps3cret", "pw99", "abc123", "ey99", "geheim", "=false"):
        assert secret not in text
    assert shown["process"]["env"] == [
        "PATH=/usr/bin",
        "HOSTNAME=train-0",
        "HF_TOKEN=***",
        "CUDA_VISIBLE_DEVICES=***",
    ]
    assert shown["process"]["args"][:5] == ["python", "train.py", "--api-key", "***", "--epochs=3"]
    assert "--verbose" in shown["process"]["args"]
    assert shown["annotations"]["example.com/team"] == "vision"
    assert shown["mounts"] == before["mounts"]


def test_summary() -> None:
    shown = spec_summary.summary(cri_spec())
    assert shown["namespaces"][1] == {"type": "ipc", "path": "/proc/1234/ns/ipc"}
    assert shown["namespaces"][0] == {"type": "pid", "path": ""}
    assert shown["mounts"][0] == {
        "destination": "/proc",
        "source": "proc",
        "type": "proc",
        "options": ["nosuid"],
    }
    assert shown["cgroup_path"] == OLD_CGROUP
    assert shown["terminal"] is False
    assert shown["hooks"] is True
    assert "sk-1234" not in shown["args"]
    assert shown["cwd"] == "/workspace"
    assert shown["user"]["uid"] == 1000
    assert "t0ps3cret" not in json.dumps(shown)
    bare = spec_summary.summary(ctr_spec())
    assert (bare["terminal"], bare["hooks"], bare["annotations"]) == (True, False, [])
