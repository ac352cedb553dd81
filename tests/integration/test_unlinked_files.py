# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Files that were deleted and have another name, as a real CRIU takes them and a restore brings them back."""

from __future__ import annotations

import pathlib
import shutil
from collections.abc import Iterator
from typing import Any, Callable

import in_node
import pytest
from gpuops_lab import image, workload
from gpuops_lab.config import Node
from gpuops_lab.node import output
from node_listing import listing, settled_difference

NAME = "unlinked"
STATE = "/var/lib/gpuops-restore"
RunModule = Callable[..., dict[str, Any]]
#: Opens a file, deletes it by that name, and counts; the file is its descriptor 3, and has another name.
SCRIPT = """
box=/bin/busybox
echo "written once" >{0}/one
$box ln {0}/one {0}/two
exec 3<>{0}/one
$box rm {0}/one
count=0
while true; do
    count=$((count + 1))
    echo $count >/var/count
    $box sleep 0.1
done
"""


@pytest.fixture(scope="module", autouse=True)
def imported(node: Node) -> None:
    workload.ctr(node, "k8s.io", "images", "import", workload.place_image(node))


@pytest.fixture
def clean(node: Node) -> Iterator[None]:
    """The node is afterwards as it was before."""
    before = listing(node)
    yield
    workload.delete(node, NAME)
    shutil.rmtree(node.inside(f"{STATE}/receipts"), ignore_errors=True)
    node.inside(f"/var/log/{NAME}.log").unlink()
    assert settled_difference(node, before) == []
    assert not node.inside("/etc/criu").exists()


def run(node: Node, where: str, *options: str) -> None:
    arguments = ["--detach", "--log-uri", workload.log_uri(NAME), *options, image.REFERENCE, NAME]
    workload.ctr(node, "k8s.io", "run", *arguments, "/bin/sh", "-c", SCRIPT.format(where))
    workload.await_count(node, NAME, 3)


def process(node: Node) -> pathlib.Path:
    """What the node's /proc has of the container's process."""
    lines = map(str.split, workload.ctr(node, "k8s.io", "tasks", "ls").splitlines())
    return node.inside(f"/proc/{next(words[1] for words in lines if words[0] == NAME)}")


def whole(node: Node, where: str) -> None:
    """The process counts, and its file is the one that has the other name, alone in its directory."""
    workload.await_count(node, NAME, workload.count(node, NAME) + 3)
    pid = process(node).name
    file, directory = f"/proc/{pid}/fd/3", f"/proc/{pid}/root{where}"
    assert output(node, ["readlink", file]) == f"{where}/one (deleted)\n"
    assert output(node, ["cat", file]) == "written once\n"
    assert output(node, ["stat", "-L", "-c", "%i", file]) == output(node, ["stat", "-c", "%i", f"{directory}/two"])
    names = output(node, ["ls", directory]).split()
    assert [name for name in names if name not in ("two", "count", "count.log")] == []


def capture(reference: str, **more: Any) -> dict[str, Any]:
    return {"container_id": NAME, "name": reference, **more}


def restore(run_module: RunModule, reference: str) -> None:
    run_module("containerd_checkpoint_stage", {"checkpoint": reference})
    run_module("containerd_restore", {"workloads": [{"name": NAME, "checkpoint": reference}], "huge_pages": "keep"})


def remove(node: Node, run_module: RunModule, *references: str) -> None:
    for module in ("containerd_task", "containerd_container"):
        run_module(module, {"container_id": NAME, "state": "absent"})
    for reference in references:
        run_module("containerd_checkpoint_stage", {"checkpoint": reference, "state": "absent"})
    workload.ctr(node, "k8s.io", "images", "rm", "--sync", *references)


@pytest.mark.usefixtures("clean")
@pytest.mark.parametrize(
    ("where", "leave"),
    [
        pytest.param("/var", "running", marks=[pytest.mark.older_criu, pytest.mark.newer_criu]),
        ("/var", "stopped"),
        ("/dev/shm", "running"),
    ],
)
def test_the_file_comes_back_any_number_of_times(node: Node, run_module: RunModule, where: str, leave: str) -> None:
    """From the writable layer and from a tmpfs of the container; the second capture is of what was restored."""
    references = [f"gpuops.test/unlinked:{number}" for number in (1, 2)]
    run(node, where)
    for reference in references:
        predicted = run_module("containerd_checkpoint", capture(reference, leave=leave, force=True), check=True)
        done = run_module("containerd_checkpoint", capture(reference, leave=leave, force=True))
        # The shell that sleeps has it too.
        assert {file["path"] for found in (predicted, done) for file in found["unlinked_files"]} == {f"{where}/one"}
        assert predicted["unlinked_files"] and done["unlinked_files"]
        if leave == "running":
            whole(node, where)
        workload.delete(node, NAME)
        restore(run_module, reference)
        whole(node, where)
        config = node.inside(f"{STATE}/work/k8s.io/{NAME}/criu.conf").read_text()
        assert "link-remap" not in config and "#" not in config
    remove(node, run_module, *references)


@pytest.mark.usefixtures("clean")
@pytest.mark.parametrize(
    ("mount", "criu", "code"),
    [
        ((), {"link_remap": False}, "unlinked_files_open"),
        (("--mount", "type=bind,src=/opt/outside,dst=/var,options=rbind:rw"), {}, "unlinked_file_outside"),
    ],
)
def test_what_cannot_come_back_is_refused(
    node: Node, expect_failure: RunModule, mount: tuple[str, ...], criu: dict[str, Any], code: str
) -> None:
    node.inside("/opt/outside").mkdir()
    run(node, "/var", *mount)
    result = expect_failure("containerd_checkpoint", capture("gpuops.test/unlinked:refused", criu=criu), code)
    assert "/var/one of process" in result["msg"]
    whole(node, "/var")
    workload.delete(node, NAME)
    shutil.rmtree(node.inside("/opt/outside"))


@pytest.mark.usefixtures("clean")
def test_the_nodes_own_configuration_stays_as_it_is(node: Node, run_module: RunModule) -> None:
    """What it allows is taken even where it was not asked for, and then comes back, too."""
    reference = "gpuops.test/unlinked:allowed"
    run(node, "/var")
    config = node.inside("/etc/criu/runc.conf")
    config.parent.mkdir()
    config.write_text("# ours\nlink-remap\n")
    run_module("containerd_checkpoint", capture(reference, criu={"link_remap": False}))
    assert config.read_text() == "# ours\nlink-remap\n"
    run_module("containerd_checkpoint", capture(reference, force=True, criu={"link_remap": True}))
    assert config.read_text() == "# ours\nlink-remap\n"
    shutil.rmtree(config.parent)
    workload.delete(node, NAME)
    restore(run_module, reference)
    whole(node, "/var")
    remove(node, run_module, reference)


@pytest.mark.usefixtures("clean")
@pytest.mark.parametrize(
    ("function", "when"),
    [
        ("_containerd.tasks:checkpoint", "enter"),
        ("_containerd.tasks:checkpoint", "leave"),
        ("_capture.layer:copy", "enter"),
    ],
)
def test_killed_and_finished_by_the_next_run(node: Node, run_module: RunModule, function: str, when: str) -> None:
    """Neither the option nor a link stays."""
    reference = "gpuops.test/unlinked:killed"
    run(node, "/var")
    in_node.killed(node, "containerd_checkpoint", capture(reference), function, when)
    left = node.inside("/etc/criu/runc.conf").exists() or list((process(node) / "root/var").glob("link_remap.*"))
    assert left, "it was killed where nothing was to be taken back"
    assert run_module("containerd_checkpoint", capture(reference))["recovered"]
    whole(node, "/var")
    workload.delete(node, NAME)
    restore(run_module, reference)
    whole(node, "/var")
    remove(node, run_module, reference)
