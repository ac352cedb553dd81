# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Content of memory that comes from outside of a container: it goes along, and is one again for those that share it."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Iterator
from typing import Any, Callable

import in_node
import pytest
from gpuops_lab import image, workload
from gpuops_lab.config import Node
from gpuops_lab.node import output
from node_listing import listing, settled_difference

STATE = "/var/lib/gpuops-restore"
VOLUMES = "/run/gpuops-restore/volumes/k8s.io"
POD = "/run/pod"
RunModule = Callable[..., dict[str, Any]]
#: Holds a file of the volume open, and one that is deleted; counts in its writable layer and in the volume.
SCRIPT = """
box=/bin/busybox
echo "held open" >{0}/held
echo "deleted" >{0}/gone
echo "by another name" >{0}/one
$box ln {0}/one {0}/another
exec 3<>{0}/held 4<>{0}/gone 5<>{0}/one
$box rm {0}/gone {0}/one
count=0
while true; do
    count=$((count + 1))
    echo $count >{0}/$NAME
    echo $count >/var/count
    $box sleep 0.1
done
"""
#: Without a deleted file that has another name.
WITHOUT_LINK = SCRIPT.replace("5<>{0}/one", "")
#: What there may be in such a volume besides.
FILES = """
cd {0}
box=/bin/busybox
$box head -c 300000 /dev/urandom >data
$box ln data same
$box ln -s /nowhere link
$box mkfifo pipe
$box mkdir -p below/deep
$box chmod 1775 below
$box chown 5:6 below/deep
$box truncate -s 200000000 below/hole
echo end >>below/hole
"""


@pytest.fixture(scope="module", autouse=True)
def imported(node: Node) -> None:
    workload.ctr(node, "k8s.io", "images", "import", workload.place_image(node))


@pytest.fixture
def pod(node: Node) -> Iterator[str]:
    """A tmpfs of the node's, as a kubelet makes one for a pod; the node is afterwards as it was before."""
    # Where mount(8) keeps notes.
    output(node, ["mkdir", "-p", "/run/mount"])
    before = listing(node)
    output(node, ["mkdir", "-p", f"{POD}/shm"])
    output(node, ["mount", "-t", "tmpfs", "-o", "size=32m,mode=1777,nosuid,nodev,noexec", "shm", f"{POD}/shm"])
    yield f"{POD}/shm"
    # Where a test has failed.
    for name in workload.ctr(node, "k8s.io", "containers", "ls", "-q").split():
        workload.delete(node, name)
    output(node, ["sh", "-c", f"umount -l {VOLUMES}/*/content 2>/dev/null; rm -rf /run/gpuops-restore/volumes"])
    output(node, ["umount", f"{POD}/shm"])
    output(node, ["rm", "-r", POD])
    shutil.rmtree(node.inside(f"{STATE}/receipts"), ignore_errors=True)
    for name in ("train", "first", "second"):
        node.inside(f"/var/log/{name}.log").unlink(missing_ok=True)
    assert settled_difference(node, before) == []


def run(node: Node, name: str, source: str, script: str = SCRIPT) -> None:
    mount = f"type=bind,src={source},dst=/cache,options=rbind:rw"
    arguments = ["--detach", "--log-uri", workload.log_uri(name), "--env", f"NAME={name}", "--mount", mount]
    workload.ctr(node, "k8s.io", "run", *arguments, image.REFERENCE, name, "/bin/sh", "-c", script.format("/cache"))
    workload.await_count(node, name, 2)


def execute(node: Node, name: str, script: str) -> str:
    return workload.ctr(node, "k8s.io", "tasks", "exec", "--exec-id", "do", name, "/bin/sh", "-c", script)


def pid(node: Node, name: str) -> str:
    rows = [line.split() for line in workload.ctr(node, "k8s.io", "tasks", "ls").splitlines()[1:]]
    return next(row[1] for row in rows if row and row[0] == name)


def tree(node: Node, directory: str, *ignored: str) -> list[str]:
    """Everything of a directory, the content by its digest."""
    script = (
        f"cd {directory} && find . -type f -exec sha256sum {{}} + | sort -k2 && "
        "find . -mindepth 1 -printf '%P %y %m %U:%G %s %n %l %T@\\n' | sort"
    )
    skip = ("held", "gone", "another", *ignored)
    lines = output(node, ["sh", "-c", script]).splitlines()
    return [line for line in lines if line.split()[0] not in skip and line.split()[-1].removeprefix("./") not in skip]


def capture(run_module: RunModule, name: str, reference: str, **more: Any) -> dict[str, Any]:
    return run_module("containerd_checkpoint", {"container_id": name, "name": reference, **more})


def restore(run_module: RunModule, **workloads: str) -> dict[str, Any]:
    for reference in workloads.values():
        run_module("containerd_checkpoint_stage", {"checkpoint": reference})
    wanted = [{"name": name, "checkpoint": reference} for name, reference in workloads.items()]
    return run_module("containerd_restore", {"workloads": wanted, "huge_pages": "keep"})


def remove(node: Node, run_module: RunModule, names: tuple[str, ...], references: tuple[str, ...]) -> None:
    for name in names:
        for module in ("containerd_task", "containerd_container"):
            run_module(module, {"container_id": name, "state": "absent"})
    for reference in references:
        run_module("containerd_checkpoint_stage", {"checkpoint": reference, "state": "absent"})
    workload.ctr(node, "k8s.io", "images", "rm", "--sync", *references)


@pytest.mark.every_containerd
def test_the_content_comes_back_any_number_of_times(node: Node, run_module: RunModule, pod: str) -> None:
    """The second capture is of what was restored. What the process has open is the file of the volume."""
    references = tuple(f"gpuops.test/volume:{number}" for number in (1, 2))
    content, place = f"{VOLUMES}/train.0/content", pod
    run(node, "train", pod)
    execute(node, "train", FILES.format("/cache"))
    before = tree(node, pod, "train")
    assert any("below/hole" in line for line in before) and any(line.startswith("pipe p") for line in before)
    for reference in references:
        predicted = run_module("containerd_checkpoint", {"container_id": "train", "name": reference}, check=True)
        done = capture(run_module, "train", reference)
        assert predicted["memory_volumes"][0]["destination"] == "/cache"
        (volume,) = done["memory_volumes"]
        # Holes take no room, neither here nor there.
        assert 300000 < volume["size"] < 2000000 and volume["shared"] == []
        assert tree(node, place, "train") == before
        count = workload.count(node, "train")
        workload.delete(node, "train")
        info = {"checkpoint": reference, "container_id": "train"}
        assert run_module("containerd_checkpoint_info", info)["problems"] == []
        restore(run_module, train=reference)
        assert workload.await_count(node, "train", count + 3) > count
        assert int(node.inside(f"{content}/train").read_text()) > count
        assert tree(node, content, "train") == before
        process, place = f"/proc/{pid(node, 'train')}", content
        lines = node.inside(f"{process}/mountinfo").read_text().splitlines()
        (line,) = [line for line in lines if " /cache " in line]
        assert "noexec" in line and "size=32768k" in line
        assert output(node, ["stat", "-c", "%a", content]) == "1777\n"
        for number, name in (("3", "held"), ("5", "another")):
            inodes = [
                output(node, ["stat", "-L", "-c", "%i", path])
                for path in (f"{process}/fd/{number}", f"{content}/{name}")
            ]
            assert inodes[0] == inodes[1]
        assert output(node, ["cat", f"{process}/fd/4"]) == "deleted\n"
        assert not restore(run_module, train=reference)["changed"]
    remove(node, run_module, ("train",), references)
    assert not node.inside("/run/gpuops-restore/volumes").exists()


def test_two_that_had_one_together_have_it_again(
    node: Node, run_module: RunModule, expect_failure: RunModule, pod: str
) -> None:
    """Its content has to be of a moment that fits both."""
    for name in ("first", "second"):
        run(node, name, pod, WITHOUT_LINK)
    moving = {"first": "gpuops.test/moving:first", "second": "gpuops.test/moving:second"}
    for name, reference in moving.items():
        done = capture(run_module, name, reference)
        assert done["memory_volumes"][0]["shared"] == sorted({"first", "second"} - {name})
        assert "leave: paused" in json.dumps(done["warnings"])
    still = {"first": "gpuops.test/still:first", "second": "gpuops.test/still:second"}
    for name, reference in still.items():
        done = capture(run_module, name, reference, leave="paused")
    assert "warnings" not in done
    counts = {name: int(node.inside(f"{pod}/{name}").read_text()) for name in still}
    for name, reference in still.items():
        capture(run_module, name, reference, state="settled")
        workload.delete(node, name)
    for reference in (*moving.values(), *still.values()):
        run_module("containerd_checkpoint_stage", {"checkpoint": reference})
    wanted = [{"name": name, "checkpoint": reference} for name, reference in moving.items()]
    for state in ("checked", "restored"):
        done = in_node.run_module(
            node, "containerd_restore", {"workloads": wanted, "huge_pages": "keep", "state": state}
        )
        assert "memory_volume_moments" in json.dumps(done)
    assert workload.ctr(node, "k8s.io", "containers", "ls", "-q") == ""
    for _time in range(2):
        # The second time both have ended.
        restore(run_module, **still)
        (content,) = node.inside(VOLUMES).glob("shared.*/content")
        for name, count in counts.items():
            workload.await_count(node, name, count + 3)
            assert int((content / name).read_text()) > count
            assert int(execute(node, "first", f"/bin/cat /cache/{name}")) > count
        assert not restore(run_module, **still)["changed"]
        for name in still:
            workload.ctr(node, "k8s.io", "tasks", "kill", "--signal", "SIGKILL", name)
            await_end(node, name)
    # One alone would not have what the other, which has ended, has made of it.
    restore(run_module, **still)
    workload.ctr(node, "k8s.io", "tasks", "kill", "--signal", "SIGKILL", "first")
    await_end(node, "first")
    alone = {"workloads": [{"name": "first", "checkpoint": still["first"]}], "huge_pages": "keep"}
    assert "is one of second on this node" in expect_failure("containerd_restore", alone, "memory_volume_in_use")["msg"]
    workload.await_count(node, "second", workload.count(node, "second") + 2)
    remove(node, run_module, ("first",), ())
    assert content.exists()
    remove(node, run_module, ("second",), (*moving.values(), *still.values()))
    assert not node.inside("/run/gpuops-restore/volumes").exists()
    shutil.rmtree(node.inside(f"{STATE}/debug"), ignore_errors=True)


def test_what_is_wanted_and_what_cannot_be(
    node: Node, run_module: RunModule, expect_failure: RunModule, pod: str
) -> None:
    """Refused before anything stops; left to the operator; and a run that was killed while it filled one."""
    reference = "gpuops.test/volume:wish"
    # The deleted file would be refused where the volume is not taken.
    run(node, "train", pod, WITHOUT_LINK)
    wanted = {"container_id": "train", "name": reference}
    expect_failure("containerd_checkpoint", {**wanted, "memory_volumes": ["/var"]}, "memory_volume_unknown")
    expect_failure("containerd_checkpoint", {**wanted, "memory_volumes": ["none", "/cache"]}, "memory_volumes_invalid")
    output(node, ["mknod", f"{pod}/device", "c", "1", "3"])
    assert "'device' is a device" in expect_failure("containerd_checkpoint", wanted, "memory_volume_unfit")["msg"]
    node.inside(f"{pod}/device").unlink()
    assert capture(run_module, "train", reference, memory_volumes=["none"])["memory_volumes"] == []
    (volume,) = capture(run_module, "train", reference, memory_volumes=["/cache"], force=True)["memory_volumes"]
    workload.delete(node, "train")
    run_module("containerd_checkpoint_stage", {"checkpoint": reference})
    identity = {"container_id": "train", "checkpoint": reference}
    # Its old source is there still, and counts where the content is not wanted.
    for more in ({"memory_volumes": "none"}, {"mounts": {pod: pod}}):
        run_module("containerd_container", {**identity, **more})
        run_module("containerd_task", identity)
        assert f"{POD}/shm" not in node.inside(f"/proc/{pid(node, 'train')}/mountinfo").read_text()
        assert not node.inside(VOLUMES).exists()
        for module in ("containerd_task", "containerd_container"):
            run_module(module, {"container_id": "train", "state": "absent"})
    parameters = {"workloads": [{"name": "train", "checkpoint": reference}], "huge_pages": "keep"}
    for when in ("enter", "leave"):
        in_node.killed(node, "containerd_restore", parameters, "_streams.tree_extract:extract", when)
        assert node.inside(f"{VOLUMES}/train.0/content").exists()
        restore(run_module, train=reference)
        assert node.inside(f"{VOLUMES}/train.0/content/held").read_text() == "held open\n"
        for module in ("containerd_task", "containerd_container"):
            run_module(module, {"container_id": "train", "state": "absent"})
        assert not node.inside(VOLUMES).exists()
    remove(node, run_module, (), (reference,))


def await_end(node: Node, name: str) -> None:
    for _time in range(100):
        rows = [line.split() for line in workload.ctr(node, "k8s.io", "tasks", "ls").splitlines()[1:]]
        if all(row[2] == "STOPPED" for row in rows if row and row[0] == name):
            return
        time.sleep(0.1)
    raise AssertionError(f"{name} does not end")
