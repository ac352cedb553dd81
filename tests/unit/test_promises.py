# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the README promises of a checkpoint, and each case of docs/cases.md, has a test that is there."""

from __future__ import annotations

import ast
import pathlib
import re

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
SECTION = "## What is in a checkpoint, and what is not"
UNIT = "tests/unit/plugins/module_utils"

#: Each sentence of that section, by its whole text without markup, and what shows it.
PROMISES = {
    "The memory of the processes, their open files by name, their writable layer, and the OCI spec are.": [
        "test_capture.py::test_captured_and_restored_by_us_and_by_ctr",
        "test_parallel_memory.py::test_every_byte_is_there_again_and_nothing_stays",
        "test_root_filesystem.py::test_all_that_was_written_comes_back_any_number_of_times",
        "test_differences.py::test_a_read_only_root_is_read_only_again",
    ],
    "These are not: bind mounts and volumes: they have to be on the node, as they were; mounts maps old sources to new "
    "ones.": [
        "test_bad_node.py::test_bind_source",
        "test_bad_node.py::test_all_bind_sources_at_once",
    ],
    "What is in memory goes along: a pod's /dev/shm, an emptyDir with medium Memory; see memory volumes.": [
        "test_memory_volumes.py::test_the_content_comes_back_any_number_of_times",
    ],
    "the network of a pod: a container that had one comes back in an empty namespace, in the node's (network: host) or "
    "in one that you name.": [
        "test_restore.py::test_a_pod_network_that_is_gone",
        "test_bundle.py::test_a_container_as_a_pod_has_it",
    ],
    "One with a network of its own gets a new one with nothing but the loopback interface, and a value of network that "
    "cannot be is refused; if there is more in it than loopback, the capture refuses it, unless it is told to take it "
    "empty.": [
        "test_sockets.py::test_who_listens_answers_again",
        f"{UNIT}/_oci/test_spec_adapt.py::test_networks_that_criu_cannot_give_are_refused",
        "test_capture_refused.py::test_devices_in_a_network_of_its_own",
    ],
    "Either is made anew by the node's CNI plugins with network: cni:/etc/cni/net.d/NAME.conflist, or by a program of "
    "yours with network_command (see what is not captured).": [
        "test_network.py::test_the_network_is_made_anew",
        "test_network.py::test_the_network_is_made_by_a_command",
    ],
    "TCP connections to elsewhere, unless the capture takes them (criu: {tcp_established: true}) and the restore finds "
    "the same addresses, or drops them with criu: {tcp: close}; see sockets.": [
        "test_sockets.py::test_connections_are_refused_before_anything_stops",
        "test_sockets.py::test_a_connection_to_another_node_moves_with_its_address",
        "test_sockets.py::test_closing_gives_the_peer_an_end_and_the_program_a_new_connection",
    ],
    "What listens needs no option.": [
        "test_sockets.py::test_who_listens_answers_again",
    ],
    "Memory and files have to be of one moment.": [
        "test_capture.py::test_left_stopped_at_the_moment_of_the_image",
    ],
    "Once a task has run on a snapshot, the next restore starts from a fresh snapshot (restore_node_when_stopped: "
    "restore), never from what the process has changed since.": [
        "test_restore.py::test_used_snapshot_is_refused_then_rebuilt",
    ],
}
OUTCOMES = ("works", "said", "refused")


def sentences() -> list[str]:
    """Of the README's section, without markup."""
    text = (ROOT / "README.md").read_text(encoding="utf-8").split(f"{SECTION}\n", 1)[1].split("\n## ", 1)[0]
    text = re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", text).replace("`", "")
    plain = re.sub(r"\s+", " ", re.sub(r"^- ", "", text, flags=re.MULTILINE)).strip()
    return re.split(r"(?<=\.)\s+", plain)


def rows() -> list[list[str]]:
    """Of the table of cases: case, outcome, how, tests."""
    text = (ROOT / "docs" / "cases.md").read_text(encoding="utf-8")
    lines = [line.strip("| ") for line in text.splitlines() if line.startswith("| ")]
    return [[cell.strip() for cell in line.split(" | ")] for line in lines[1:]]


def lacking(test: str) -> str:
    """What is not there of a test ``FILE::FUNCTION``; empty if it is."""
    place, name = test.split("::")
    path = ROOT / place if place.startswith("tests/") else ROOT / "tests" / "integration" / place
    if not path.is_file():
        return f"no file {path.relative_to(ROOT)}"
    body = ast.parse(path.read_text(encoding="utf-8")).body
    found = {node.name for node in body if isinstance(node, ast.FunctionDef)}
    return "" if name in found else f"no test {name} in {path.relative_to(ROOT)}"


def test_each_sentence_of_what_is_in_a_checkpoint_has_a_test() -> None:
    assert sorted(sentences()) == sorted(PROMISES)
    assert [found for tests in PROMISES.values() for test in tests if (found := lacking(test))] == []


def test_a_test_that_is_not_there_is_found() -> None:
    assert lacking("test_sockets.py::test_of_nothing") and lacking("test_nothing.py::test_of_nothing")


@pytest.mark.parametrize("row", rows(), ids=lambda row: row[0][:40])
def test_each_case_has_an_outcome_and_a_test(row: list[str]) -> None:
    assert len(row) == 4 and row[2]
    assert set(row[1].split("; ")) <= set(OUTCOMES)
    named = re.findall(r"(unit: )?`([^`]+)`", row[3])
    assert named and [found for unit, test in named if (found := lacking(f"{UNIT}/{test}" if unit else test))] == []


def test_there_are_as_many_cases_as_were_reported() -> None:
    assert len(rows()) >= 30
    assert len({row[0] for row in rows()}) == len(rows())
