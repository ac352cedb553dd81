# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from typing import Any

import pytest

from ansible_collections.gpuops.restore.plugins.module_utils._containerd import runtimes
from ansible_collections.gpuops.restore.plugins.module_utils._containerd.client import Client
from ansible_collections.gpuops.restore.plugins.module_utils._containerd.messages import message, pack
from ansible_collections.gpuops.restore.plugins.module_utils._containerd.runtimes import Runtime
from ansible_collections.gpuops.restore.plugins.module_utils._core.errors import InputError

RUNC = "io.containerd.runc.v2"
KIND = "containerd.runc.v1.Options"
NVIDIA = "/usr/bin/nvidia-container-runtime"
#: Of ``containerd config dump``, shortened: containerd 1.7 and 2.1.
ONE = """
version = 2

[plugins]

  [plugins."io.containerd.grpc.v1.cri"]
    sandbox_image = "registry.k8s.io/pause:3.8"

    [plugins."io.containerd.grpc.v1.cri".containerd]
      default_runtime_name = "nvidia.gpu"

      [plugins."io.containerd.grpc.v1.cri".containerd.runtimes]

        [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
          runtime_path = ""
          runtime_type = "io.containerd.runc.v2"

          [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
            BinaryName = ""
            NoPivotRoot = true

        [plugins."io.containerd.grpc.v1.cri".containerd.runtimes."nvidia.gpu"]
          pod_annotations = []
          runtime_path = ""
          runtime_type = "io.containerd.runc.v2"

          [plugins."io.containerd.grpc.v1.cri".containerd.runtimes."nvidia.gpu".options]
            BinaryName = "/usr/bin/nvidia-container-runtime"
            NoPivotRoot = false
            Root = ""
"""
TWO = """
version = 3

[plugins]
  [plugins.'io.containerd.cri.v1.runtime']
    enable_selinux = false

    [plugins.'io.containerd.cri.v1.runtime'.containerd]
      default_runtime_name = 'own'

      [plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes]
        [plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.own]
          runtime_type = 'io.containerd.runc.v2'
          runtime_path = '/opt/shim'

          [plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.own.options]
            BinaryName = 'crun'
            Root = '/run/own'
"""


@pytest.fixture(autouse=True)
def systemd(monkeypatch: pytest.MonkeyPatch) -> None:
    """It runs on the node."""
    monkeypatch.setattr(runtimes, "systemd_runs", lambda: True)


def options(**fields: Any) -> Any:
    return pack(KIND, message(KIND, **fields).SerializeToString())


def fields(found: Any) -> dict[str, Any]:
    """What an Any has that is set."""
    read = message(KIND)
    read.ParseFromString(found.value)
    return {field.name: value for field, value in read.ListFields()}


@pytest.mark.parametrize("name", ["/var/lib/volume/payload", "./shim", "io.containerd.kata.v2", "../x.y", ""])
def test_a_runtime_that_is_not_listed_is_refused(client: Client, name: str) -> None:
    with pytest.raises(InputError) as caught:
        runtimes.choose(client, (), name, None)
    assert caught.value.code == "runtime_refused"
    assert RUNC in caught.value.message and "runtimes" in caught.value.remedy


def test_only_harmless_options_are_taken_over(client: Client) -> None:
    hostile = options(
        binary_name="/srv/payload",
        root="/tmp/x",
        shim_cgroup="/kubepods/x",
        criu_image_path="/etc",
        criu_work_path="/etc",
        no_pivot_root=True,
        systemd_cgroup=True,
        no_new_keyring=True,
        io_uid=5,
        io_gid=6,
    )
    found = runtimes.choose(client, (), RUNC, hostile)
    assert found.name == RUNC
    assert fields(found.options) == {"systemd_cgroup": True, "no_new_keyring": True, "io_uid": 5, "io_gid": 6}
    told = "\n".join(found.warnings)
    assert all(part in told for part in ("/srv/payload", "/tmp/x", "no_pivot_root"))


def test_systemds_driver_where_systemd_does_not_run(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runtimes, "systemd_runs", lambda: False)
    found = runtimes.choose(client, (), RUNC, options(systemd_cgroup=True, io_uid=5))
    assert fields(found.options) == {"io_uid": 5}
    assert "cgroupfs is used" in str(found.warnings)
    assert runtimes.choose(client, (), RUNC, options(io_uid=5)).warnings == ()


def test_what_the_shim_calls(client: Client) -> None:
    assert runtimes.choose(client, (), RUNC, None).program == "runc"
    assert runtimes.choose(client, (Runtime(RUNC, NVIDIA),), RUNC, None).program == NVIDIA
    assert runtimes.program(RUNC, options(binary_name="crun")) == "crun"


def test_fields_that_are_unknown_here_do_not_come_along(client: Client) -> None:
    strange = options(systemd_cgroup=True)
    # Field 8, ``criu_path`` of old: a program.
    strange.value += b"\x42\x08/srv/own"
    assert runtimes.choose(client, (), RUNC, strange).options.value == options(systemd_cgroup=True).value


def test_the_options_of_another_runtime_are_not_taken(client: Client) -> None:
    foreign = pack("runtimeoptions.v1.Options", b"\x12\x0c/srv/own.toml")
    assert runtimes.choose(client, (), RUNC, foreign).options is None
    assert runtimes.choose(client, (), RUNC, None) == runtimes.Chosen(RUNC)


def test_plain_runc_needs_no_list_and_no_warning(client: Client) -> None:
    found = runtimes.choose(client, (), RUNC, options(binary_name="runc", systemd_cgroup=True))
    assert found.warnings == () and fields(found.options) == {"systemd_cgroup": True}


def test_the_recorded_program_is_taken_where_it_is_listed(client: Client) -> None:
    allowed = Runtime.from_options(
        [
            {"name": RUNC, "binary_name": None, "root": None, "no_pivot_root": False},
            {"name": RUNC, "binary_name": NVIDIA, "root": "/run/nv", "no_pivot_root": True},
        ]
    )
    recorded = options(binary_name=NVIDIA, root="/run/nv", no_pivot_root=True)
    found = runtimes.choose(client, allowed, RUNC, recorded)
    assert found.warnings == ()
    assert fields(found.options) == {"binary_name": NVIDIA, "root": "/run/nv", "no_pivot_root": True}
    other = runtimes.choose(client, allowed, RUNC, options(binary_name="crun"))
    assert "crun" in other.warnings[0] and fields(other.options) == {}


def test_a_list_is_the_whole_truth(client: Client) -> None:
    allowed = (Runtime("/opt/own-shim", "own"),)
    assert fields(runtimes.choose(client, allowed, "/opt/own-shim", None).options) == {"binary_name": "own"}
    with pytest.raises(InputError):
        runtimes.choose(client, allowed, RUNC, None)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (ONE, [Runtime(RUNC, NVIDIA)]),
        (TWO, [Runtime(RUNC, "crun", "/run/own"), Runtime("/opt/shim", "crun", "/run/own")]),
        (ONE.replace("nvidia.gpu", "gone", 1), []),
        ("", []),
        ("[plugins\n=", []),
    ],
)
def test_the_node_s_default_runtime(
    client: Client, monkeypatch: pytest.MonkeyPatch, text: str, expected: list[Runtime]
) -> None:
    monkeypatch.setattr(runtimes, "_configuration", lambda _client: text)
    assert runtimes.node_default(client) == expected


def test_the_node_s_default_runtime_is_allowed(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runtimes, "_configuration", lambda _client: ONE)
    found = runtimes.choose(client, (), RUNC, options(binary_name=NVIDIA))
    assert (fields(found.options), found.warnings) == ({"binary_name": NVIDIA}, ())
    with pytest.raises(InputError):
        runtimes.choose(client, (), "/opt/shim", None)


def test_a_daemon_that_is_no_containerd_is_not_asked(client: Client) -> None:
    assert runtimes.node_default(client) == []


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["containerd"], []),
        (["containerd", "--config", "/etc/c.toml", "-l", "debug"], ["--config", "/etc/c.toml"]),
        (["containerd", "-c", "/etc/c.toml"], ["--config", "/etc/c.toml"]),
        (["containerd", "--config=/etc/c.toml"], ["--config", "/etc/c.toml"]),
        (["containerd", "--config"], ["--config"]),
    ],
)
def test_the_daemon_s_configuration_file(words: list[str], expected: list[str]) -> None:
    assert runtimes._config_option(words) == expected
