# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Tests of the CRIU log reader."""

from __future__ import annotations

import os
import tracemalloc
from pathlib import Path

import pytest

from ansible_collections.gpuops.restore.plugins.module_utils._criu import log as criu_log
from ansible_collections.gpuops.restore.plugins.module_utils._criu.log import (
    LINE_CHARS,
    clean,
    error_lines,
    is_progress,
    is_warning,
)

BAD_SIZE = "Error (criu/files-reg.c:2041): File run/utmp has bad size 1536 (expect 2688)"
LOG = f"""\
(00.000000) Version: 4.1.1 (gitid 0)
(00.000021) Warn  (criu/kerndat.c:1103): $XDG_RUNTIME_DIR not set. Cannot find location for kerndat file
(00.010000)      1: Opening file run/utmp, an Error in the name is no error
(00.029087) 110495: {BAD_SIZE}
(00.029187) 110496: {BAD_SIZE}
pie: 20: Error (criu/pie/restorer.c:1774): Can't restore 0x7ba7a5c11000 mapping with 0xfffffffffffffff4
pie: 21: Error (criu/pie/restorer.c:1774): Can't restore 0x7ba7a5c11000 mapping with 0xfffffffffffffff4
iptables-restore v1.8.7 (nf_tables):
line 7: CHAIN_USER_DEL failed (Device or resource busy): chain CRIU
(00.03) 1: Error (net.c:488): can not restore link(00.351784) Error (cr-restore.c:1895): Restoring FAILED.
"""
EXPECTED = [
    "Warn  (criu/kerndat.c:1103): $XDG_RUNTIME_DIR not set. Cannot find location for kerndat file",
    BAD_SIZE,
    "pie: 20: Error (criu/pie/restorer.c:1774): Can't restore 0x7ba7a5c11000 mapping with 0xfffffffffffffff4",
    "iptables-restore v1.8.7 (nf_tables):",
    "line 7: CHAIN_USER_DEL failed (Device or resource busy): chain CRIU",
    "Error (net.c:488): can not restore link",
    "Error (cr-restore.c:1895): Restoring FAILED.",
]


def write(tmp_path: Path, content: str | bytes) -> str:
    path = tmp_path / "restore.log"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return str(path)


def test_errors_warnings_and_tools_in_order_each_once(tmp_path: Path) -> None:
    assert error_lines(write(tmp_path, LOG)) == EXPECTED


@pytest.mark.parametrize(
    "line",
    [
        "Error: Could not process rule: No such file or directory",
        "Warn  (criu/a.c:1): x",
        "ip6tables-restore: line 3 failed",
        "iptables: Bad rule (does a matching rule exist in that chain?).",
        "nft: syntax error",
        "tar: unrecognized option '--no-unquote'",
        "BusyBox v1.36.0 (2026-05-05 08:00:00 CST) multi-call binary.",
        "RTNETLINK answers: File exists",
        "Another app is currently holding the xtables lock.",
        "criu: unrecognized option '--x'",
        "line 7: CHAIN_USER_DEL failed (Device or resource busy): chain CRIU",
    ],
)
def test_lines_of_each_writer_are_found(tmp_path: Path, line: str) -> None:
    log = f"(00.1) one\n{line}\n(00.2) two\n"
    assert error_lines(write(tmp_path, log)) == [line]


def test_last_line_without_line_end_counts(tmp_path: Path) -> None:
    assert error_lines(write(tmp_path, "(00.1) info\n(00.2) Error (a.c:1): one")) == ["Error (a.c:1): one"]
    assert error_lines(write(tmp_path, "Error (a.c:1): one")) == ["Error (a.c:1): one"]


def test_missing_and_empty_log_have_no_lines(tmp_path: Path) -> None:
    assert error_lines(str(tmp_path / "none.log")) == []
    assert error_lines(write(tmp_path, "")) == []


def test_link_directory_and_fifo_are_refused_without_waiting(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(write(tmp_path, LOG))
    os.mkfifo(tmp_path / "fifo")
    for path in (tmp_path / "link", tmp_path / "fifo", tmp_path):
        with pytest.raises(OSError):
            error_lines(str(path))


def test_limit_keeps_first_last_and_some_warnings(tmp_path: Path) -> None:
    lines = [f"Warn  (a.c:{n}): warning {n}" for n in range(1000)]
    lines += [f"Error (a.c:{n}): error {n}" for n in range(1000)]
    log = write(tmp_path, "\n".join(lines))
    assert [line.split(": ")[1] for line in error_lines(log, limit=8)] == [
        "warning 0",
        "warning 999",
        "error 0",
        "error 1",
        "error 2",
        "error 997",
        "error 998",
        "error 999",
    ]
    assert error_lines(log, limit=0) == []
    assert len(error_lines(log, limit=1)) == 1


def test_many_warnings_do_not_hide_the_error(tmp_path: Path) -> None:
    lines = [f"Warn  (a.c:1): {n}" for n in range(5000)]
    lines.insert(2500, "Error (b.c:1): the cause")
    found = error_lines(write(tmp_path, "\n".join(lines)))
    assert len(found) == 40
    assert "Error (b.c:1): the cause" in found


@pytest.mark.parametrize("block", [64, 100, 1024])
def test_lines_across_block_borders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, block: int) -> None:
    monkeypatch.setattr(criu_log, "_BLOCK", block)
    lines = [f"(00.{n:06}) {'x' * (n % 90)}\nError (a.c:{n}): number {n}" for n in range(300)]
    found = error_lines(write(tmp_path, "\n".join(lines)), limit=1000)
    assert found == [f"Error (a.c:{n}): number {n}" for n in range(300)]


def test_endless_lines_are_cut(tmp_path: Path) -> None:
    content = b"(00.1) " + b"y" * 3_000_000 + b"\nError (a.c:1): " + b"z " * 2_000_000 + b"\nError (a.c:2): last\n"
    found = error_lines(write(tmp_path, content))
    assert [line[:14] for line in found] == ["Error (a.c:1):", "Error (a.c:2):"]
    assert found[0].endswith(" [cut]")
    assert len(found[0]) <= LINE_CHARS + len(" [cut]")


def test_binary_rubbish_is_survived(tmp_path: Path) -> None:
    found = error_lines(write(tmp_path, b"\x00\xff\xfe\n" * 100 + b"Error (a.c:1): \xff\x1b[31mred\x00\n"))
    assert len(found) == 1
    assert all(character.isprintable() for character in found[0])


def test_head_and_tail_of_a_huge_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(criu_log, "_HEAD_BYTES", 1000)
    monkeypatch.setattr(criu_log, "_TAIL_BYTES", 2000)
    filler = "(00.1) Error-free filler\n" * 400
    content = f"Error (a.c:1): first\n{filler}Error (a.c:2): middle\n{filler}Error (a.c:3): last\n"
    assert error_lines(write(tmp_path, content)) == ["Error (a.c:1): first", "Error (a.c:3): last"]


def test_a_line_cut_by_the_gap_is_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(criu_log, "_HEAD_BYTES", 10)
    monkeypatch.setattr(criu_log, "_TAIL_BYTES", 40)
    content = "0123456789\n" + "x" * 100 + " Error (a.c:9): inside\nError (a.c:3): last\n"
    assert error_lines(write(tmp_path, content)) == ["Error (a.c:3): last"]


def test_memory_does_not_grow_with_the_log(tmp_path: Path) -> None:
    path = tmp_path / "restore.log"
    info = b"(00.123456)   4711: Opening 0x007aab18a37000-0x007aab18a38000 0000000000000000 (20000041) vma\n"
    with path.open("wb") as log:
        for number in range(60):
            log.write(info * 1000)
            log.write(b"(00.2) 1: Error (a.c:%d): distinct %d " % (number, number) + b"x" * 300 + b"\n")
        for number in range(5000):
            log.write(b"(00.2) 1: Warn  (a.c:%d): distinct\n" % number)
    assert path.stat().st_size > 5_000_000
    tracemalloc.start()
    try:
        found = error_lines(str(path))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert len(found) == 40
    assert peak < 1_000_000, peak


@pytest.mark.parametrize(
    ("raw", "shown"),
    [
        ("(00.029087) 110495: Error (a.c:1): x", "Error (a.c:1): x"),
        ("(123.45678)      1: Error (a.c:1): x", "Error (a.c:1): x"),
        ("  4715: Error (a.c:1): x\n", "Error (a.c:1): x"),
        ("line 7: CHAIN_USER_DEL failed", "line 7: CHAIN_USER_DEL failed"),
        ("Can't lookup mount=795 for fd=-3", "Can't lookup mount=795 for fd=-3"),
        (
            "Error: exec PATH=/usr/bin AWS_SECRET_ACCESS_KEY='a b' x",
            "Error: exec PATH=<masked> AWS_SECRET_ACCESS_KEY=<masked> x",
        ),
        ("Error: http_proxy=http://u:p@h token=abc", "Error: http_proxy=<masked> token=<masked>"),
        ("Error: get https://user:pass@host/x", "Error: get https://<masked>@host/x"),
        ("Error: page " + "QUJD" * 40, "Error: page <masked>"),
        ("Error: id " + "a" * 64, "Error: id " + "a" * 64),
        ("Error:\tone\x1btwo", "Error: one?two"),
    ],
)
def test_clean(raw: str, shown: str) -> None:
    assert clean(raw) == shown


def test_kinds_of_lines() -> None:
    assert is_warning("Warn  (a.c:1): x")
    assert is_warning("pie: 3: Warn  (a.c:1): x")
    assert not is_warning("Error (a.c:1): Warn")
    assert is_progress("(00.1234)  1: Opening a file")
    assert not is_progress("(00.1234)  1: Error (a.c:1): x")
    assert not is_progress("ctr: media type not found")
