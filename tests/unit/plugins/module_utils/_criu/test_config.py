# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""CRIU's configuration file."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

import pytest

from ansible_collections.gpuops.restore.plugins.module_utils._core.errors import RETRYABLE, InputError, NodeError
from ansible_collections.gpuops.restore.plugins.module_utils._criu import config as criu_config
from ansible_collections.gpuops.restore.plugins.module_utils._criu.config import CriuOptions


def lines(options: CriuOptions, log_file: str | None = None) -> list[str]:
    """The lines of the file."""
    text = criu_config.render(options, log_file)
    assert text.endswith("\n")
    return text.splitlines()


def test_defaults() -> None:
    # With "=": CRIU reads "manage-cgroups ignore" as manage-cgroups=soft, its argument being optional.
    assert lines(CriuOptions()) == ["verbosity=4", "manage-cgroups=ignore"]


def test_everything() -> None:
    options = CriuOptions(
        tcp="established", file_locks="true", ext_unix_sk="true", manage_cgroups="full", extra=("link-remap",)
    )
    assert lines(options, "/var/lib/x/restore.log") == [
        "log-file=/var/lib/x/restore.log",
        "verbosity=4",
        "manage-cgroups=full",
        "tcp-established",
        "file-locks",
        "ext-unix-sk",
        "link-remap",
    ]
    assert "tcp-close" in lines(CriuOptions(tcp="close"))


@pytest.mark.parametrize(
    ("line", "written"),
    [
        ("ghost-limit 10M", "ghost-limit=10M"),
        ("ghost-limit=10M", "ghost-limit=10M"),
        ("  cpu-cap\tins ", "cpu-cap=ins"),
        ("lsm-profile apparmor:cri-containerd.apparmor.d", "lsm-profile=apparmor:cri-containerd.apparmor.d"),
        ("external mnt[/data]:/srv/a=b", "external=mnt[/data]:/srv/a=b"),
        ("empty-ns net", "empty-ns=net"),
        ("no-mntns-compat-mode", "no-mntns-compat-mode"),
        ("timeout 60", "timeout=60"),
    ],
)
def test_extra_lines(line: str, written: str) -> None:
    assert lines(CriuOptions(extra=[line]))[-1] == written


@pytest.mark.parametrize(
    "line",
    [
        "images-dir /tmp",
        "images-dir=/tmp",
        "action-script /bin/x",
        "exec-cmd",
        "work-dir /x",
        "log-file /x",
        "config /x",
        "libdir /x",
        "inherit-fd fd[3]:x",
        "root /",
        # getopt takes beginnings of names.
        "imag /tmp",
        "act=/bin/x",
        "log-f /x",
        "manage-cgroups soft",
        "manage-cg=soft",
        "no-restore-detached",
        "no-tcp-established",
        "no-",
        # Not one option a line.
        "",
        "   ",
        "# comment",
        "--link-remap",
        "-L /x",
        "D /x",
        "link-remap\nimages-dir /x",
        "ghost-limit 10M\nimages-dir /x",
        "ghost-limit\n10M",
        "ghost-limit 10M 20M",
        'lsm-profile "a b"',
        "lsm-profile a#b",
        "lsm-profile a\\b",
        "ghost-limit=",
        "ghost-limit\r=1",
        "ghost-limit 1\x00",
    ],
)
def test_extra_lines_refused(line: str) -> None:
    with pytest.raises(InputError) as caught:
        lines(CriuOptions(extra=["link-remap", line]))
    assert caught.value.code == "criu_option_refused"
    assert repr(line) in caught.value.message


@pytest.mark.parametrize(
    ("options", "log_file"),
    [
        (CriuOptions(tcp="maybe"), None),
        (CriuOptions(manage_cgroups="soft\nroot /"), None),
        (CriuOptions(), "restore.log"),
        (CriuOptions(), "/a b/restore.log"),
        (CriuOptions(), "/a#b/restore.log"),
        (CriuOptions(), "/a\nroot /"),
    ],
)
def test_invalid_choices(options: CriuOptions, log_file: str | None) -> None:
    with pytest.raises(InputError) as caught:
        lines(options, log_file)
    assert caught.value.code == "criu_option_invalid"


def test_write_once(tmp_path: Path) -> None:
    path = tmp_path / "work" / "k8s.io" / "criu.conf"
    old = os.umask(0)
    try:
        assert criu_config.write(str(path), "verbosity=4\n") is True
    finally:
        os.umask(old)
    assert path.read_text() == "verbosity=4\n"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert criu_config.write(str(path), "verbosity=4\n") is False
    assert criu_config.write(str(path), "verbosity=4\ntcp-close\n") is True
    path.chmod(0o644)
    assert criu_config.write(str(path), "verbosity=4\ntcp-close\n") is True
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    path.parent.chmod(0o755)
    assert criu_config.write(str(path), "verbosity=4\ntcp-close\n") is True
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert os.listdir(path.parent) == ["criu.conf"]


def test_a_link_is_replaced_not_followed(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("keep")
    victim.chmod(0o600)
    path = tmp_path / "work" / "criu.conf"
    path.parent.mkdir()
    path.symlink_to(victim)
    assert criu_config.write(str(path), "keep") is True
    assert not path.is_symlink()
    assert victim.read_text() == "keep"


def test_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(NodeError) as caught:
        criu_config.write(str(tmp_path / "work" / "criu.conf"), "x")
    assert (caught.value.code, caught.value.outcome) == ("disk_full", RETRYABLE)
    assert os.listdir(tmp_path / "work") == []


def test_an_unwritable_place(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(NodeError) as caught:
        criu_config.write(str(tmp_path / "file" / "criu.conf"), "x")
    assert caught.value.code == "criu_config_unwritable"
    (tmp_path / "work" / "criu.conf").mkdir(parents=True)
    with pytest.raises(NodeError) as caught:
        criu_config.write(str(tmp_path / "work" / "criu.conf"), "x")
    assert caught.value.code == "criu_config_unwritable"
    assert os.listdir(tmp_path / "work") == ["criu.conf"]


@pytest.mark.parametrize(
    ("told", "recorded", "lines_then"),
    [
        (CriuOptions(), (), []),
        (CriuOptions(), ("ext-unix-sk", "file-locks", "ghost-limit", "tcp-established"), None),
        (CriuOptions(tcp="close", file_locks="false", ext_unix_sk="false"), ("file-locks",), ["tcp-close"]),
        (CriuOptions(tcp="none"), ("tcp-established",), []),
        (CriuOptions(), ("tcp-close",), ["tcp-close"]),
        (CriuOptions(), ("tcp-close", "tcp-established"), ["tcp-established"]),
        (CriuOptions(tcp="established"), ("tcp-close",), ["tcp-established"]),
        (CriuOptions(tcp="none"), ("tcp-close",), []),
        (CriuOptions(tcp="established", file_locks="true"), (), ["tcp-established", "file-locks"]),
    ],
)
def test_a_restore_does_what_the_dump_did_unless_it_is_told_otherwise(
    told: CriuOptions, recorded: tuple[str, ...], lines_then: list[str] | None
) -> None:
    wanted = ["tcp-established", "file-locks", "ext-unix-sk"] if lines_then is None else lines_then
    assert lines(criu_config.taken_over(told, recorded))[2:] == wanted


def test_lines_of_a_dump() -> None:
    assert criu_config.dump_lines(["force-irmap", "timeout 60"]) == ["force-irmap", "timeout=60"]
    for refused in ("ghost-limit 8M", "link-remap", "skip-in", "shell-job", "tcp-close", "action-script x", "no-file"):
        with pytest.raises(InputError) as caught:
            criu_config.dump_lines([refused])
        assert caught.value.code == "criu_option_refused"


def test_mounts_that_criu_is_told_of() -> None:
    lines_of_it = criu_config.external_mounts({"/proc/b": "/srv/b", "/proc/a": "/srv/a"})
    assert lines_of_it == ["external=mnt[/proc/a]:/srv/a", "external=mnt[/proc/b]:/srv/b"]


@pytest.mark.parametrize("places", [{"/proc/a b": "/x"}, {"/proc/a": "/x#"}, {"/proc/a]": "/x"}])
def test_mounts_whose_paths_a_configuration_cannot_carry(places: dict[str, str]) -> None:
    with pytest.raises(InputError) as caught:
        criu_config.external_mounts(places)
    assert caught.value.code == "criu_option_invalid"
