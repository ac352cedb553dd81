# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Options that are in CRIU's configuration for one dump, and nothing of them afterwards."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.gpuops.restore.plugins.module_utils._core import labels
from ansible_collections.gpuops.restore.plugins.module_utils._core.errors import NodeError
from ansible_collections.gpuops.restore.plugins.module_utils._criu import dump_config
from ansible_collections.gpuops.restore.plugins.module_utils._criu.dump_config import DumpConfig

#: A process that is gone.
STALE = "# gpuops-restore begin {} 1 after {}\nlink-remap\n# gpuops-restore end {}\n".format


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "criu" / "runc.conf"


def options(path: Path) -> list[str]:
    """As CRIU reads them."""
    return [line for line in path.read_text(encoding="utf-8").splitlines() if not line.startswith("#")]


@pytest.mark.parametrize("text", ["", "verbosity=4\n", "# a note\ntcp-established # mine"])
def test_what_was_there_stays_as_it_was(path: Path, text: str) -> None:
    path.parent.mkdir()
    path.write_text(text, encoding="utf-8")
    path.chmod(0o640)
    with DumpConfig(str(path), False).for_dump(["link-remap"]):
        assert options(path)[-1] == "link-remap"
        assert path.read_text(encoding="utf-8").startswith(text)
        assert path.stat().st_mode & 0o777 == 0o640
    assert path.read_text(encoding="utf-8") == text
    assert [entry.name for entry in path.parent.iterdir()] == ["runc.conf"]


@pytest.mark.parametrize("directory", [False, True])
def test_what_was_not_there_is_gone(path: Path, directory: bool) -> None:
    if directory:
        path.parent.mkdir()
    with DumpConfig(str(path), False).for_dump(["link-remap", "ghost-limit=4096"]):
        assert options(path) == ["link-remap", "ghost-limit=4096"]
    assert path.parent.exists() is directory
    assert not path.exists()


def test_a_link_stays_one(path: Path, tmp_path: Path) -> None:
    path.parent.mkdir()
    (tmp_path / "real.conf").write_text("verbosity=4\n", encoding="utf-8")
    path.symlink_to(tmp_path / "real.conf")
    with DumpConfig(str(path), False).for_dump(["link-remap"]):
        assert path.is_symlink() and options(path) == ["verbosity=4", "link-remap"]
    assert path.is_symlink() and options(path) == ["verbosity=4"]


@pytest.mark.parametrize(("before", "exists"), [("nothing", False), ("directory", False), ("file", True)])
def test_the_next_run_takes_away_what_a_killed_one_has_left(path: Path, before: str, exists: bool) -> None:
    path.parent.mkdir()
    gone = 2**22 + 1
    path.write_text(STALE(gone, before, gone), encoding="utf-8")
    with DumpConfig(str(path), False).for_dump(["file-locks"]):
        assert options(path) == ["file-locks"]
    if exists:
        assert path.read_text(encoding="utf-8") == ""
    path.parent.mkdir(exist_ok=True)
    path.write_text(STALE(gone, before, gone), encoding="utf-8")
    dump_config.remove_stale(str(path))
    assert path.exists() is exists


def test_what_a_living_one_has_is_left_alone(path: Path) -> None:
    """Its process is not this one: of two dumps at a time each takes away its own."""
    path.parent.mkdir()
    pid = os.getppid()
    start = dump_config.processes.start_time(pid)
    other = f"# gpuops-restore begin {pid} {start} after nothing\nlink-remap\n# gpuops-restore end {pid}\n"
    path.write_text(other, encoding="utf-8")
    with DumpConfig(str(path), False).for_dump(["file-locks"]):
        assert options(path) == ["link-remap", "file-locks"]
        dump_config.remove_stale(str(path))
    assert path.read_text(encoding="utf-8") == other


@pytest.mark.parametrize(
    ("text", "found"),
    [("link-remap\n", True), ("  link-remap # yes", True), ("# link-remap\n", False), (STALE(1, "file", 1), False)],
)
def test_an_option_that_is_there_already(path: Path, text: str, found: bool) -> None:
    assert not DumpConfig(str(path), False).has("link-remap")
    path.parent.mkdir()
    path.write_text(text, encoding="utf-8")
    assert DumpConfig(str(path), False).has("link-remap") is found


def test_a_file_that_cannot_be_written(path: Path) -> None:
    path.parent.write_text("no directory", encoding="utf-8")
    with pytest.raises(NodeError) as caught, DumpConfig(str(path), False).for_dump(["link-remap"]):
        pass
    assert caught.value.code == "criu_config_unwritable"
    assert "link-remap" in caught.value.remedy


@pytest.mark.parametrize(
    ("spec", "found"),
    [
        ({}, ("/etc/criu/runc.conf", False, True)),
        ({"annotations": {"org.criu.config": "/x/criu.conf"}}, ("/x/criu.conf", True, True)),
        ({"annotations": {"org.criu.config": "/etc/passwd"}}, ("/etc/passwd", False, False)),
        ({"annotations": {"org.criu.config": ""}}, ("", False, False)),
    ],
)
def test_the_file_that_runc_names(spec: dict[str, Any], found: tuple[str, bool, bool]) -> None:
    config = dump_config.config_of(spec, {labels.OWNER: "gpuops.restore"})
    assert (config.path, config.ours, config.writable) == found
    foreign = dump_config.config_of(spec, {})
    assert not foreign.ours and foreign.writable is (config.path == "/etc/criu/runc.conf")


# --- a configuration of a container that was restored


OWN = "log-file=/x/restore.log\nverbosity=4\nmanage-cgroups=ignore\ntcp-close\nghost-limit=1M\n"


@pytest.fixture
def own(tmp_path: Path, path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """It, beside the node's."""
    path.parent.mkdir()
    path.write_text("# the node's\nlog-file=/y\nghost-limit 16M # mine\ntimeout 60\n", encoding="utf-8")
    monkeypatch.setattr(dump_config, "NODE_CONFIG", str(path))
    (tmp_path / "work").mkdir()
    (tmp_path / "work" / "criu.conf").write_text(OWN, encoding="utf-8")
    return tmp_path / "work" / "criu.conf"


def test_at_a_dump_the_nodes_holds_and_what_the_restore_was_told_does_not(own: Path) -> None:
    config = DumpConfig(str(own), True)
    assert config.has("timeout") and not config.has("tcp-close")
    assert (config.value("ghost-limit"), config.value("file-locks")) == ("16M", "")
    with config.for_dump(["file-locks"]):
        kept = ["log-file=/x/restore.log", "verbosity=4", "manage-cgroups=ignore"]
        assert options(own) == [*kept, "ghost-limit 16M", "timeout 60", "file-locks"]
        assert config.has("timeout") and not config.has("file-locks"), "what a run added is not its own"
    assert own.read_text(encoding="utf-8") == OWN


def test_at_a_dump_nothing_of_the_restore_holds_even_where_nothing_is_needed(own: Path, path: Path) -> None:
    path.unlink()
    with DumpConfig(str(own), True).for_dump([]):
        assert not any("tcp-close" in line for line in options(own))
    assert own.read_text(encoding="utf-8") == OWN


def test_at_a_restore_the_nodes_holds_where_the_own_does_not_say_otherwise(own: Path, path: Path) -> None:
    with DumpConfig(str(own), True).for_restore():
        assert options(own) == [*OWN.splitlines(), "timeout 60"]
    assert own.read_text(encoding="utf-8") == OWN
    before = path.read_text(encoding="utf-8")
    with DumpConfig(str(path), False).for_restore():
        assert path.read_text(encoding="utf-8") == before


def test_what_was_out_of_force_when_a_run_was_killed_is_in_force_again(own: Path) -> None:
    gone = 2**22 + 1
    text = OWN.replace("tcp-close", "# gpuops-restore hidden: tcp-close") + STALE(gone, "file", gone)
    own.write_text(text, encoding="utf-8")
    dump_config.remove_stale(str(own))
    assert own.read_text(encoding="utf-8") == OWN


# --- several at a time


def test_of_two_dumps_at_a_time_both_have_the_larger_limit(path: Path) -> None:
    """The last line counts for both."""
    pid = os.getppid()
    start = dump_config.processes.start_time(pid)
    other = f"# gpuops-restore begin {pid} {start} after nothing\nghost-limit=4096\n# gpuops-restore end {pid}\n"
    path.parent.mkdir()
    path.write_text(other, encoding="utf-8")
    config = DumpConfig(str(path), False)
    with config.for_dump(["ghost-limit=1024"]):
        assert options(path) == ["ghost-limit=4096", "ghost-limit=4096"]
    with config.for_dump(["ghost-limit=8192"]):
        assert options(path)[-1] == "ghost-limit=8192"
        # The other one is done first.
        path.write_text(path.read_text(encoding="utf-8").replace(other, ""), encoding="utf-8")
    assert not path.parent.exists(), "there was nothing before the first"


# --- how the network is locked


@pytest.mark.parametrize(
    ("default", "node", "extra", "method"),
    [
        ("", "", [], "iptables"),
        ("network-lock skip\n", "", [], "skip"),
        ("network-lock skip\n", "network-lock=nftables\n", [], "nftables"),
        ("", "# network-lock skip\n", ["network-lock=skip"], "skip"),
        ("network-lock skip\n", "", ["network-lock=iptables"], "iptables"),
    ],
)
def test_the_lock_of_the_network(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, default: str, node: str, extra: list[str], method: str
) -> None:
    for name, text in (("DEFAULT_CONFIG", default), ("NODE_CONFIG", node)):
        (tmp_path / name).write_text(text, encoding="utf-8")
        monkeypatch.setattr(dump_config, name, str(tmp_path / name))
    config = dump_config.config_of({}, {})
    assert config.network_lock(extra) == method
    told = dump_config.lock_recorded(method)
    assert dump_config.locks_by_iptables([*told, "file-locks"], config) is (method == "iptables")
    if not extra:
        assert dump_config.locks_by_iptables(None, config) is (method == "iptables"), "nobody recorded it"
