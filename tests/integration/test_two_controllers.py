# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Two controllers at one node: playbooks over ssh, begun at different moments, one that is killed, two namespaces.

``GPUOPS_OFFSETS``: seconds between the two, as many as are to be tried; ``make two-controllers`` tries twenty.
"""

from __future__ import annotations

import json
import os
import pathlib
import shutil
import subprocess
import time
from collections.abc import Iterator
from typing import Any

import in_node
import pytest
from controllers import kill_with_descendants
from gpuops_lab import image, inventory, workload
from gpuops_lab.config import Node
from node_listing import Listing, listing, settled_difference

REF = "gpuops.test/two:1"
CHECKPOINT, BASE = "/srv/two.tar", "/srv/base.tar"
LOCK = "/run/gpuops-restore/locks/container/k8s.io/app"
OFFSETS = os.environ.get("GPUOPS_OFFSETS", "0.3").split()


@pytest.fixture(scope="module", autouse=True)
def reached(node: Node) -> int:
    """A counter was captured; its image and the checkpoint lie as archives in the node, and nothing else does."""
    workload.start(node, "original", 32)
    workload.await_count(node, "original", 10)
    workload.checkpoint(node, "original", REF)
    found = workload.count(node, "original")
    workload.delete(node, "original")
    exported = {"operation": "export", "name": REF, "path": CHECKPOINT, "base": "omit"}
    assert not in_node.run_module(node, "containerd_checkpoint_archive", exported).get("failed")
    workload.ctr(node, "k8s.io", "images", "rm", "--sync", REF, image.REFERENCE)
    shutil.copyfile(node.inside(workload.ARCHIVE), node.inside(BASE))
    return found


@pytest.fixture(scope="module")
def controller(node: Node, tmp_path_factory: pytest.TempPathFactory) -> Controller:
    return Controller(node, tmp_path_factory.mktemp("controller"))


@pytest.fixture
def clean(node: Node, controller: Controller) -> Iterator[Listing]:
    """After the test a cleanup leaves the node as it was before."""
    before = listing(node)
    yield before
    assert controller.run("cleanup") == ""
    assert settled_difference(node, before) == []


class Controller:
    """Runs the collection's playbooks; one that is killed here is none for the node."""

    def __init__(self, node: Node, place: pathlib.Path) -> None:
        self._place = place
        (place / "inventory.yml").write_text(inventory.inventory_text({"node": inventory.host_variables(node)}))
        self._begun = 0

    def start(self, playbook: str, name: str = "app", **variables: Any) -> subprocess.Popen[str]:
        """Begin a playbook for one workload, from archives."""
        wanted = {"name": name, "checkpoint": REF, "gpu": "none"}
        archives = {"checkpoint_archive": CHECKPOINT, "image_archive": BASE}
        given = self._place / f"vars-{self._begun}.json"
        self._begun += 1
        common = {"restore_node_workloads": [{**wanted, **archives}], "restore_node_huge_pages": "keep"}
        given.write_text(json.dumps({**common, **variables}))
        command = ["ansible-playbook", "-i", str(self._place / "inventory.yml"), f"gpuops.restore.{playbook}"]
        return subprocess.Popen(
            [*command, "-e", f"@{given}"],
            cwd=self._place,
            env={**os.environ, "ANSIBLE_NOCOLOR": "1", "ANSIBLE_PIPELINING": "1"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def run(self, playbook: str, name: str = "app", **variables: Any) -> str:
        """Run it to its end; what it says if it fails, empty if it does not."""
        return end(self.start(playbook, name, **variables))


def end(process: subprocess.Popen[str]) -> str:
    said, _ = process.communicate(timeout=300)
    return said if process.returncode else ""


def await_lock(node: Node, process: subprocess.Popen[str]) -> None:
    """The module that restores is at work in the node."""
    while not node.inside(LOCK).exists():
        assert process.poll() is None, f"it ended before: {process.communicate()[0]}"
        time.sleep(0.01)


def runs_once(node: Node, count: int, name: str = "app") -> None:
    """There is one container of that name, and it counts on from the checkpoint."""
    assert workload.ctr(node, "k8s.io", "containers", "ls", "-q").split() == [name]
    assert workload.ctr(node, "k8s.io", "tasks", "ls", "-q").split() == [name]
    first = workload.await_count(node, name, count)
    workload.await_count(node, name, first + 2)


def is_one_clear_message(said: str) -> bool:
    """One workload has failed, for another run is at work on it."""
    lines = [line for line in said.splitlines() if "Another run (" in line]
    return bool(lines) and "1 of 1 workload(s) failed" in said and "retryable" in said


@pytest.mark.parametrize("patient", [True, False])
@pytest.mark.parametrize("offset", OFFSETS)
def test_two_restores_at_once(
    node: Node, controller: Controller, clean: Listing, reached: int, offset: str, patient: bool
) -> None:
    """The second one waits and finds it done; one that does not wait says who is at it, and harms nobody."""
    variables: dict[str, Any] = {} if patient else {"restore_node_busy_timeout": 0}
    first = controller.start("restore", **variables)
    time.sleep(float(offset))
    second = controller.start("restore", **variables)
    said = [end(first), end(second)]
    runs_once(node, reached)
    failed = [text for text in said if text]
    if patient:
        assert failed == []
    else:
        assert len(failed) <= 1 and all(is_one_clear_message(text) for text in failed), "\n".join(failed)


def test_a_controller_that_is_killed_while_its_module_goes_on(
    node: Node, controller: Controller, clean: Listing, reached: int
) -> None:
    first = controller.start("restore")
    await_lock(node, first)
    kill_with_descendants(first)
    assert controller.run("restore") == ""
    runs_once(node, reached)


def test_a_cleanup_beside_a_restore_of_the_same_container(node: Node, controller: Controller, clean: Listing) -> None:
    """It waits for the restore, and then takes all of it away."""
    restore = controller.start("restore")
    await_lock(node, restore)
    cleanup = controller.start("cleanup")
    assert (end(restore), end(cleanup)) == ("", "")
    assert workload.ctr(node, "k8s.io", "containers", "ls", "-q").split() == []
    assert settled_difference(node, clean) == []


def test_a_cleanup_beside_a_restore_of_the_same_checkpoint(
    node: Node, controller: Controller, clean: Listing, reached: int
) -> None:
    """Of another container: what it restores from stays until it runs."""
    restore = controller.start("restore")
    await_lock(node, restore)
    cleanup = controller.start("cleanup", "other")
    assert (end(restore), end(cleanup)) == ("", "")
    runs_once(node, reached)


def test_a_cleanup_takes_nothing_of_a_container_of_that_name_in_another_namespace(
    node: Node, controller: Controller, clean: Listing, reached: int
) -> None:
    """Its receipt lies where an earlier release put it, which had one for both."""
    receipts = node.inside("/var/lib/gpuops-restore/receipts")
    assert controller.run("restore", restore_node_namespace="tenant") == ""
    (receipts / "tenant--app.json").rename(receipts / "app.json")
    assert controller.run("cleanup") == ""
    assert (receipts / "app.json").exists()
    first = workload.await_count(node, "app", reached, namespace="tenant")
    workload.await_count(node, "app", first + 2, namespace="tenant")
    assert controller.run("cleanup", restore_node_namespace="tenant") == ""
    assert not receipts.exists()
    workload.ctr(node, "k8s.io", "namespaces", "rm", "tenant")
