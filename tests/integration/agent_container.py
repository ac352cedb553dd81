# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The agent of examples/agent as a container of a lab node's containerd, and a way to execute in it.

Scripts, manifest and inventory are those of the example. What the recipe takes from elsewhere has a stand-in: programs
of the lab's Debian for the base image, Debian's Python for the one that goes with any host.
"""

from __future__ import annotations

import hashlib
import io
import pathlib
import re
import tarfile
import time
from collections.abc import Mapping, Sequence
from typing import Any

import yaml
from gpuops_lab import cgroups, config, image, root, workload
from gpuops_lab.config import LabError, Node
from gpuops_lab.node import output

EXAMPLE = pathlib.Path(__file__).resolve().parents[2] / "examples" / "agent"
#: Of the container, and of its image.
IDENTIFIER = "gpuops-agent"
REFERENCE = "gpuops.test/agent:1"
SOURCE = "usr/local/lib/gpuops-restore"
#: Of the base image; busybox would take its own nsenter.
PROGRAMS = ("cat", "chmod", "cp", "env", "ln", "mv", "nsenter", "rm", "sh", "sleep")
#: Of Debian's Python, what nobody imports here.
_UNUSED = re.compile(r"/(__pycache__|test|idlelib|lib2to3|ensurepip|pydoc_data|config-[^/]*)$")


def manifest() -> dict[str, Any]:
    """The pod of the example's DaemonSet."""
    pod: dict[str, Any] = yaml.safe_load((EXAMPLE / "daemonset.yml").read_text())["spec"]["template"]["spec"]
    return pod


def run_arguments(pod: Mapping[str, Any]) -> list[str]:
    """That pod's container in the words of ``ctr run``."""
    (container,) = pod["containers"]
    paths = {volume["name"]: volume["hostPath"]["path"] for volume in pod["volumes"]}
    found = ["--privileged"] if container["securityContext"]["privileged"] else []
    found += ["--net-host"] if pod["hostNetwork"] else []
    found += ["--with-ns", "pid:/proc/1/ns/pid"] if pod["hostPID"] else []
    for mount in container["volumeMounts"]:
        place = f"src={paths[mount['name']]},dst={mount['mountPath']}"
        found += ["--mount", f"type=bind,{place},options=rbind:rw"]
    return found


def start(node: Node, pod: Mapping[str, Any]) -> pathlib.Path:
    """Run the agent until it says that it is ready; returns the program that executes in it. Raises LabError."""
    for volume in pod["volumes"]:
        node.inside(volume["hostPath"]["path"]).mkdir(parents=True, exist_ok=True)
    # ctr gives a container with the host's network this file.
    node.inside("/etc/resolv.conf").touch()
    place = node.inside("/var/lib/gpuops-lab")
    place.mkdir(exist_ok=True)
    (place / "agent.tar").write_bytes(archive(node))
    workload.ctr(node, workload.NAMESPACE, "images", "import", "/var/lib/gpuops-lab/agent.tar")
    log = ["--detach", "--log-uri", workload.log_uri(IDENTIFIER)]
    command = [REFERENCE, IDENTIFIER, "/bin/sh", "/usr/local/bin/agent"]
    workload.ctr(node, workload.NAMESPACE, "run", *log, *run_arguments(pod), *command)
    _await_ready(node)
    return _write_program(node)


def _await_ready(node: Node) -> None:
    deadline = time.monotonic() + 60
    said = ""
    while time.monotonic() < deadline:
        said = node.inside(f"/var/log/{IDENTIFIER}.log").read_text()
        if "agent: ready" in said:
            return
        if "agent: " in said:
            break
        time.sleep(0.1)
    raise LabError(f"the agent of node {node.name} does not start: {said}")


def _write_program(node: Node) -> pathlib.Path:
    """A stand-in for ``kubectl exec``: a process in all of the container's namespaces and control groups."""
    groups = [entry.node(node.name) / workload.NAMESPACE / IDENTIFIER for entry in cgroups.host_hierarchies()]
    files = [group / "cgroup.procs" for group in groups if group.is_dir()]
    pids = {line for file in files for line in file.read_text().split()}
    if len(pids) != 1:
        raise LabError(f"the agent of node {node.name} is not one process: {sorted(pids)}")
    text = f"""#!/bin/sh
# Runs a command in the agent's container of node {node.name}.
for group in {" ".join(map(str, files))}; do
    echo 0 >"$group" || exit 255
done
exec env -i PATH=/usr/bin:/bin HOSTNAME=agent nsenter --target {pids.pop()} --all -- "$@"
"""
    path = node.directory / "kubectl-exec"
    config.write_atomically(path, text, 0o755)
    return path


def inventory(node: Node, program: pathlib.Path) -> dict[str, Any]:
    """The example's inventory for this node, with the stand-in's name for that of the connection."""
    example = yaml.safe_load((EXAMPLE / "inventory/agents.yml").read_text())
    variables = {**example["gpu_nodes"]["vars"], "ansible_kubectl_stand_in": str(program)}
    assert variables["ansible_connection"] == "kubernetes.core.kubectl"
    variables["ansible_connection"] = "kubectl_stand_in"
    return {"gpu_nodes": {"hosts": {node.name: {}}, "vars": variables}}


def archive(node: Node) -> bytes:
    """The image as the recipe makes it, out of the lab's own Debian."""
    base = root.root_directory()
    version = (base / "usr/bin/python3").readlink().name
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        programs = [f"/bin/{program}" for program in PROGRAMS]
        for path in (*programs, *sorted(_libraries(node, programs))):
            _write(tar, path.strip("/"), (base / path.strip("/")).read_bytes())
        _write(tar, "usr/local/bin/agent", (EXAMPLE / "agent").read_bytes())
        _write(tar, f"{SOURCE}/host-shell", (EXAMPLE / "host-shell").read_bytes())
        _write(tar, f"{SOURCE}/digest", hashlib.sha256(str(base).encode()).hexdigest()[:12].encode())
        _write(tar, f"{SOURCE}/python/bin/{version}", (base / "usr/bin" / version).read_bytes())
        _link(tar, f"{SOURCE}/python/bin/python3", version)
        for directory in (version, "python3/dist-packages"):
            tar.add(base / "usr/lib" / directory, f"{SOURCE}/python/lib/{directory}", filter=_used)
        for name in ("proc", "sys", "dev", "tmp"):
            entry = tarfile.TarInfo(name)
            entry.type, entry.mode = tarfile.DIRTYPE, 0o755
            tar.addfile(entry)
    return image.image_archive(buffer.getvalue(), REFERENCE, image.architecture())


def _libraries(node: Node, programs: Sequence[str]) -> set[str]:
    return set(re.findall(r"(/\S+) \(", output(node, ["ldd", *programs])))


def _used(entry: tarfile.TarInfo) -> tarfile.TarInfo | None:
    return None if _UNUSED.search(f"/{entry.name}") else entry


def _write(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    entry = tarfile.TarInfo(name)
    entry.mode, entry.size = 0o755, len(content)
    tar.addfile(entry, io.BytesIO(content))


def _link(tar: tarfile.TarFile, name: str, target: str) -> None:
    entry = tarfile.TarInfo(name)
    entry.type, entry.linkname = tarfile.SYMTYPE, target
    tar.addfile(entry)
