# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from urllib.parse import parse_qsl, urlsplit

import pytest

from ansible_collections.gpuops.restore.plugins.module_utils._container import stdio
from ansible_collections.gpuops.restore.plugins.module_utils._containerd import tasks
from ansible_collections.gpuops.restore.plugins.module_utils._core.errors import NodeError, RestoreError

LOGGER = "binary:///usr/bin/logger?tag=x"


@pytest.mark.parametrize(
    ("stdout", "stderr", "expected"),
    [
        ("", "", ("file:///dev/null", "file:///dev/null")),
        ("{dir}/a", "", ("file://{dir}/a", "file://{dir}/a")),
        ("", "{dir}/b", ("file://{dir}/b", "file://{dir}/b")),
        ("{dir}/a", "{dir}/b", ("file://{dir}/a", "file://{dir}/b")),
        (LOGGER, "", (LOGGER, LOGGER)),
        (LOGGER, LOGGER, (LOGGER, LOGGER)),
    ],
)
def test_containerd_gets_both_streams_or_neither(
    tmp_path: Path, stdout: str, stderr: str, expected: tuple[str, str]
) -> None:
    task = stdio.plan(stdout.format(dir=tmp_path), stderr.format(dir=tmp_path), False).task()
    assert (task.stdout, task.stderr) == tuple(text.format(dir=tmp_path) for text in expected)


@pytest.mark.parametrize(
    ("stdout", "stderr", "terminal", "has_input"),
    [("", "", False, True), ("{dir}/a", "", False, True), ("", "", True, False), ("", LOGGER, False, False)],
)
def test_the_input_is_a_pipe_where_containerd_gives_one(
    tmp_path: Path, stdout: str, stderr: str, terminal: bool, has_input: bool
) -> None:
    pipe, images = tmp_path / "stdin", tmp_path / "images"
    images.mkdir()
    planned = stdio.plan(stdout.format(dir=tmp_path), stderr.format(dir=tmp_path), terminal, str(pipe))
    assert planned.task().stdin == (str(pipe) if has_input else "")
    # Whatever is there goes, but it is not followed.
    pipe.symlink_to(tmp_path / "elsewhere")
    with stdio.prepared(planned):
        assert pipe.is_fifo() is has_input
    assert not (tmp_path / "elsewhere").exists()
    (images / "descriptors.json").write_text('["pipe:[7]", "pipe:[8]", "/dev/null"]', encoding="utf-8")
    assert bool(planned.warnings(str(images))) is (not has_input and not terminal)
    for text in ('["/dev/null", "pipe:[8]"]', "[]", "{}", "[", "[" * 9000):
        (images / "descriptors.json").write_text(text, encoding="utf-8")
        assert planned.warnings(str(images)) == []
    assert planned.warnings(str(tmp_path / "none")) == []


def test_without_a_place_for_a_pipe_there_is_no_input(tmp_path: Path) -> None:
    assert stdio.plan("", "", False).task().stdin == ""
    with pytest.raises(NodeError) as caught, stdio.prepared(stdio.plan("", "", False, str(tmp_path / "none/stdin"))):
        pass
    assert caught.value.code == "stdio_unwritable"


def test_a_terminal_is_kept(tmp_path: Path) -> None:
    assert stdio.plan(LOGGER, "", True).task() == tasks.Stdio(LOGGER, LOGGER, True)
    for wishes in ((f"{tmp_path}/a", ""), ("", f"{tmp_path}/a"), (f"{tmp_path}/a", f"{tmp_path}/b")):
        planned = stdio.plan(*wishes, True)
        task = planned.task()
        assert task.terminal and task.stdout == task.stderr and "%2Fa" in task.stdout
        assert not planned.has_input


@pytest.mark.parametrize("name", ["plain", "two words; & 'more' $HOME %41+"])
def test_what_a_terminal_shows_is_put_into_a_file(tmp_path: Path, name: str) -> None:
    """As containerd starts a logger: the arguments of its URI, output at 3, errors at 4, 5 to tell that it is ready."""
    target = tmp_path / name
    target.write_text("before\n", encoding="ascii")
    uri = urlsplit(stdio.plan(str(target), "", True).task().stdout)
    ((option, script),) = parse_qsl(uri.query, strict_parsing=True)
    output, errors, ready = os.pipe(), os.pipe(), os.pipe()
    places = ((3, "<", output[0]), (4, "<", errors[0]), (5, ">", ready[1]))
    given = "".join(f" {place}{how}&{end} {end}{how}&-" for place, how, end in places)
    command = ["bash", "-c", f'exec "$0" "$@"{given}', uri.path, option, script]
    ends = (output[0], errors[0], ready[1])
    with subprocess.Popen(command, pass_fds=ends) as process:
        for end in (*ends, errors[1]):
            os.close(end)
        assert os.read(ready[0], 1) == b""
        os.write(output[1], b"shown\n")
        os.close(output[1])
        assert process.wait() == 0
    os.close(ready[0])
    assert target.read_text(encoding="ascii") == "before\nshown\n"


@pytest.mark.parametrize(
    ("stdout", "stderr", "code"),
    [
        ("relative.log", "", "stdio_invalid"),
        ("", "file:///x", "stdio_invalid"),
        ("fifo:///x", "", "stdio_invalid"),
        ("{dir}/a", LOGGER, "stdio_invalid"),
        (LOGGER, "{dir}/a", "stdio_invalid"),
        ("{dir}", "", "stdio_invalid"),
        ("{dir}/", "", "stdio_invalid"),
        ("{dir}/none/a", "", "stdio_no_directory"),
        ("", "{dir}/none/a", "stdio_no_directory"),
    ],
)
def test_what_cannot_be(tmp_path: Path, stdout: str, stderr: str, code: str) -> None:
    with pytest.raises(RestoreError) as caught:
        stdio.plan(stdout.format(dir=tmp_path), stderr.format(dir=tmp_path), False)
    assert caught.value.code == code


def test_files_are_made_for_root_only_and_stay(tmp_path: Path) -> None:
    old = tmp_path / "old"
    old.write_text("before", encoding="utf-8")
    os.chmod(old, 0o644)
    with stdio.prepared(stdio.plan(f"{tmp_path}/new", str(old), False)) as made:
        assert (tmp_path / "new").stat().st_mode & 0o777 == 0o600
    assert made == [f"{tmp_path}/new"]
    assert old.read_text(encoding="utf-8") == "before"
    assert old.stat().st_mode & 0o777 == 0o644


def test_after_a_failure_only_what_was_made_here_goes(tmp_path: Path) -> None:
    old = tmp_path / "old"
    old.write_text("before", encoding="utf-8")
    with pytest.raises(KeyError), stdio.prepared(stdio.plan(f"{tmp_path}/new", str(old), False)):
        raise KeyError("failed")
    assert os.listdir(tmp_path) == ["old"]


def test_a_file_that_somebody_removed_does_not_hide_the_failure(tmp_path: Path) -> None:
    with pytest.raises(KeyError), stdio.prepared(stdio.plan(f"{tmp_path}/new", "", False)):
        os.unlink(tmp_path / "new")
        raise KeyError("failed")


def test_a_file_that_cannot_be_made(tmp_path: Path) -> None:
    name = "n" * 300  # longer than any file system takes
    params = stdio.plan(f"{tmp_path}/a", f"{tmp_path}/{name}", False)
    with pytest.raises(NodeError) as caught, stdio.prepared(params):
        raise AssertionError("the block must not be entered")
    assert caught.value.code == "stdio_unwritable"
    assert os.listdir(tmp_path) == []


def test_a_link_is_not_followed_to_make_a_file(tmp_path: Path) -> None:
    os.symlink(tmp_path / "target", tmp_path / "link")
    with stdio.prepared(stdio.plan(f"{tmp_path}/link", "", False)) as made:
        assert made == []
    assert not (tmp_path / "target").exists()


def test_the_tail_of_a_file(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_bytes(b"x" * 100000 + b"\n" + b"".join(b"line %d\n" % number for number in range(50)) + b"\xff\n")
    assert stdio.tail(str(log)) == [f"line {number}" for number in range(31, 50)] + ["\ufffd"]
    log.write_bytes(b"")
    assert stdio.tail(str(log)) == []


@pytest.mark.parametrize("path", ["", LOGGER, "/none/file", "/proc"])
def test_what_is_no_file_has_no_tail(path: str) -> None:
    assert stdio.tail(path) == []


def test_a_fifo_has_no_tail_and_does_not_block(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    assert stdio.tail(str(tmp_path / "fifo")) == []
