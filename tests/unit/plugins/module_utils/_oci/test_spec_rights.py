# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import copy
from typing import Any

import pytest

from ansible_collections.gpuops.restore.plugins.module_utils._oci import spec_generate, spec_rights, spec_validate
from ansible_collections.gpuops.restore.plugins.module_utils._oci.spec_rights import Known, Right
from ansible_collections.gpuops.restore.tests.unit.helpers.specs import cri_spec

CONFIG = {"os": "linux", "config": {"Cmd": ["train"]}}
SECCOMP = "seccomp_unconfined"
SOCKET = "/run/containerd/containerd.sock"


def usual() -> dict[str, Any]:
    """A container as containerd starts one by its defaults."""
    return spec_generate.generate(CONFIG, "train", cgroup_namespace=True)


def asked(spec: dict[str, Any], known: Known | None = None) -> list[str]:
    """What it asks for, without what containerd's containers all do."""
    spec_validate.check(spec)
    return [str(right) for right in spec_rights.rights(spec, known or Known()) if right.key != SECCOMP]


def changed(path: str, value: Any) -> dict[str, Any]:
    """The usual spec with one value set, or added to a list."""
    spec: Any = usual()
    place, (*parents, last) = spec, path.split(".")
    for key in parents:
        place = place.setdefault(key, {})
    if isinstance(place.get(last), list) or last == "devices":
        place[last] = [*place.get(last, ()), value]
    else:
        place[last] = value
    found: dict[str, Any] = spec
    return found


def mounted(source: str, *options: str, kind: str = "bind") -> dict[str, Any]:
    return changed("mounts", {"destination": "/x", "type": kind, "source": source, "options": ["rbind", *options]})


def test_an_ordinary_container_asks_for_nothing() -> None:
    assert asked(usual()) == []


def test_a_pod_s_gpu_container_asks_for_its_mounts_only() -> None:
    assert {right.partition("=")[0] for right in asked(cri_spec())} == {"bind_sources"}


@pytest.mark.parametrize(
    ("path", "value", "expected"),
    [
        ("process.capabilities", {"bounding": ["CAP_CHOWN", "CAP_SYS_ADMIN"]}, ["capabilities=CAP_SYS_ADMIN"]),
        ("process.capabilities", {"ambient": ["SYS_PTRACE"]}, ["capabilities=CAP_SYS_PTRACE"]),
        ("linux.devices", {"path": "/dev/sda", "type": "b", "major": 8, "minor": 0}, ["devices=/dev/sda"]),
        ("linux.devices", {"path": "/dev/../dev/mem", "type": "c", "major": 1, "minor": 1}, ["devices=/dev/mem"]),
        ("linux.devices", {"path": "/dev/nvidia0", "type": "c", "major": 195, "minor": 0}, []),
        ("linux.devices", {"path": "/dev/nvidia-caps/nvidia-cap1", "type": "c", "major": 510, "minor": 1}, []),
        ("linux.devices", {"path": "/dev/dri/renderD128", "type": "c", "major": 226, "minor": 128}, []),
        ("linux.resources.devices", {"allow": True, "type": "a", "access": "rwm"}, ["devices=all"]),
        ("linux.resources.devices", {"allow": True, "access": "rwm"}, ["devices=all"]),
        ("linux.resources.devices", {"allow": True, "type": "b", "access": "r"}, ["devices=all"]),
        ("linux.resources.devices", {"allow": True, "type": "c", "access": "m"}, []),
        ("linux.resources.devices", {"allow": True, "type": "b", "major": 8, "access": "rw"}, ["devices=b 8:*"]),
        ("linux.resources.devices", {"allow": True, "type": "c", "major": 195, "access": "rw"}, []),
        ("linux.resources.devices", {"allow": False, "type": "b", "major": 8, "access": "rw"}, []),
        ("linux.netDevices", {"eth0": {"name": "eth1"}}, ["devices=net:eth0"]),
        ("linux.sysctl", {"kernel.shmmax": "1", "net.ipv4.ping_group_range": "0 1"}, ["sysctls=kernel.shmmax"]),
        ("linux.rootfsPropagation", "rshared", ["privileged"]),
        ("process.selinuxLabel", "system_u:system_r:spc_t:s0", ["privileged"]),
        ("process.selinuxLabel", "system_u:system_r:container_t:s0:c1,c2", []),
        ("linux.seccomp", {"defaultAction": "SCMP_ACT_ERRNO", "listenerPath": "/run/x.sock"}, ["host_control"]),
    ],
)
def test_what_is_beyond_the_usual(path: str, value: Any, expected: list[str]) -> None:
    assert asked(changed(path, value)) == expected


@pytest.mark.parametrize("kind", ["network", "pid", "ipc", "uts", "mount"])
def test_a_namespace_of_the_host(kind: str) -> None:
    spec = usual()
    spec["linux"]["namespaces"] = [entry for entry in spec["linux"]["namespaces"] if entry["type"] != kind]
    assert asked(spec) == [f"host_namespaces={kind}"]


def test_the_network_of_somebody_else() -> None:
    spec = usual()
    entry = next(entry for entry in spec["linux"]["namespaces"] if entry["type"] == "network")
    entry["path"] = "/run/netns/other"
    assert asked(spec) == ["host_namespaces=network"]
    assert asked(spec, Known(network_given=True)) == []
    # The network of a pod that is gone is replaced by an empty one.
    entry["path"] = "/proc/4711/ns/net"
    assert asked(spec) == []


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        (mounted("/etc", "ro"), ["bind_sources=/etc:ro"]),
        (mounted("/etc", "ro", "rw"), ["bind_sources=/etc"]),
        (mounted("/srv/../etc//passwd"), ["bind_sources=/etc/passwd"]),
        (mounted("/"), ["bind_sources=/", "host_control"]),
        (mounted("/var/run"), ["bind_sources=/run", "host_control"]),
        (mounted("/run/containerd", "ro"), ["bind_sources=/run/containerd:ro", "host_control"]),
        (mounted(SOCKET, "ro"), [f"bind_sources={SOCKET}:ro", "host_control"]),
        (mounted("/run/docker.sock"), ["bind_sources=/run/docker.sock", "host_control"]),
        (mounted("/dev"), ["devices=all"]),
        (mounted("/dev/sda"), ["devices=/dev/sda"]),
        (mounted("/dev/nvidia-uvm"), []),
        (mounted("/dev/null"), []),
        (mounted("/dev/shm"), ["bind_sources=/dev/shm"]),
        (mounted("/srv/data", "rshared"), ["bind_sources=/srv/data", "privileged"]),
        (mounted("/srv/data", kind="none"), ["bind_sources=/srv/data"]),
    ],
    ids=lambda value: value["mounts"][-1]["source"] if isinstance(value, dict) else "",
)  # fmt: skip
def test_binds(spec: dict[str, Any], expected: list[str]) -> None:
    assert asked(spec) == expected


def test_a_source_that_the_operator_maps_is_the_operator_s() -> None:
    assert asked(mounted("/"), Known(is_mapped=lambda source: source == "/")) == []


def test_another_socket_of_containerd() -> None:
    known = Known(socket="/run/k3s/containerd/containerd.sock")
    assert asked(mounted("/run/k3s", "ro"), known) == ["bind_sources=/run/k3s:ro", "host_control"]


@pytest.mark.parametrize(
    ("kind", "options", "expected"),
    [
        ("sysfs", ["ro"], []),
        ("sysfs", [], ["privileged"]),
        ("cgroup2", ["rw"], ["privileged"]),
        ("tmpfs", [], []),
        ("ext4", ["ro"], ["mount_types=ext4"]),
        ("nfs", [], ["mount_types=nfs"]),
        ("overlay", [], ["mount_types=overlay"]),
    ],
)
def test_file_systems(kind: str, options: list[str], expected: list[str]) -> None:
    entry = {"destination": "/x", "type": kind, "source": "/dev/sda1", "options": options}
    assert asked(changed("mounts", entry)) == expected


@pytest.mark.parametrize("paths", [None, [], ["/proc/sys"], ["/proc/kcore", "/proc/sysrq-trigger"]])
def test_a_proc_that_is_writable(paths: Any) -> None:
    spec = usual()
    spec["linux"]["readonlyPaths"] = paths
    assert asked(spec) == ["privileged"]


@pytest.mark.parametrize(
    ("seccomp", "filtered"),
    [
        (None, False),
        ({}, False),
        ({"defaultAction": "SCMP_ACT_ALLOW"}, False),
        ({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["bpf"], "action": "SCMP_ACT_ERRNO"}]}, True),
        ({"defaultAction": "SCMP_ACT_ERRNO"}, True),
    ],
)
def test_a_filter_of_system_calls(seccomp: Any, filtered: bool) -> None:
    spec = usual()
    spec["linux"]["seccomp"] = seccomp
    assert (Right(SECCOMP) not in spec_rights.rights(spec, Known())) == filtered


def test_devices_by_number_belong_to_those_by_path_and_to_the_driver_s() -> None:
    spec = usual()
    before = copy.deepcopy(spec)
    spec["linux"]["resources"]["devices"].append({"allow": True, "type": "c", "major": 511, "minor": 0, "access": "rw"})
    assert asked(spec) == ["devices=c 511:0"]
    assert asked(spec, Known(gpu_numbers=[(511, 0)])) == []
    spec["linux"]["devices"] = [{"path": "/dev/nvidia-uvm", "type": "c", "major": 511, "minor": 0}]
    assert asked(spec) == []
    assert asked(before) == []


def test_a_right_is_written_and_read_again() -> None:
    for right in (Right("privileged"), Right("devices", "c 10:*"), Right("bind_sources", "/a=b:ro")):
        assert Right.parse(str(right)) == right


def test_what_may_be_written_may_be_read() -> None:
    had = [Right("bind_sources", "/etc"), Right("bind_sources", "/opt:ro")]
    assert Right("bind_sources", "/etc:ro").is_within(had)
    assert not Right("bind_sources", "/opt").is_within(had)
    assert not Right("bind_sources", "/etc/ssl").is_within(had)
