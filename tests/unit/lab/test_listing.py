# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The comparison of two listings."""

from __future__ import annotations

import pathlib
from collections.abc import Iterator

import pytest
from gpuops_lab import cli, listing


def test_equal_listings_do_not_differ() -> None:
    assert listing.difference({"tasks": ["a", "b"]}, {"tasks": ["b", "a"], "shims": []}) == []


def test_what_came_and_went_is_named_with_its_kind() -> None:
    before = {"tasks": ["k8s.io a RUNNING"], "tmp": []}
    after = {"tasks": ["k8s.io a STOPPED"], "tmp": ["/tmp/ctrd-checkpoint1 drwx------"], "new": ["x"]}
    assert listing.difference(before, after) == [
        "+ new: x",
        "- tasks: k8s.io a RUNNING",
        "+ tasks: k8s.io a STOPPED",
        "+ tmp: /tmp/ctrd-checkpoint1 drwx------",
    ]


def test_a_second_process_of_the_same_name_is_a_difference() -> None:
    assert listing.difference({"processes": ["counter"]}, {"processes": ["counter", "counter"]}) == [
        "+ processes: counter"
    ]


def test_mount_options_are_part_of_the_comparison() -> None:
    line = "init /sys/fs/cgroup cgroup2 rw "
    assert listing.difference({"mounts": [line + "rw,nsdelegate"]}, {"mounts": [line + "rw"]}) == [
        f"- mounts: {line}rw,nsdelegate",
        f"+ mounts: {line}rw",
    ]


def test_ignored_kinds() -> None:
    assert listing.difference({"tmp": ["a"], "log": []}, {"tmp": [], "log": ["b"]}, ignore=["tmp"]) == ["+ log: b"]


def test_settling_waits_for_what_goes_away(monkeypatch: pytest.MonkeyPatch) -> None:
    states: Iterator[listing.Listing] = iter([{"content": ["a"]}, {"content": ["a"]}, {"content": []}])
    monkeypatch.setattr(listing, "listing", lambda node: next(states))
    assert listing.settled_difference("node1", {"content": []}) == []


def test_settling_ends_with_what_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listing, "listing", lambda node: {"content": ["a"]})
    assert listing.settled_difference("node1", {"content": []}, seconds=0.3) == ["+ content: a"]


def test_diff_command(tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    before, after = tmp_path / "before", tmp_path / "after"
    before.write_text('{"tasks": []}')
    after.write_text('{"tasks": ["a"]}')
    assert cli.main(["diff", str(before), str(before)]) == 0
    assert capsys.readouterr().out == ""
    assert cli.main(["diff", str(before), str(after)]) == 1
    assert capsys.readouterr().out == "+ tasks: a\n"
