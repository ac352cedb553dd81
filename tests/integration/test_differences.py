# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a restored task has is what the captured one had, or it is said, on a real containerd, runc and CRIU."""

from __future__ import annotations

import gzip
import io
import json
import os
import shlex
import shutil
import tarfile
from collections.abc import Iterator
from typing import Any, Callable

import make_images
import pytest
from gpuops_lab import image, node as lab_node, workload
from gpuops_lab.config import Node
from node_listing import listing, settled_difference

NAME, REF = "whole", "gpuops.test/whole:1"
STATE = "/var/lib/gpuops-restore"
RunModule = Callable[..., dict[str, Any]]


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


def run(node: Node, *options: str, script: str = "exec /bin/counter") -> None:
    arguments = ["--detach", "--log-uri", workload.log_uri(NAME), *options, image.REFERENCE, NAME]
    workload.ctr(node, "k8s.io", "run", *arguments, "/bin/sh", "-c", script)
    workload.await_count(node, NAME, 3)


def capture(node: Node, run_module: RunModule, **more: Any) -> int:
    """Captured, gone and staged; how far it had come at least."""
    reached = workload.count(node, NAME)
    run_module("containerd_checkpoint", {"container_id": NAME, "name": REF, "force": True, **more})
    workload.delete(node, NAME)
    run_module("containerd_checkpoint_stage", {"checkpoint": REF})
    return reached


def restore(run_module: RunModule, **more: Any) -> dict[str, Any]:
    """Restored; what is told of it."""
    done = run_module("containerd_restore", {"workloads": [{"name": NAME, "checkpoint": REF, **more}]})
    return {**done["workloads"][NAME], "warnings": done.get("warnings", [])}


def receipt(node: Node) -> dict[str, Any]:
    found = json.loads(node.inside(f"{STATE}/receipts/{NAME}.json").read_text(encoding="utf-8"))
    assert isinstance(found, dict)
    return found


def remove(node: Node, run_module: RunModule) -> None:
    for module in ("containerd_task", "containerd_container"):
        run_module(module, {"container_id": NAME, "state": "absent"})
    run_module("containerd_checkpoint_stage", {"checkpoint": REF, "state": "absent"})
    workload.ctr(node, "k8s.io", "images", "rm", "--sync", REF)


def inside(node: Node, script: str) -> str:
    """What a shell in the container says; empty if it fails."""
    command = ["tasks", "exec", "--exec-id", f"e{os.urandom(4).hex()}", NAME, "/bin/sh", "-c", script]
    return lab_node.run(node, ["ctr", "-n", "k8s.io", *command]).stdout.strip()


def pid(node: Node) -> str:
    """Of the container's first process, on the node."""
    return next(line.split()[1] for line in workload.ctr(node, "k8s.io", "tasks", "ls").splitlines() if NAME in line)


def goes_on(node: Node, reached: int) -> None:
    workload.await_count(node, NAME, workload.await_count(node, NAME, reached) + 3)


@pytest.mark.older_criu
@pytest.mark.usefixtures("clean")
def test_a_read_only_root_is_read_only_again(node: Node, run_module: RunModule) -> None:
    """CRIU before 4.2 mounts it as it is given (its issue 2632): whoever breaks in could change the image."""
    tmpfs = [f"--mount=type=tmpfs,src=tmpfs,dst={place},options=rw" for place in ("/var", "/tmp")]
    run(node, "--read-only", *tmpfs)
    assert inside(node, "echo x > /probe || echo refused") == "refused"
    reached = capture(node, run_module)
    for again in range(2):
        done = restore(run_module)
        assert inside(node, "echo x > /probe || echo refused") == "refused"
        goes_on(node, reached)
        assert (done["differences"], done["not_compared"], done["warnings"]) == ([], "", []), again
        assert receipt(node)["differences"] == []
        if not again:
            # What was restored is captured, and comes back as before.
            run_module("containerd_checkpoint_stage", {"checkpoint": REF, "state": "absent"})
            reached = capture(node, run_module)
    remove(node, run_module)


@pytest.mark.every_containerd
@pytest.mark.usefixtures("clean")
def test_a_terminal_stays_open_and_what_it_shows_is_kept(node: Node, run_module: RunModule) -> None:
    """A shell that waits at its terminal waits on, what runs beside it writes there; captured and restored twice."""
    script = "/bin/counter & read x; echo gone > /var/gone"
    command = ["ctr", "-n", "k8s.io", "run", "--detach", "--tty", image.REFERENCE, NAME, "/bin/sh", "-c", script]
    output = lab_node.run(node, ["script", "--quiet", "--return", "--command", shlex.join(command), "/dev/null"])
    assert output.returncode == 0, output.stdout
    workload.await_count(node, NAME, 3)
    for again in range(2):
        log = f"/var/log/{NAME}.log" if again else ""
        reached = capture(node, run_module)
        done = restore(run_module, **({"stdout": log} if log else {}))
        goes_on(node, reached)
        assert (done["differences"], done["warnings"]) == ([], [])
        assert inside(node, "readlink /proc/1/fd/0; ls /var/gone || echo waits").split() == ["/dev/pts/0", "waits"]
        if not again:
            run_module("containerd_checkpoint_stage", {"checkpoint": REF, "state": "absent"})
    shown = node.inside(f"/var/log/{NAME}.log").read_text(encoding="ascii").split()
    assert shown and shown[-1].isdecimal() and int(shown[-1]) > reached
    remove(node, run_module)


@pytest.mark.usefixtures("clean")
def test_what_was_set_in_its_network_is_set_again(node: Node, run_module: RunModule) -> None:
    """CRIU brings an empty network namespace back, with the node's own values."""
    run(node)
    # Forwarding puts redirects back.
    values = {"net/ipv4/ip_forward": "1", "net/ipv4/conf/all/accept_redirects": "1", "net/core/somaxconn": "77"}
    script = "; ".join(f"echo {value} > /proc/sys/{name}" for name, value in values.items())
    lab_node.output(node, ["nsenter", "-t", pid(node), "-n", "sh", "-c", script])
    reached = capture(node, run_module)
    done = restore(run_module)
    assert (done["differences"], done["warnings"]) == ([], [])
    found = lab_node.output(node, ["nsenter", "-t", pid(node), "-n", "cat", *(f"/proc/sys/{name}" for name in values)])
    assert found.split() == list(values.values())
    goes_on(node, reached)
    remove(node, run_module)


#: What CRIU starts when all processes are there and none goes on: it takes away what can be taken from outside of them.
THIEF = """\
#!/usr/bin/python3
import ctypes, os, resource
pid = os.environ.get("CRTOOLS_INIT_PID", "")
os.dup2(os.open("/run/thief.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), 2)
if os.environ["CRTOOLS_SCRIPT_ACTION"] == "post-restore":
    resource.prlimit(int(pid), resource.RLIMIT_NOFILE, (17, 17))
    with open(f"/proc/{pid}/oom_score_adj", "w") as stream:
        stream.write("17")
    group = open(f"/proc/{pid}/cgroup").read().splitlines()
    place = next(line.split(":", 2)[2] for line in group if "pids" in line or line.startswith("0::/") and len(line) > 4)
    for root in ("/sys/fs/cgroup", "/sys/fs/cgroup/unified", "/sys/fs/cgroup/pids"):
        if os.path.exists(f"{root}{place}/pids.max"):
            open(f"{root}{place}/pids.max", "w").write("1717")
    libc = ctypes.CDLL(None, use_errno=True)
    def within(kind, command):
        child = os.fork()
        if not child:
            libc.setns(os.open(f"/proc/{pid}/ns/{kind}", os.O_RDONLY), 0)
            os.execvp("sh", ["sh", "-c", command])
        os.waitpid(child, 0)
    within("uts", "hostname thief")
    within("net", "ip address del 127.0.0.1/8 dev lo; ip link set lo mtu 1700; ip route add 192.0.2.0/24 dev lo")
    within("net", "echo 17 > /proc/sys/net/ipv4/ip_default_ttl")
    root = os.open(f"/proc/{pid}/root", os.O_RDONLY | os.O_DIRECTORY)
    with open(f"/proc/{pid}/ns/mnt") as namespace:
        done = [libc.setns(namespace.fileno(), 0x20000)]
    os.fchdir(root)
    done += [libc.umount2(b"data", 2), libc.mount(None, b"tmp", None, ctypes.c_ulong(32 | 4096), None)]
    os.write(2, repr([done, os.strerror(ctypes.get_errno())]).encode())
"""

TAKEN = (
    ("files", "The file /var/gone is gone: a file."),
    ("mounts", "The mount at /data is gone: tmpfs rw,nosuid,nodev."),
    ("mounts", "Flags of the mount at /tmp was rw,nosuid,nodev and is rw."),
    ("namespaces", "Hostname of the container was "),
    ("network", "Addresses of the network device lo was 127.0.0.1/8"),
    ("network", "Mtu of the network device lo was 65536 and is 1700."),
    ("network", "The route to 192.0.2.0/24 of the network is new: over lo."),
    ("sysctls", "Net.ipv4.ip_default_ttl of the container was 23 and is 17."),
    ("cgroup", "Pids.max of the container was max and is 1717."),
    ("limits", "Max open files of process 1 was "),
    ("capabilities", "CapBnd of process 1 was 000001ffffffffff and is "),
    ("no_new_privs", "No_new_privs of process 1 was 0 and is 1."),
    ("seccomp", "The seccomp mode of process 1 was 2 and is 0."),
    ("seccomp", "The number of seccomp filters of process 1 was 1 and is 0."),
    ("identity", "The further groups of process 1 was 17 and is "),
    ("descriptors", "Descriptor 7 of process 1 is gone: /etc/hosts (read)."),
    ("descriptors", "Descriptor 8 of process 1 is gone: pipe "),
    ("processes", "OOM score of process 1 was "),
)


def without(layer: bytes, name: str) -> bytes:
    """A layer that lacks that file."""
    made = io.BytesIO()
    with tarfile.open(fileobj=io.BytesIO(layer)) as found, tarfile.open(fileobj=made, mode="w") as kept:
        for one in found.getmembers():
            if one.name.strip("./") != name:
                kept.addfile(one, found.extractfile(one) if one.isreg() else None)
    return gzip.compress(made.getvalue(), 1)


@pytest.fixture
def thief(node: Node) -> Iterator[None]:
    """It is at work whenever CRIU restores."""
    config, program = node.inside("/etc/criu/runc.conf"), node.inside("/usr/local/bin/thief")
    config.parent.mkdir()
    program.write_text(THIEF, encoding="ascii")
    program.chmod(0o755)
    config.write_text("action-script=/usr/local/bin/thief\n", encoding="ascii")
    yield
    log = node.inside("/run/thief.log")
    print(log.read_text(encoding="utf-8", errors="replace"))
    for path in (log, config, program):
        path.unlink()
    config.parent.rmdir()


@pytest.mark.usefixtures("clean", "thief")
def test_what_is_taken_away_is_named(node: Node, run_module: RunModule) -> None:
    """From the restored task, from the layer, or, where nobody can take it from a process, added to what it had."""
    mounts = [f"--mount=type=tmpfs,src=tmpfs,dst={place},options=nosuid:nodev" for place in ("/data", "/tmp")]
    run(node, *mounts, script="touch /var/gone; exec /bin/counter")
    lab_node.output(node, ["nsenter", "-t", pid(node), "-n", "sh", "-c", "echo 23 > /proc/sys/net/ipv4/ip_default_ttl"])
    reached = capture(node, run_module)
    parts = make_images.take_apart(node, REF)
    state = json.loads(parts.index["annotations"]["io.gpuops.restore/state"])
    had = state["kinds"]
    had["capabilities"]["1"]["CapBnd"] = "000001ffffffffff"
    had["seccomp"]["1"].update(Seccomp="2", Seccomp_filters="1")
    had["no_new_privs"]["1"]["NoNewPrivs"] = "0"
    had["identity"]["1"]["Groups"] = "17"
    had["descriptors"]["1"].update({"7": "/etc/hosts (read)", "8": "pipe of descriptor 8 of process 1 (write)"})
    changed = parts.noted(**{"io.gpuops.restore/state": json.dumps(state)})
    changed = changed.having("layer", without(gzip.decompress(parts.content("layer")), "var/gone"))
    run_module("containerd_checkpoint_stage", {"checkpoint": REF, "state": "absent"})
    with make_images.imported(node, changed) as reference:
        run_module("containerd_checkpoint_stage", {"checkpoint": reference})
        done = restore(run_module, checkpoint=reference)
        goes_on(node, reached)
        for module in ("containerd_task", "containerd_container"):
            run_module(module, {"container_id": NAME, "state": "absent"})
        run_module("containerd_checkpoint_stage", {"checkpoint": reference, "state": "absent"})
    workload.ctr(node, "k8s.io", "images", "rm", "--sync", REF)
    told = [(one["kind"], one["message"]) for one in done["differences"]]
    print("\n".join(map(str, told)))
    for kind, begins in TAKEN:
        assert [one[1].startswith(begins) for one in told if one[0] == kind].count(True) == 1, begins
    assert len(told) == len(TAKEN)
