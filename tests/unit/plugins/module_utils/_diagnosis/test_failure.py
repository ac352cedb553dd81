# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.gpuops.restore.plugins.module_utils._core.errors import (
    UNKNOWN,
    DeadlineError,
    RpcError,
    UnavailableError,
)
from ansible_collections.gpuops.restore.plugins.module_utils._diagnosis import failure

TEXT = "runc did not terminate successfully: criu failed: type NOTIFY errno 0\npath= /x/dump.log: unknown"


def error(kind: type[RpcError] = RpcError) -> RpcError:
    return kind("rpc_failed", "It failed.", rpc="Tasks/Checkpoint", details={"status": "UNKNOWN", "text": TEXT})


def test_criu_says_it_and_the_table_knows_it(tmp_path: Path) -> None:
    log = tmp_path / "dump.log"
    log.write_text(
        "(00.000001) Version: 4.1\n"
        "(00.010000) Error (criu/sk-inet.c:191): inet: Connected TCP socket, consider using --tcp-established option.\n"
        "(00.020000) Error (criu/cr-dump.c:1768): Dump files (pid: 7) failed with -1\n",
        encoding="utf-8",
    )
    found = failure.explain_dump("box", error(), str(log))
    assert (found.code, found.rpc) == ("criu_dump_failed", "Tasks/Checkpoint")
    assert "Connected TCP socket" in found.message
    assert found.details["kind"] and found.details["cause"] and found.remedy
    assert any("sk-inet.c" in line for line in found.details["errors"])
    assert "log" not in found.details, "the log goes with the half-made dump"


def test_a_reason_that_nobody_knows_is_quoted(tmp_path: Path) -> None:
    log = tmp_path / "dump.log"
    log.write_text("(00.010000) Error (criu/new.c:1): Flux capacitor is off\n", encoding="utf-8")
    found = failure.explain_dump("box", error(), str(log))
    assert "Flux capacitor is off" in found.message
    assert "not known here" in found.message


def test_an_error_is_quoted_before_a_warning(tmp_path: Path) -> None:
    log = tmp_path / "dump.log"
    warning = "(00.1) Warn  (criu/cr-restore.c:1050): Set CLONE_PARENT | CLONE_NEWPID\n"
    log.write_text(warning + "(00.2) Error (criu/a.c:1): Something new\n", encoding="ascii")
    message = failure.explain_dump("box", error(), str(log)).message
    assert "Something new" in message and "CLONE_PARENT" not in message


NOISE = (
    "iptables: Bad rule (does a matching rule exist in that chain?).\n"
    "(00.001) Error (criu/util.c:1533): rlimit: Can't setup RLIMIT_NOFILE for self: Operation not permitted\n"
    "(00.002) Warn  (criu/cr-restore.c:1050): Set CLONE_PARENT | CLONE_NEWPID but it might cause restore problem\n"
    "(00.003) Warn  (compel/arch/x86/src/lib/infect.c:281): Will restore 1241 with interrupted system call\n"
)
END = "(00.9) Error (criu/cr-dump.c:2111): Dumping FAILED.\n"


def test_the_first_error_is_the_headline_and_the_part_is_named(tmp_path: Path) -> None:
    log = tmp_path / "dump.log"
    line = "Error (criu/timer.c:999): The hourglass is upside down"
    log.write_text(f"{NOISE}(00.1) {line}\n(00.2) Error (criu/util.c:1): Something else\n{END}", encoding="ascii")
    found = failure.explain_dump("box", error(), str(log))
    assert f"CRIU says: «{line}»." in found.message and "not known here" in found.message
    assert (found.details["kind"], found.outcome) == ("unknown-timers", UNKNOWN)
    assert "timer" in found.details["cause"] and "/proc/PID/timers" in found.remedy


@pytest.mark.parametrize("noise", [NOISE, NOISE + END])
def test_noise_is_no_cause(tmp_path: Path, noise: str) -> None:
    log = tmp_path / "dump.log"
    log.write_text(noise, encoding="ascii")
    found = failure.explain_dump("box", error(), str(log))
    assert found.details["kind"] == "unknown"
    assert "CLONE_PARENT" not in found.message and "Bad rule" not in found.message


@pytest.mark.parametrize(("criu", "known"), [("4.1.1", True), ("4.2.1", False)])
def test_what_is_known_of_the_versions_is_told(tmp_path: Path, criu: str, known: bool) -> None:
    log = tmp_path / "dump.log"
    head = f"(00.000000) Version: {criu} (gitid v4)\n(00.000010) Running on node Linux 6.18.44 #1 SMP x86_64\n"
    log.write_text(f"{head}(00.1) Error (criu/sk-inet.c:9): inet: Something new\n", encoding="ascii")
    found = failure.explain_dump("box", error(), str(log))
    assert found.details["kind"] == "unknown-sockets-inet"
    assert ("CRIU 4.2 or newer" in found.remedy) is known


SENTENCES = {
    "systemd not running on this host, cannot use systemd cgroups manager": "cgroup-systemd-missing",
    'failed to write "500": write /sys/fs/cgroup/x/cpuset.cpus: numerical result out of range': "cgroup-cpus-absent",
    "fork/exec /opt/rt/runc: no such file or directory": "runtime-program-missing",
    "unable to apply apparmor profile: the moon is full": "unknown-security-labels",
    "seccomp: filter of the third kind is not to be had": "unknown-seccomp",
    "the flux capacitor is off": "unknown",
}


@pytest.mark.parametrize("sentence", SENTENCES)
def test_where_the_runtime_refused_its_sentence_is_the_headline(tmp_path: Path, sentence: str) -> None:
    log = tmp_path / "restore.log"
    # An earlier attempt's.
    log.write_text("(00.1) Error (criu/sk-inet.c:191): inet: Connected TCP socket in image\n", encoding="ascii")
    text = f"failed to create shim task: OCI runtime restore failed: {sentence}: unknown"
    refused = RpcError("rpc_failed", "It failed.", rpc="Tasks/Create", details={"status": "UNKNOWN", "text": text})
    for explain, path in ((failure.explain_restore, str(log)), (failure.explain_dump, str(log))):
        found = explain("box", refused, path)
        assert found.details["kind"] == SENTENCES[sentence]
        assert found.message.startswith("The OCI runtime could not ") and f"«{sentence}»" in found.message
        assert "options" not in found.remedy and str(log) not in found.remedy
        assert found.details.get("log", "") == ""


def test_without_a_log_there_is_the_daemons_text() -> None:
    found = failure.explain_dump("box", error(), "/nonexistent/dump.log")
    assert found.code == "criu_dump_failed"
    assert "type NOTIFY errno 0" in found.details["daemon"]
    assert "\n" not in found.message


def test_a_daemon_that_went_away_is_not_a_failed_dump() -> None:
    gone = error(UnavailableError)
    assert failure.explain_dump("box", gone, "/nonexistent") is gone


def test_time_that_was_over() -> None:
    found = failure.explain_dump("box", error(DeadlineError), "/nonexistent")
    assert (found.code, found.outcome) == ("checkpoint_timeout", UNKNOWN)


@pytest.mark.parametrize("content", [b"", b"\xff\xfe\x00", b"no error here\n"])
def test_a_log_that_says_nothing(tmp_path: Path, content: bytes) -> None:
    log = tmp_path / "dump.log"
    log.write_bytes(content)
    assert failure.explain_dump("box", error(), str(log)).code == "criu_dump_failed"


def test_a_restore_whose_log_the_table_knows(tmp_path: Path) -> None:
    log = tmp_path / "restore.log"
    log.write_text(
        "(00.010000)      1: Error (criu/files-reg.c:2143): Can't open file app/data.bin on restore: "
        "No such file or directory\n"
        "(00.020000) Error (criu/cr-restore.c:2548): Restoring FAILED.\n",
        encoding="utf-8",
    )
    found = failure.explain_restore("box", error(), str(log))
    assert (found.code, found.rpc) == ("criu_restore_failed", "Tasks/Checkpoint")
    assert found.message.startswith(f"CRIU could not restore box: {found.details['cause']} CRIU says: «Error (criu/")
    assert found.remedy.endswith(f" The log is {log}.")
    assert (found.details["log"], found.details["kind"] != "unknown") == (str(log), True)


def test_a_restore_whose_reason_nobody_knows(tmp_path: Path) -> None:
    log = tmp_path / "restore.log"
    log.write_text("(00.010000) Error (criu/new.c:1): Flux capacitor is off\n", encoding="utf-8")
    found = failure.explain_restore("box", error(), str(log))
    assert "not known here: «Error (criu/new.c:1): Flux capacitor is off»" in found.message
    assert found.remedy.endswith(f" The log is {log}.")


def test_a_restore_that_did_not_begin_has_no_log() -> None:
    found = failure.explain_restore("box", error(), "/nonexistent/restore.log")
    assert (found.code, found.details["log"]) == ("criu_restore_failed", "")
    assert found.remedy.startswith("CRIU wrote no log")
    assert "type NOTIFY errno 0" in found.details["daemon"]


def test_a_daemon_that_went_away_is_not_a_failed_restore() -> None:
    gone = error(UnavailableError)
    assert failure.explain_restore("box", gone, "/nonexistent") is gone


def test_a_restore_whose_time_was_over_names_the_log() -> None:
    found = failure.explain_restore("box", error(DeadlineError), "/w/restore.log")
    assert (found.code, found.outcome) == ("restore_timeout", UNKNOWN)
    assert found.details == {"log": "/w/restore.log"}


@pytest.mark.parametrize("content", ["log-file={log}\nverbosity=4\n", "verbosity=4\nlog-file {log}\n"])
def test_a_configuration_of_its_own_says_where_the_log_is(tmp_path: Path, content: str) -> None:
    config, log = tmp_path / "criu.conf", tmp_path / "restore.log"
    config.write_text(content.format(log=log))
    spec = {"annotations": {"org.criu.config": str(config)}}
    begun = time.time()
    log.write_text("of the dump")
    assert failure.dump_log(spec, "/w", begun) == str(log)
    # It is still the restore's.
    os.utime(log, (begun - 60, begun - 60))
    assert failure.dump_log(spec, "/w", begun) == "/w/dump.log"


@pytest.mark.parametrize("content", [b"tcp-close\nlog-file\n", b"log-file=/none/restore.log\n", b"\xff\xfe", None])
def test_a_configuration_that_names_no_log(tmp_path: Path, content: bytes | None) -> None:
    config = tmp_path / "criu.conf"
    if content is not None:
        config.write_bytes(content)
    spec = {"annotations": {"org.criu.config": str(config)}}
    assert failure.dump_log(spec, "/w", 0.0) == "/w/dump.log"


@pytest.mark.parametrize("spec", [{}, {"annotations": None}, {"annotations": {"org.criu.config": "/tmp"}}])
def test_without_a_configuration_it_is_where_runc_puts_it(spec: dict[str, Any]) -> None:
    assert failure.dump_log(spec, "/w", 0.0) == "/w/dump.log"
