# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What CRIU is told of, looked for in this process, and what becomes of it by each option."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.gpuops.restore.plugins.module_utils._capture import needs
from ansible_collections.gpuops.restore.plugins.module_utils._capture.needs import Found, Lock
from ansible_collections.gpuops.restore.plugins.module_utils._capture.params import DumpOptions
from ansible_collections.gpuops.restore.plugins.module_utils._capture.tcp_sockets import Connection, Ended
from ansible_collections.gpuops.restore.plugins.module_utils._capture.unix_sockets import Outside
from ansible_collections.gpuops.restore.plugins.module_utils._capture.unlinked_files import LAYER, UnlinkedFile
from ansible_collections.gpuops.restore.plugins.module_utils._containerd.containers import Container
from ansible_collections.gpuops.restore.plugins.module_utils._core import labels
from ansible_collections.gpuops.restore.plugins.module_utils._core.errors import RETRYABLE, InputError
from ansible_collections.gpuops.restore.plugins.module_utils._criu import dump_config

ME = os.getpid()
MIB = 1 << 20


def container(annotations: dict[str, str] | None = None, **owner: str) -> Container:
    return Container("box", "", owner, "", None, {"annotations": annotations or {}}, "", "")


def look() -> Found:
    return needs.look(container(), ME, [ME])


@pytest.fixture(autouse=True)
def config(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """The node's configuration, which is not there."""
    monkeypatch.setattr(dump_config, "NODE_CONFIG", str(tmp_path / "runc.conf"))
    return tmp_path / "runc.conf"


# --- what there is


def test_locks_of_every_kind(tmp_path: Path) -> None:
    """Also one by flock, whose owner in the kernel's list is a process that has ended."""
    path = tmp_path / "lock"
    with path.open("w") as one, (tmp_path / "other").open("w") as other:
        assert not [lock for lock in look().locks if str(tmp_path) in lock.path]
        lock = "import fcntl, sys; fcntl.flock(int(sys.argv[1]), fcntl.LOCK_EX)"
        subprocess.run([sys.executable, "-c", lock, str(one.fileno())], pass_fds=[one.fileno()], check=True)
        fcntl.lockf(other, fcntl.LOCK_EX)
        locks = {(lock.kind, lock.path) for lock in look().locks}
        assert {("FLOCK", str(path)), ("POSIX", str(tmp_path / "other"))} <= locks


def test_who_has_ended_has_nothing() -> None:
    assert needs.look(container(), 2**22 + 1, [2**22 + 1]) == Found()


# --- what is told


def file(size: int, inode: int = 1) -> UnlinkedFile:
    return UnlinkedFile(7, f"/dev/shm/nccl-{inode}", LAYER, "", (1, inode), 0, size)


WITHIN, ELSEWHERE = Connection("127.0.0.1:1", "127.0.0.1:2", True), Connection("10.0.0.2:1", "10.0.0.3:2", False)
CLOSED, UNREAD = Ended("127.0.0.1:1", "127.0.0.1:2"), Ended("127.0.0.1:1", "127.0.0.1:2", 5)
MOVED, MOVED_UNREAD = Ended("10.0.0.2:1", "10.0.0.3:2"), Ended("[::ffff:10.0.0.2]:1", "[::ffff:10.0.0.3]:2", 5)
LOCK = Lock(7, "app", "FLOCK", "/var/lock")
TAKEN = Outside(7, "app", "datagram", "/dev/log", True)
STREAM = Outside(7, "app", "stream", "/run/x.sock", False)
LINKED = UnlinkedFile(7, "/dev/shm/sem", LAYER, "", (1, 9))


@pytest.mark.parametrize(
    ("found", "option", "line"),
    [
        (Found(connections=(WITHIN,)), "tcp_established", "tcp-established"),
        (Found(waiting=(("127.0.0.1:7000", 2),)), "skip_in_flight", "skip-in-flight"),
        (Found(locks=(LOCK,)), "file_locks", "file-locks"),
        (Found(outside=(TAKEN,)), "ext_unix_sk", "ext-unix-sk"),
        (Found(unlinked=(LINKED,)), "link_remap", "link-remap"),
        (Found(nameless=(file(34 * MIB - 5), file(2 * MIB, 2))), "ghost_limit", f"ghost-limit={34 * MIB}"),
    ],
)
def test_each_where_it_is_needed_always_or_never(found: Found, option: str, line: str) -> None:
    def told(there: Found, how: str) -> list[str]:
        return [need.line for need in needs.needs(there, DumpOptions(**{option: how}))]  # type: ignore[arg-type]

    assert (told(Found(), "auto"), told(found, "auto"), told(found, "false")) == ([], [line], [])
    always = f"ghost-limit={4 << 30}" if option == "ghost_limit" else line
    assert told(Found(), "true") == told(found, "true") == [always]
    (need,) = needs.needs(found, DumpOptions())
    assert need.why != "it was asked for" and need.result() == {
        "option": need.option,
        "value": need.value,
        "why": need.why,
    }
    assert needs.problems(container(), found, DumpOptions()) == []
    assert len(needs.problems(container(), found, DumpOptions(**{option: "false"}))) == 1  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("found", "how", "told"),
    [
        # Whoever forbids connections does not mean those that have ended.
        ((CLOSED, MOVED), "auto", "tcp-close"),
        ((CLOSED, MOVED), "false", "tcp-close"),
        ((CLOSED, MOVED), "true", "tcp-established"),
        ((CLOSED, UNREAD), "auto", "tcp-established"),
        ((CLOSED, WITHIN), "auto", "tcp-established"),
        ((CLOSED, ELSEWHERE), "true", "tcp-established"),
        ((Ended("", ""),), "auto", "tcp-close"),
    ],
)
def test_what_has_ended_is_closed_unless_something_has_to_be_connected(
    found: tuple[Connection | Ended, ...], how: str, told: str
) -> None:
    """No dump is told to close: it would close what lives, too."""
    options = DumpOptions(tcp_established=how)
    there = Found(
        connections=tuple(one for one in found if isinstance(one, Connection)),
        ended=tuple(one for one in found if isinstance(one, Ended)),
    )
    chosen = needs.needs(there, options)
    assert ([need.option for need in chosen], needs.lines(chosen, options)) == ([told], [])
    assert str(found[0]) in chosen[0].why or how == "true" or told == "tcp-established"
    assert needs.recorded(chosen, container(), options) == (told,)
    assert needs.problems(container(), there, options) == []


@pytest.mark.parametrize(
    ("connections", "ended", "options", "shown"),
    [
        ((), (UNREAD, MOVED_UNREAD), {}, "a TCP connection ([::ffff:10.0.0.2]:1 -> [::ffff:10.0.0.3]:2, ended, 5 "),
        ((), (UNREAD, MOVED), {}, "a TCP connection (10.0.0.2:1 -> 10.0.0.3:2, ended)"),
        ((WITHIN,), (CLOSED, MOVED), {}, "a TCP connection (10.0.0.2:1 -> 10.0.0.3:2, ended)"),
        ((), (UNREAD, CLOSED), {"tcp_established": "false"}, "a TCP connection (127.0.0.1:1 -> 127.0.0.1:2, ended, 5 "),
    ],
)
def test_what_needs_its_address_again_has_to_be_asked_for(
    connections: tuple[Connection, ...], ended: tuple[Ended, ...], options: dict[str, str], shown: str
) -> None:
    there = Found(connections=connections, ended=ended)
    (error,) = needs.problems(container(), there, DumpOptions(**options))  # type: ignore[arg-type]
    assert error.code == "tcp_connections"
    assert shown in error.message
    assert needs.problems(container(), there, DumpOptions(tcp_established="true")) == []


def test_an_address_that_a_connection_needs_anyway() -> None:
    own = Connection("10.0.0.2:7", "10.0.0.2:8", True)
    assert needs.problems(container(), Found(connections=(own,), ended=(MOVED, MOVED_UNREAD)), DumpOptions()) == []


def test_what_the_nodes_configuration_allows_is_closed_all_the_same(config: Path) -> None:
    config.write_text("tcp-established\n", encoding="ascii")
    chosen = needs.needs(Found(ended=(MOVED,)), DumpOptions())
    assert needs.recorded(chosen, container(), DumpOptions()) == ("tcp-close",)


def test_what_the_kernel_does_not_tell_is_told() -> None:
    (warning,) = needs.warnings(Found(ended=(Ended("", ""), CLOSED)), DumpOptions())
    assert "whether 1 of the TCP sockets have been connected" in warning


def test_files_up_to_what_criu_takes_by_itself_need_nothing() -> None:
    assert needs.needs(Found(nameless=(file(MIB),)), DumpOptions()) == []
    assert Found(nameless=(file(MIB), file(MIB), file(5, 2))).nameless_bytes == MIB + 5, "each file once"


def test_only_some_of_it_stands_in_the_configuration() -> None:
    found = Found(connections=(WITHIN,), locks=(LOCK,), unlinked=(LINKED,), nameless=(file(2 * MIB),))
    options = DumpOptions(extra=("force-irmap",))
    chosen = needs.needs(found, options)
    assert needs.lines(chosen, options) == ["link-remap", f"ghost-limit={2 * MIB}", "force-irmap"]
    assert needs.recorded(chosen, container(), options) == (
        "file-locks",
        "ghost-limit",
        "link-remap",
        "tcp-established",
    )


def test_what_the_nodes_configuration_allows_is_recorded_and_not_refused(config: Path) -> None:
    config.write_text("tcp-established\nfile-locks\nghost-limit 16M\n", encoding="ascii")
    found = Found(connections=(ELSEWHERE,), locks=(LOCK,), nameless=(file(2 * MIB),))
    options = DumpOptions(tcp_established="false", file_locks="false", ghost_limit="false")
    assert needs.needs(found, options) == needs.problems(container(), found, options) == []
    assert needs.recorded([], container(), options) == ("file-locks", "tcp-established")


def test_who_is_left_out_is_told() -> None:
    found = Found(waiting=(("127.0.0.1:7000", 2), ("127.0.0.1:7001", 1)))
    (warning,) = needs.warnings(found, DumpOptions())
    assert "3 TCP connections to 127.0.0.1:7000, 127.0.0.1:7001 that nobody has accepted" in warning
    assert needs.warnings(Found(), DumpOptions()) == []


# --- what is refused


@pytest.mark.parametrize(
    ("found", "options", "code", "shown"),
    [
        (Found(connections=(WITHIN, ELSEWHERE)), {}, "tcp_connections", "a TCP connection (10.0.0.2:1 -> 10.0.0.3:2)"),
        (Found(connections=(WITHIN,)), {"tcp_established": "false"}, "tcp_connections", "127.0.0.1:1 -> 127.0.0.1:2"),
        (Found(locks=(LOCK, LOCK)), {"file_locks": "false"}, "file_locks_held", "2 file locks (the first: FLOCK of"),
        (Found(waiting=(("[::]:1", 1),)), {"skip_in_flight": "false"}, "connections_in_flight", "1 TCP connection to"),
        (Found(outside=(STREAM, TAKEN)), {}, "unix_sockets_outside", "stream socket of process 7 (app) to /run/x.sock"),
        (Found(outside=(STREAM,)), {"ext_unix_sk": "true"}, "unix_sockets_outside", "/run/x.sock"),
        (Found(outside=(TAKEN,)), {"ext_unix_sk": "false"}, "unix_sockets_outside", "to /dev/log"),
        (Found(nameless=(file(3 * MIB),)), {"ghost_limit_max": 2 * MIB}, "unlinked_file_too_large", "/dev/shm/nccl-1"),
        (Found(nameless=(file(3 * MIB),)), {"ghost_limit": "false"}, "unlinked_file_too_large", "of process 7"),
    ],
)
def test_refused_with_the_thing(found: Found, options: dict[str, Any], code: str, shown: str) -> None:
    (error,) = needs.problems(container(), found, DumpOptions(**options))
    assert error.code == code
    assert shown in error.message
    assert (error.outcome == RETRYABLE) is (code == "connections_in_flight")


@pytest.mark.parametrize("place", ["/x/criu.conf", ""])
def test_a_configuration_of_somebody_else_is_not_written(place: str) -> None:
    found = Found(nameless=(file(2 * MIB),))
    foreign = container({"org.criu.config": place})
    (error,) = needs.problems(foreign, found, DumpOptions())
    assert error.code == "criu_config_foreign"
    assert f"ghost-limit={2 * MIB}" in error.remedy
    assert needs.problems(foreign, Found(locks=(LOCK,)), DumpOptions()) == [], "containerd's options suffice"
    ours = container({"org.criu.config": "/x/criu.conf"}, **{labels.OWNER: "gpuops.restore"})
    assert needs.problems(ours, found, DumpOptions()) == []


def test_lines_that_would_run_something() -> None:
    with pytest.raises(InputError) as caught:
        needs.problems(container(), Found(), DumpOptions(extra=("action-script=/bin/x",)))
    assert caught.value.code == "criu_option_refused"
