# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""containerd_image pulls from a registry inside the node; containerd 1.6 says that it cannot."""

from __future__ import annotations

import contextlib
import os
import subprocess
import time
from collections.abc import Callable, Iterator
from typing import Any

import in_node
import pytest
from gpuops_lab import image, workload
from gpuops_lab.config import Node
from gpuops_lab.node import output, run

VERSION = os.environ.get("GPUOPS_CONTAINERD", "1.7")
HOST = "127.0.0.1:5000"
NAME = f"{HOST}/counter:1"
CONFIG = """\
version: 0.1
storage: {filesystem: {rootdirectory: /var/lib/gpuops-lab/registry}}
http:
  addr: 127.0.0.1:5000
  tls: {certificate: /var/lib/gpuops-lab/registry.crt, key: /var/lib/gpuops-lab/registry.key}
"""
#: A certificate of its own, trusted by the node: containerd 1.7 pulls for us by its defaults only, so by HTTPS.
CERTIFICATE = """\
set -e
cd /var/lib/gpuops-lab
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=127.0.0.1 \\
    -addext subjectAltName=IP:127.0.0.1 -keyout registry.key -out registry.crt
cat registry.crt >> /etc/ssl/certs/ca-certificates.crt
"""
RunModule = Callable[..., dict[str, Any]]
ExpectFailure = Callable[..., dict[str, Any]]
Unchanged = Callable[..., "contextlib.AbstractContextManager[None]"]


@pytest.fixture(scope="module")
def registry(node: Node) -> Iterator[str]:
    """A registry with the workload image; gives the digest. Nothing else is left in containerd.

    containerd 1.6 is not asked to pull, nor can its ctr push to this registry.
    """
    node.inside("/var/lib/gpuops-lab").mkdir(parents=True, exist_ok=True)
    if VERSION == "1.6":
        # The namespace comes into being with its first object, and stays.
        in_node.run_module(node, "containerd_lease", {"id": "warm"})
        in_node.run_module(node, "containerd_lease", {"id": "warm", "state": "absent"})
        yield "sha256:" + 64 * "1"
        return
    node.inside("/var/lib/gpuops-lab/registry.yml").write_text(CONFIG)
    output(node, ["sh", "-c", CERTIFICATE])
    server = subprocess.Popen(
        [str(node.directory / "enter"), "docker-registry", "serve", "/var/lib/gpuops-lab/registry.yml"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        path = workload.place_image(node)
        workload.ctr(node, "k8s.io", "images", "import", path)
        workload.ctr(node, "k8s.io", "images", "tag", image.REFERENCE, NAME)
        pushed = run(node, ["false"])
        give_up = time.monotonic() + 15
        while pushed.returncode and time.monotonic() < give_up:
            pushed = run(node, ["ctr", "-n", "k8s.io", "images", "push", NAME])
            time.sleep(0.1)
        assert pushed.returncode == 0, pushed.stderr
        rows = workload.ctr(node, "k8s.io", "images", "ls", f"name=={NAME}").split()
        digest = next(word for word in rows if word.startswith("sha256:"))
        time.sleep(0.5)
        for name in workload.ctr(node, "k8s.io", "images", "ls", "-q").split():
            workload.ctr(node, "k8s.io", "images", "rm", "--sync", name)
        yield digest
    finally:
        server.terminate()
        server.wait()


def test_pull(registry: str, run_module: RunModule, expect_failure: ExpectFailure, unchanged: Unchanged) -> None:
    with unchanged():
        predicted = run_module("containerd_image", {"name": NAME, "digest": registry}, check=True, diff=True)
        if VERSION == "1.6":
            failed = expect_failure("containerd_image", {"name": NAME}, "pull_unsupported")
            assert "archive" in failed["failure"]["hint"]
            return
        with unchanged():
            done = run_module("containerd_image", {"name": NAME, "digest": registry}, diff=True)
            run_module("containerd_image", {"name": NAME, "state": "absent"})
        assert predicted["diff"] == done["diff"] and predicted["actions"] == done["actions"]
        assert done["image"]["digest"] == registry and done["image"]["unpacked"] and done["created"]
        assert run_module("containerd_image", {"name": NAME, "pinned": True})["changed"]
        for pull in ("missing", "always", "never"):
            assert not run_module("containerd_image", {"name": NAME, "pull": pull})["changed"], pull
        run_module("containerd_image", {"name": NAME, "state": "absent"})


@pytest.mark.parametrize(
    ("params", "code"),
    [
        ({"name": f"{HOST}/nothing:1"}, "pull_not_found"),
        ({"name": NAME, "digest": "sha256:" + 64 * "0"}, "pull_not_found"),
        ({"name": "127.0.0.1:5001/counter:1"}, "pull_failed"),
    ],
)
def test_failed_pull(
    registry: str, expect_failure: ExpectFailure, unchanged: Unchanged, params: dict[str, Any], code: str
) -> None:
    with unchanged():
        expect_failure("containerd_image", params, "pull_unsupported" if VERSION == "1.6" else code)


def test_moved_tag(
    node: Node, registry: str, run_module: RunModule, expect_failure: ExpectFailure, unchanged: Unchanged
) -> None:
    """An image of ours follows its tag with pull=always; somebody else's only by force."""
    other = image.image_archive(image.layer(b"x", {"counter": b"y"}), NAME, image.architecture())
    node.inside("/var/lib/gpuops-lab/other.tar").write_bytes(other)
    with unchanged():
        old = run_module("containerd_image", {"name": NAME, "archive": "/var/lib/gpuops-lab/other.tar"})["image"][
            "digest"
        ]
        assert not run_module("containerd_image", {"name": NAME})["changed"]
        if VERSION == "1.6":
            expect_failure("containerd_image", {"name": NAME, "pull": "always"}, "pull_unsupported")
            run_module("containerd_image", {"name": NAME, "state": "absent"})
            return
        moved = run_module("containerd_image", {"name": NAME, "pull": "always"})
        assert moved["changed"] and not moved["created"]
        assert moved["image"]["digest"] == registry != old
        run_module("containerd_image", {"name": NAME, "state": "absent"})
    with unchanged():
        workload.ctr(node, "k8s.io", "images", "import", "/var/lib/gpuops-lab/other.tar")
        time.sleep(0.5)
        with unchanged():
            expect_failure("containerd_image", {"name": NAME, "pull": "always"}, "image_other_digest")
        run_module("containerd_image", {"name": NAME, "state": "absent", "force": True})
