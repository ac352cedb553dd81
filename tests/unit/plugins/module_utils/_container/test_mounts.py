# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Checks of what a spec needs of the node."""

from __future__ import annotations

import os
import socket
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from ansible_collections.gpuops.restore.plugins.module_utils._container import mounts as container_mounts
from ansible_collections.gpuops.restore.plugins.module_utils._core.errors import InputError
from ansible_collections.gpuops.restore.plugins.module_utils._host import mountinfo
from ansible_collections.gpuops.restore.tests.unit.helpers import criu_samples
from ansible_collections.gpuops.restore.tests.unit.helpers.specs import POD_UID, SANDBOX_ID, cri_spec, ctr_spec


def bind(destination: str, source: object, *options: str) -> dict[str, Any]:
    """A bind mount."""
    return {
        "destination": destination,
        "type": "bind",
        "source": str(source),
        "options": list(options or ("rbind",)),
    }


def spec_of(*mounts: dict[str, Any], devices: Any = (), network: str | None = None) -> dict[str, Any]:
    """A small spec with these mounts, devices and network namespace."""
    spec = ctr_spec()
    spec["mounts"] += mounts
    spec["linux"]["devices"] = list(devices)
    if network:
        spec["linux"]["namespaces"][4]["path"] = network
    return spec


def found(spec: dict[str, Any], **values: Any) -> list[tuple[str, str]]:
    """Codes and destinations or paths of all problems; every one has a whole sentence and a remedy."""
    problems = container_mounts.problems(spec, **{"mountinfo": "", **values})
    for problem in problems:
        assert problem.message.endswith(".")
        assert problem.remedy.endswith(".")
    return [(item.code, item.details.get("destination") or item.details["path"]) for item in problems]


def test_everything_of_a_dead_pod_at_once() -> None:
    def missing(path: str) -> os.stat_result:
        raise FileNotFoundError(2, "No such file or directory", path)

    def dead(path: str) -> bool:
        raise FileNotFoundError(2, "No such file or directory", path)

    problems = container_mounts.problems(
        cri_spec(), mountinfo="", node=container_mounts.Node(lstat=missing, stat=missing, is_netns=dead)
    )
    codes = [problem.code for problem in problems]
    assert codes.count("mount_source_missing") == 8
    assert codes.count("device_missing") == 2
    assert codes.count("netns_missing") == 1
    data = next(problem for problem in problems if problem.details.get("destination") == "/data")
    assert POD_UID in data.remedy
    assert "/data" in data.message
    shm = next(problem for problem in problems if problem.details.get("destination") == "/dev/shm")
    assert SANDBOX_ID in shm.remedy


def test_sources_that_are_there(tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    (tmp_path / "hosts").write_text("")
    spec = spec_of(bind("/data", tmp_path / "d"), bind("/etc/hosts", tmp_path / "hosts"))
    assert found(spec) == []


def test_kind_of_source(tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    (tmp_path / "f").write_text("")
    spec = spec_of(
        bind("/etc/hosts/", tmp_path / "d"), bind("/model", tmp_path / "f"), bind("/unknown", tmp_path / "f")
    )
    assert found(spec, expected_kinds={"/model": "directory"}) == [
        ("mount_source_kind", "/etc/hosts/"),
        ("mount_source_kind", "/model"),
    ]
    assert found(spec, expected_kinds={"/etc/hosts": "directory"}) == []


def test_symbolic_links(tmp_path: Path) -> None:
    real = tmp_path / "real"
    real.mkdir()
    (real / "below").mkdir()
    (tmp_path / "link").symlink_to("real")
    (tmp_path / "dangling").symlink_to("nowhere")
    spec = spec_of(
        bind("/a", tmp_path / "link"),
        bind("/b", tmp_path / "dangling"),
        # CRIU only minds the last component.
        bind("/c", tmp_path / "link" / "below"),
    )
    assert found(spec) == [("mount_source_symlink", "/a"), ("mount_source_missing", "/b")]
    assert str(real) in container_mounts.problems(spec, mountinfo="")[0].remedy


def test_a_file_on_the_way_and_a_loop_are_no_crash(tmp_path: Path) -> None:
    (tmp_path / "f").write_text("")
    (tmp_path / "loop").symlink_to("loop")
    spec = spec_of(bind("/a", tmp_path / "f" / "x"), bind("/b", tmp_path / "loop"))
    assert found(spec) == [("mount_source_missing", "/a"), ("mount_source_unreadable", "/b")]


def test_nested_mounts(tmp_path: Path) -> None:
    source = tmp_path / "with space"
    source.mkdir()
    escaped = str(source).replace(" ", "\\040")
    info = (
        f"30 1 0:30 / {tmp_path}/with\\040spaces rw - tmpfs tmpfs rw\n"
        f"31 1 0:31 / {escaped}/inner rw,nosuid shared:5 - tmpfs tmpfs rw\n"
    )
    assert found(spec_of(bind("/data", source)), mountinfo=info) == [("mount_source_nested", "/data")]
    assert found(spec_of(bind("/data", source, "bind")), mountinfo=info) == []
    named = spec_of(bind("/data", source), bind("/data/inner", source, "bind"))
    assert found(named, mountinfo=info) == []


def test_nested_mounts_that_the_spec_names_by_way_of_a_link(tmp_path: Path) -> None:
    """Without the image's files nobody knows; with them only what is named is fine."""
    (tmp_path / "sub").mkdir()
    spec = spec_of(bind("/var/run/data", tmp_path), bind("/run/data/sub", tmp_path / "sub"))
    text = f"1 0 0:1 / {tmp_path}/sub rw - tmpfs tmpfs rw\n"
    assert found(spec, mountinfo=text) == []
    assert found(spec, mountinfo=text, resolve=lambda path: path.replace("/var/run", "/run")) == []
    assert found(spec, mountinfo=text, resolve=os.path.normpath) == [("mount_source_nested", "/var/run/data")]


def test_a_device_that_has_another_name_here(tmp_path: Path) -> None:
    device = {"path": str(tmp_path / "none"), "type": "c", "major": 10, "minor": 237}
    here = container_mounts.Node(exists={"/sys/dev/char/10:237"}.__contains__)
    assert found(spec_of(devices=[device]), node=here) == []
    elsewhere = container_mounts.Node(exists={"/sys/dev/block/10:237"}.__contains__)
    assert found(spec_of(devices=[device]), node=elsewhere) == [("device_missing", str(tmp_path / "none"))]


def test_what_criu_is_told_of_alone_needs_its_source(tmp_path: Path) -> None:
    spec = spec_of()
    spec["annotations"] = {"io.gpuops.restore/external-mounts": f'{{"/proc/driver/nvidia/params": "{tmp_path}/none"}}'}
    assert found(spec) == [("mount_source_missing", "/proc/driver/nvidia/params")]
    (tmp_path / "none").touch()
    assert found(spec) == []


def test_mounts_of_the_dump_that_nobody_names(tmp_path: Path) -> None:
    """Nor by way of a link, as far as that can be seen."""
    criu_samples.dump_mounts(
        tmp_path,
        "/sys/fs/cgroup/memory",
        "/dev/zero",
        "/dev/nvidia0",
        "/lib/libcuda.so.1",
        "/run/data",
        "/data",
        "/proc/driver/params",
    )
    gpu = {"path": "/dev/nvidia0", "type": "c"}
    groups = {"destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup"}
    spec = spec_of(bind("/var/run/data", "/x"), bind("/data", "/y"), groups, devices=[gpu])
    spec["annotations"] = {"io.gpuops.restore/external-mounts": '{"/proc/driver/params": "/z"}'}
    (problem,) = container_mounts.unnamed(str(tmp_path), spec)
    assert (problem.code, problem.details) == ("mount_unnamed", {"destination": "/lib/libcuda.so.1"})
    assert "added_mounts: '/lib/libcuda.so.1': SOURCE" in problem.remedy
    assert container_mounts.unnamed(str(tmp_path / "none"), spec) == []
    (tmp_path / "mountpoints-1.img").write_bytes(b"something else")
    assert container_mounts.unnamed(str(tmp_path), spec) == []


def test_of_many_nested_mounts_the_first_five_are_named(tmp_path: Path) -> None:
    def message(count: int) -> str:
        lines = [f"{number} 1 0:30 / {tmp_path}/{number} rw - tmpfs tmpfs rw\n" for number in range(count)]
        (problem,) = container_mounts.problems(spec_of(bind("/data", tmp_path)), mountinfo="".join(lines))
        assert len(problem.details["nested"]) == count
        return problem.message

    five = ", ".join(f"{tmp_path}/{number}" for number in range(5))
    assert f"below which {five} is mounted:" in message(5)
    assert f"below which {five} and more is mounted:" in message(6)


def test_devices(tmp_path: Path) -> None:
    devices = [
        {"path": "/dev/null", "type": "c", "major": 1, "minor": 3},
        {"path": "/dev/zero", "type": "c", "major": 1, "minor": 3},
        {"path": "/dev/null", "type": "b", "major": 1, "minor": 3},
        {"path": str(tmp_path / "none"), "type": "c", "major": 195, "minor": 0},
    ]
    assert found(spec_of(devices=devices)) == [
        ("device_mismatch", "/dev/zero"),
        ("device_mismatch", "/dev/null"),
        ("device_missing", str(tmp_path / "none")),
    ]


def test_network_namespaces(tmp_path: Path) -> None:
    plain = tmp_path / "plain"
    plain.write_text("")
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    assert found(spec_of(network="/proc/self/ns/net")) == []
    assert found(spec_of(network="/proc/self/ns/uts")) == [("netns_invalid", "/proc/self/ns/uts")]
    assert found(spec_of(network=str(plain))) == [("netns_invalid", str(plain))]
    assert found(spec_of(network=str(fifo))) == [("netns_invalid", str(fifo))]
    gone = str(tmp_path / "gone")
    assert found(spec_of(network=gone)) == [("netns_missing", gone)]
    assert found(spec_of(network=gone), planned=[gone]) == []


def test_a_socket_is_not_a_network_namespace(tmp_path: Path) -> None:
    path = str(tmp_path / "s")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(path)
        assert [code for code, _path in found(spec_of(network=path))] == ["netns_missing"]


def test_planned_sources_are_not_looked_at(tmp_path: Path) -> None:
    source = tmp_path / "later"
    assert found(spec_of(bind("/dev/shm", source)), planned={str(source)}) == []


def test_the_own_mountinfo_is_read() -> None:
    assert container_mounts.problems(spec_of()) == []
    assert any(mount.mount_point == "/" for mount in mountinfo.parse(mountinfo.read()))


def test_no_spec() -> None:
    with pytest.raises(InputError):
        container_mounts.problems({}, mountinfo="")


def test_mountinfo_lines_of_other_forms_are_left_out() -> None:
    text = "36 35 98:0 /mnt1 /mnt\\0402 rw,noatime master:1 - ext3 /dev/root rw,errors=continue\n"
    text += "nonsense\n1 2 - x y z\n"
    assert mountinfo.parse(text) == [
        mountinfo.Mount("/mnt 2", "/mnt1", "ext3", "/dev/root", ("rw", "noatime"), ("rw", "errors=continue"))
    ]


# --- what the container had where something is mounted, told without mounting it


class Mount(NamedTuple):
    """As containerd gives them."""

    type: str
    source: str
    options: list[str]


@pytest.fixture
def layers(tmp_path: Path) -> list[Any]:
    """A writable layer above two others, as an overlay."""
    upper, middle, lowest = (tmp_path / name for name in ("upper", "middle", "lowest"))
    (upper / "data/volume").mkdir(parents=True)
    (upper / "conf").write_text("x")
    (middle / "etc").mkdir(parents=True)
    (middle / "etc/hosts").write_text("x")
    (middle / "link").symlink_to("etc")
    # The upper layer's file covers the lower one's directory.
    (middle / "top").mkdir()
    (middle / "top" / "hosts").touch()
    (upper / "top").touch()
    (lowest / "conf").mkdir(parents=True)
    options = ["index=off", f"workdir={tmp_path}/work", f"upperdir={upper}", f"lowerdir={middle}:{lowest}"]
    return [Mount("overlay", "overlay", options)]


@pytest.mark.parametrize(
    ("destination", "kind"),
    [
        ("/data/volume", "directory"),
        ("/data/volume/", "directory"),
        ("/conf", "file"),  # the topmost layer wins
        ("/etc/hosts", "file"),
        ("/gone", None),
        ("/link", "directory"),
        ("/link/hosts", "file"),  # as runc follows it
        ("/top/hosts", None),
        ("/conf/below", None),
    ],
)
def test_kinds_in_an_overlay(layers: list[Any], destination: str, kind: str | None) -> None:
    found = container_mounts.bind_kinds(layers, [bind(destination, "/x")])
    assert found.get(destination.rstrip("/")) == kind


def test_first_container_of_a_snapshot_without_parent(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    assert container_mounts.bind_kinds([Mount("bind", str(tmp_path), ["rbind"])], [bind("/data", "/x")]) == {
        "/data": "directory"
    }


def test_unknown_file_systems_tell_nothing() -> None:
    assert container_mounts.bind_kinds([Mount("btrfs", "/dev/x", [])], [bind("/data", "/x")]) == {}


def test_what_another_mount_covers_is_not_told(layers: list[Any]) -> None:
    tmpfs = {"destination": "/data", "type": "tmpfs", "source": "tmpfs"}
    assert container_mounts.bind_kinds(layers, [tmpfs, bind("/data/volume", "/x")]) == {}
    assert container_mounts.bind_kinds(layers, [{**tmpfs, "destination": "/data/volume"}]) == {}
