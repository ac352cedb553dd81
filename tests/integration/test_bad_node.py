# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Bad input: a node that lacks what the restore needs, or has something else in its place."""

from __future__ import annotations

import contextlib
import json
import pathlib
import subprocess
from collections.abc import Iterator, Mapping
from typing import Any, Callable

import make_images
import pytest
from bad_input import Refuses
from gpuops_lab import image, workload
from gpuops_lab.config import Node
from gpuops_lab.node import output
from make_images import Parts, imported

REF = "gpuops.test/checkpoint:1"
STAGE, CONTAINER, TASK, INFO = (
    "containerd_checkpoint_stage",
    "containerd_container",
    "containerd_task",
    "containerd_checkpoint_info",
)
SOURCES = "/var/lib/gpuops-lab/sources"
WISH = {"container_id": "x", "checkpoint": REF}
#: The checkpoint is ctr's, so nobody vouches for what metadata want of the host.
ALLOWED = {"policy": {"bind_sources": [SOURCES]}}
RunModule = Callable[..., dict[str, Any]]


@pytest.fixture(scope="module", autouse=True)
def good(node: Node) -> Parts:
    return make_images.good(node, REF)


@pytest.fixture
def refuses(expect_failure: RunModule, unchanged: Callable[..., Any]) -> Refuses:
    return Refuses(expect_failure, unchanged)


def problem_codes(run_module: RunModule, params: Mapping[str, Any]) -> list[str]:
    """What the preflight says about the same wish."""
    return [problem["code"] for problem in run_module(INFO, dict(params))["problems"]]


def absent(run_module: RunModule, identifier: str, **params: Any) -> None:
    for name in (TASK, CONTAINER):
        run_module(name, {"container_id": identifier, "state": "absent", **params})


def test_unknown_snapshotter(refuses: Refuses, run_module: RunModule) -> None:
    params = {**WISH, "snapshotter": "stargazer"}
    refuses(CONTAINER, params, "unknown snapshotter", "stargazer", "overlayfs")
    assert problem_codes(run_module, params) == ["snapshotter_unknown"]
    wanted = {"name": image.REFERENCE, "pull": "never", "snapshotter": "stargazer"}
    refuses("containerd_image", wanted, "unknown snapshotter", "stargazer")


def test_runtime_not_installed(node: Node, refuses: Refuses, run_module: RunModule, good: Parts) -> None:
    runtime = "io.containerd.kata.v2"
    with imported(node, good.noted(**{"io.containerd.checkpoint.runtime": runtime})) as reference:
        params: dict[str, Any] = {**WISH, "checkpoint": reference}
        refuses(CONTAINER, params, "runtime not listed", runtime)
        assert problem_codes(run_module, params) == ["runtime_refused"]
        params["runtimes"] = [{"name": runtime}]
        refuses(CONTAINER, params, "runtime not installed", runtime)
        assert problem_codes(run_module, params) == ["runtime_absent"]


def test_container_made_by_ctr(node: Node, refuses: Refuses, run_module: RunModule) -> None:
    workload.start(node, "taken")
    try:
        params = {**WISH, "container_id": "taken"}
        what, words = "container of another owner", ("taken", "not made by this collection")
        refuses(CONTAINER, params, what, *words)
        refuses(CONTAINER, {"container_id": "taken", "state": "absent"}, what, *words)
        refuses(TASK, params, what, *words)
        for state in ("stopped", "absent"):
            refuses(TASK, {"container_id": "taken", "state": state}, what, *words)
        assert problem_codes(run_module, params)[0] == "container_not_ours"
        assert workload.count(node, "taken") > 0
    finally:
        workload.delete(node, "taken")


def test_container_of_another_owner(refuses: Refuses, run_module: RunModule) -> None:
    run_module(CONTAINER, {**WISH, "owner": "somebody"})
    try:
        refuses(CONTAINER, WISH, "container of another owner", "x", "somebody")
        refuses(TASK, WISH, "container of another owner", "x", "somebody")
        assert problem_codes(run_module, WISH) == ["container_not_ours"]
    finally:
        absent(run_module, "x", owner="somebody")


def test_container_from_another_checkpoint(node: Node, refuses: Refuses, run_module: RunModule, good: Parts) -> None:
    run_module(CONTAINER, WISH)
    other = good.noted(test="another")
    try:
        with imported(node, other) as reference:
            params = {**WISH, "checkpoint": reference}
            for name in (CONTAINER, TASK):
                refuses(name, params, "container from another checkpoint", "x", other.digest)
            assert problem_codes(run_module, params) == ["container_other_checkpoint"]
    finally:
        absent(run_module, "x")


@pytest.fixture(scope="module")
def sources(node: Node) -> Iterator[pathlib.Path]:
    """A directory, a file and links to both, as sources of binds; the path as the host reaches it."""
    here = node.inside(SOURCES)
    (here / "directory").mkdir(parents=True)
    (here / "file").write_text("x")
    (here / "link").symlink_to("directory")
    (here / "link-to-file").symlink_to("file")
    yield here
    for name in ("file", "link", "link-to-file"):
        (here / name).unlink()
    (here / "directory").rmdir()
    here.rmdir()


#: Where the container had it, what lies there on this node, and how that is refused.
BINDS = {
    "missing": ("/data", "gone", "bind source missing"),
    "file-where-a-directory-was": ("/dev/shm", "file", "bind source of another kind"),
    "directory-where-a-file-was": ("/etc/hosts", "directory", "bind source of another kind"),
    "symbolic-link": ("/data", "link", "symbolic link as bind source"),
    "symbolic-link-to-file": ("/etc/hosts", "link-to-file", "symbolic link as bind source"),
}


@pytest.mark.parametrize(
    ("case", "mapped"),
    [*((case, False) for case in BINDS), ("missing", True), ("symbolic-link", True)],
    ids=lambda value: value if isinstance(value, str) else ("mapped" if value else "recorded"),
)
@pytest.mark.usefixtures("sources")
def test_bind_source(refuses: Refuses, run_module: RunModule, good: Parts, case: str, mapped: bool) -> None:
    destination, name, what = BINDS[case]
    source = f"{SOURCES}/{name}"
    recorded = "/var/lib/kubelet/pods/0b2d/volumes/data" if mapped else source
    params = {
        **WISH,
        **ALLOWED,
        "metadata_content": metadata(good, bind(destination, recorded)),
        "mounts": {recorded: source} if mapped else {},
    }
    refused = refuses(CONTAINER, params, what, destination, source)
    assert problem_codes(run_module, params) == [refused["failure"]["code"]]


@pytest.mark.usefixtures("sources")
def test_file_where_a_directory_of_the_application_was(
    node: Node, refuses: Refuses, run_module: RunModule, good: Parts
) -> None:
    """Nobody knows what /data is but the container's own files, which are there once its snapshot is."""
    layer = make_images.layer({"data/volume/": b""})
    with imported(node, good.having("layer", layer)) as reference:
        params = {**WISH, **ALLOWED, "checkpoint": reference}
        params["metadata_content"] = metadata(good, bind("/data/volume", f"{SOURCES}/file"))
        words = ("/data/volume", f"{SOURCES}/file", "is a directory in the container")
        refuses(CONTAINER, params, "bind source of another kind", *words, modes=(False,))
        # What fits is taken.
        params["metadata_content"] = metadata(good, bind("/data/volume", f"{SOURCES}/directory"))
        assert run_module(CONTAINER, params)["created"]
        absent(run_module, "x")


def test_all_bind_sources_at_once(node: Node, expect_failure: RunModule, good: Parts) -> None:
    binds = [bind("/data", f"{SOURCES}/gone"), bind("/more", f"{SOURCES}/gone-too")]
    params = {**WISH, **ALLOWED, "metadata_content": metadata(good, *binds)}
    result = expect_failure(CONTAINER, params, "mount_source_missing")
    for entry in binds:
        assert entry["source"] in result["msg"]


def bind(destination: str, source: str) -> dict[str, Any]:
    return {"destination": destination, "source": source, "type": "bind", "options": ["rbind", "rw"]}


def metadata(good: Parts, *binds: Mapping[str, Any]) -> str:
    """Metadata with the checkpoint's own spec and these mounts."""
    spec = make_images.spec_of(good)
    taken = {entry["destination"] for entry in binds}
    spec["mounts"] = [*(entry for entry in spec["mounts"] if entry["destination"] not in taken), *binds]
    return json.dumps({"originalImage": image.REFERENCE, "ociSpec": spec})


DEAD = "/proc/4194000/ns/net"


def test_netns_of_a_dead_process_asked_for(refuses: Refuses, run_module: RunModule, good: Parts) -> None:
    params = {**WISH, "metadata_content": of_pod(good, DEAD), "network": DEAD}
    refused = refuses(CONTAINER, params, "network namespace of a process", DEAD)
    assert problem_codes(run_module, params) == [refused["failure"]["code"]]


def test_netns_of_a_dead_process_recorded(
    node: Node, unchanged: Callable[..., Any], run_module: RunModule, good: Parts
) -> None:
    """It is never kept, for the number may be a stranger's by now: the container gets a new one, and that is said."""
    # The directory /run/netns is iproute2's, which makes it with the first namespace and keeps it.
    for verb in ("add", "delete"):
        output(node, ["ip", "netns", verb, "first"])
    with unchanged():
        params = {**WISH, "metadata_content": of_pod(good, DEAD)}
        for check in (True, False):
            made = run_module(CONTAINER, params, check=check)
            assert f"The network namespace {DEAD} is replaced by /run/netns/gpuops-restore-x." in made["spec_changes"]
            assert DEAD in json.dumps(made["warnings"])
        absent(run_module, "x")


def test_netns_that_is_gone(refuses: Refuses, run_module: RunModule, good: Parts) -> None:
    params = {**WISH, "metadata_content": of_pod(good, DEAD), "network": "/run/netns/gone"}
    refused = refuses(CONTAINER, params, "network namespace that is gone", "/run/netns/gone")
    assert problem_codes(run_module, params) == [refused["failure"]["code"]]


@pytest.mark.usefixtures("sources")
def test_netns_that_is_a_file(refuses: Refuses, run_module: RunModule, good: Parts) -> None:
    params = {**WISH, "metadata_content": of_pod(good, DEAD), "network": f"{SOURCES}/file"}
    refused = refuses(CONTAINER, params, "file that is no network namespace", f"{SOURCES}/file")
    assert problem_codes(run_module, params) == [refused["failure"]["code"]]


def of_pod(good: Parts, netns: str) -> str:
    """Metadata of a container that shared the network namespace of its pod."""
    spec = make_images.spec_of(good)
    for entry in spec["linux"]["namespaces"]:
        if entry["type"] == "network":
            entry["path"] = netns
    return json.dumps({"originalImage": image.REFERENCE, "ociSpec": spec})


@pytest.mark.parametrize(
    ("program", "what"), [("criu", "CRIU missing"), ("iptables-restore", "iptables-restore missing")]
)
def test_program_missing(node: Node, refuses: Refuses, run_module: RunModule, program: str, what: str) -> None:
    run_module(STAGE, {"checkpoint": REF})
    run_module(CONTAINER, WISH)
    try:
        with hidden(node, program):
            refused = refuses(TASK, WISH, what, program)
            assert problem_codes(run_module, WISH) == [refused["failure"]["code"]]
        # It was refused before anything was touched: with the program back it simply works.
        assert run_module(TASK, WISH)["task"]["status"] == "RUNNING"
    finally:
        absent(run_module, "x")
        run_module(STAGE, {"checkpoint": REF, "state": "absent"})


@contextlib.contextmanager
def hidden(node: Node, program: str) -> Iterator[None]:
    """The program is not on the node for the length of the block."""
    where = output(node, ["which", program]).strip()
    move = [str(node.directory / "enter"), "mv"]
    subprocess.run([*move, where, f"{where}.hidden"], check=True)
    try:
        yield
    finally:
        subprocess.run([*move, f"{where}.hidden", where], check=True)


def test_staging_disk_too_small(node: Node, refuses: Refuses, run_module: RunModule) -> None:
    small = "/srv/small"
    output(node, ["mkdir", "-p", small])
    output(node, ["mount", "-t", "tmpfs", "-o", "size=1m,mode=0700", "tmpfs", small])
    try:
        params = {"checkpoint": REF, "staging_dir": small}
        refuses(STAGE, params, "staging disk too small", small, "1048576", outcome="retryable")
        assert list(node.inside(small).iterdir()) == []
        assert problem_codes(run_module, {**WISH, "staging_dir": small}) == ["staging_no_space"]
    finally:
        output(node, ["umount", small])


def test_containerd_restarts_with_cri(node: Node) -> None:
    assert workload.cri_problems(node) == []
