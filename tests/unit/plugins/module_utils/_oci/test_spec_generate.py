# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Specs made from image configs."""

from __future__ import annotations

from typing import Any

import pytest

from ansible_collections.gpuops.restore.plugins.module_utils._core.errors import InputError
from ansible_collections.gpuops.restore.plugins.module_utils._oci import spec_generate, spec_validate


def config(**values: Any) -> dict[str, Any]:
    """A config blob with usual values."""
    usual: dict[str, Any] = {
        "Entrypoint": ["python"],
        "Cmd": ["-m", "train"],
        "Env": ["A=b"],
        "WorkingDir": "/w",
    }
    return {"os": "linux", "architecture": "amd64", "config": {**usual, **values}}


def test_it_is_what_containerds_client_makes() -> None:
    spec = spec_generate.generate(config(User="1000:100"), "c1")
    spec_validate.check(spec)
    process = spec["process"]
    assert process["args"] == ["python", "-m", "train"]
    assert process["env"] == ["A=b"]
    assert process["cwd"] == "/w"
    assert process["user"] == {"uid": 1000, "gid": 100, "additionalGids": [100]}
    assert len(process["capabilities"]["bounding"]) == 14
    assert set(process["capabilities"]) == {"bounding", "effective", "permitted"}
    assert "terminal" not in process
    assert [mount["destination"] for mount in spec["mounts"]] == [
        "/proc",
        "/dev",
        "/dev/pts",
        "/dev/shm",
        "/dev/mqueue",
        "/sys",
        "/run",
    ]
    assert spec["mounts"][2]["options"] == [
        "nosuid",
        "noexec",
        "newinstance",
        "ptmxmode=0666",
        "mode=0620",
        "gid=5",
    ]
    kinds = [entry["type"] for entry in spec["linux"]["namespaces"]]
    assert kinds == ["pid", "ipc", "uts", "mount", "network"]
    assert all("path" not in entry for entry in spec["linux"]["namespaces"])
    rules = spec["linux"]["resources"]["devices"]
    assert rules[0] == {"allow": False, "access": "rwm"}
    assert {"allow": True, "type": "c", "major": 136, "access": "rwm"} in rules
    assert {"allow": True, "type": "c", "major": 1, "minor": 3, "access": "rwm"} in rules


def test_options_of_the_original() -> None:
    spec = spec_generate.generate(config(), "c1", host_network=True, cgroup_namespace=True, terminal=True)
    assert [entry["type"] for entry in spec["linux"]["namespaces"]] == [
        "pid",
        "ipc",
        "uts",
        "mount",
        "cgroup",
    ]
    assert spec["process"]["terminal"] is True


def test_defaults_of_a_bare_image() -> None:
    spec = spec_generate.generate({"config": {"Cmd": ["sh"], "Entrypoint": None, "Env": None}}, "c1")
    assert spec["process"]["cwd"] == "/"
    assert spec["process"]["user"]["uid"] == 0
    assert spec["process"]["env"][0].startswith("PATH=")


@pytest.mark.parametrize("user", ["nobody", "1000:staff", "-1", "2147483648", "1:", "\u0663", "1:2:3", "9" * 5000])
def test_users_by_name_need_the_original_spec(user: str) -> None:
    with pytest.raises(InputError) as caught:
        spec_generate.generate(config(User=user), "c1")
    assert caught.value.code == "image_user_not_numeric"
    assert repr(user)[:60] in caught.value.message
    assert "ociSpec" in caught.value.remedy


@pytest.mark.parametrize(
    ("blob", "code"),
    [
        ([], "image_config_invalid"),
        ({"config": []}, "image_config_invalid"),
        ({}, "image_config_invalid"),
        (config(Entrypoint="sh"), "image_config_invalid"),
        (config(Env=[1]), "image_config_invalid"),
        (config(WorkingDir=1), "image_config_invalid"),
        ({**config(), "os": "windows"}, "image_platform"),
    ],
)
def test_configs_that_are_none(blob: Any, code: str) -> None:
    with pytest.raises(InputError) as caught:
        spec_generate.generate(blob, "c1")
    assert caught.value.code == code


def test_two_specs_share_nothing() -> None:
    first = spec_generate.generate(config(), "c1")
    first["process"]["capabilities"]["bounding"].clear()
    first["mounts"][0]["options"].clear()
    second = spec_generate.generate(config(), "c1")
    assert second["process"]["capabilities"]["bounding"]
    assert second["mounts"][0]["options"]
