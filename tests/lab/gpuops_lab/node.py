# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The life of a node: made, started, entered, ended, removed without a trace."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import pathlib
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence

from gpuops_lab import cgroups, config, inventory, root
from gpuops_lab.boot import INIT
from gpuops_lab.config import CONTAINERD_SOCKET, CONTROL_SOCKET, IDENTITY, LabError, Node

LAB = pathlib.Path(__file__).resolve().parent.parent / "lab"
START_SECONDS = 60.0
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

CONTAINERD_CONFIG = """\
version = 2

[plugins."io.containerd.grpc.v1.cri"]
  # The machine may lack CAP_SYS_RESOURCE.
  restrict_oom_score_adj = true

  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "overlayfs"
    default_runtime_name = "runc"

    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
      runtime_type = "io.containerd.runc.v2"
"""

SSHD_CONFIG = """\
HostKey /etc/ssh/lab_host_ed25519
PermitRootLogin prohibit-password
PasswordAuthentication no
KbdInteractiveAuthentication no
UsePAM no
UseDNS no
PrintMotd no
MaxSessions 100
Subsystem sftp internal-sftp
"""


@contextlib.contextmanager
def lab_lock() -> Iterator[None]:
    """One 'up' or 'down' at a time changes the shared directories; beside them, for 'down' removes those."""
    path = config.runtime_dir().with_name(f".{config.runtime_dir().name}.lock")
    while True:
        handle = os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
            # Whoever leaves no lab removes the file: who waited until then holds a lock on nothing.
            if path.exists() and os.path.samestat(os.fstat(handle), path.stat()):
                try:
                    yield
                finally:
                    if not config.runtime_dir().exists():
                        path.unlink()
                return
        finally:
            os.close(handle)


def require_root() -> None:
    if os.geteuid() != 0:
        raise LabError("the lab makes namespaces, mounts and cgroups: run it as root")


def up(
    names: Sequence[str], version: str, extras: Sequence[str] = (), criu: str = "", layers: Sequence[str] = ()
) -> list[Node]:
    """Make and start nodes of that containerd generation, with what ``root.EXTRAS`` has under these names.

    ``criu``: its version; without one that of the environment's GPUOPS_CRIU, or the usual one. ``layers``: directories
    whose files the nodes have, too. A failure removes those that were begun.
    """
    require_root()
    for name in names:
        config.check_name(name)
    lower = (*layers, *(str(root.extra_directory(extra)) for extra in extras), *root.lower_directories(version, criu))
    nodes: list[Node] = []
    try:
        with lab_lock():
            known = set(config.all_names())
            # A lab with other directories on this machine has the same cgroups.
            taken = [name for name in names if name in known or cgroups.processes(name)]
            if taken:
                raise LabError(
                    f"nodes exist already: {', '.join(taken)}; choose another --name or run 'lab down' first"
                )
            config.nodes_dir().mkdir(parents=True, exist_ok=True)
            inventory.make_keys()
            for name in names:
                node = Node(name, version, secrets.token_hex(16), lower)
                nodes.append(node)
                _prepare(node)
        boots = [_spawn(node) for node in nodes]
        for node, boot in zip(nodes, boots):
            _await_boot(node, boot)
        for node in nodes:
            control(node, "start")
        for node in nodes:
            await_containerd(node)
    except BaseException:
        for node in nodes:
            down(node.name)
        raise
    return nodes


def _prepare(node: Node) -> None:
    """Everything of a node that is files, and its control groups."""
    for directory in (node.directory / "cp", node.data / "work", node.data / "root"):
        directory.mkdir(parents=True, mode=0o700)
    node.save()
    upper = node.data / "upper"
    upper.mkdir(mode=0o755)
    files: dict[str, tuple[str, int]] = {
        IDENTITY: (node.identity + "\n", 0o644),
        "/etc/hostname": (node.name + "\n", 0o644),
        "/etc/hosts": (f"127.0.0.1 localhost {node.name}\n", 0o644),
        "/etc/containerd/config.toml": (CONTAINERD_CONFIG, 0o644),
        "/etc/ssh/lab_sshd_config": (SSHD_CONFIG, 0o644),
        "/etc/ssh/lab_host_ed25519": ((config.ssh_dir() / "host_ed25519").read_text(), 0o600),
        "/root/.ssh/authorized_keys": ((config.ssh_dir() / "id_ed25519.pub").read_text(), 0o600),
        INIT: (pathlib.Path(__file__).with_name("init.py").read_text(), 0o644),
    }
    for name, (text, mode) in files.items():
        path = upper / name.strip("/")
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o755)
        path.touch(mode=0o600)
        path.write_text(text)
        path.chmod(mode)
    (upper / "root").chmod(0o700)
    (upper / "root/.ssh").chmod(0o700)
    cgroups.create(node.name)


def _spawn(node: Node) -> subprocess.Popen[bytes]:
    with open(node.directory / "boot.log", "wb") as log:
        return subprocess.Popen(
            [sys.executable, str(LAB), "_boot", node.name],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
            cwd="/",
        )


def _await_boot(node: Node, boot: subprocess.Popen[bytes]) -> None:
    boot.wait(START_SECONDS)
    deadline = time.monotonic() + START_SECONDS
    while not _answers(node):
        recorded = node.directory / "pid"
        gone = not recorded.exists() or not pathlib.Path("/proc", recorded.read_text().strip() or "none").exists()
        if boot.returncode or gone or time.monotonic() > deadline:
            log = (node.directory / "boot.log").read_text(errors="replace")
            raise LabError(f"node {node.name} did not boot:\n{log[-2000:]}")
        time.sleep(0.02)
    _write_scripts(node)


def _answers(node: Node) -> bool:
    if not node.pid:
        return False
    try:
        control(node, "status")
    except (OSError, LabError):
        return False
    return True


def _write_scripts(node: Node) -> None:
    """The ways in, as shell: a Python would cost more than the ssh connection itself."""
    pid = node.pid
    groups = [entry.procs(node.name) for entry in cgroups.host_hierarchies()]
    enter = f"""#!/bin/sh
# Runs a command in node {node.name}.
read -r id 2>/dev/null </proc/{pid}/root{IDENTITY} && [ "$id" = {node.identity} ] || {{
    echo "lab: node {node.name} does not run" >&2
    exit 255
}}
for group in {" ".join(map(str, groups))}; do
    echo 0 >"$group"
done
exec env -i PATH={PATH} HOME=/root LANG=C.UTF-8 TERM="${{TERM:-dumb}}" \\
    nsenter --target {pid} --mount --uts --ipc --net --pid --cgroup -- "$@"
"""
    config.write_atomically(node.directory / "enter", enter, 0o755)
    ssh = f"""#!/bin/sh
exec {node.directory}/enter /usr/sbin/sshd -i -f /etc/ssh/lab_sshd_config
"""
    config.write_atomically(node.directory / "ssh", ssh, 0o755)


def control(node: Node, action: str) -> int:
    """Ask the node's init for start, stop, kill or status of containerd; returns its pid there, or 0."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(START_SECONDS)
        connection.connect(str(node.inside(CONTROL_SOCKET)))
        connection.sendall(json.dumps({"action": action}).encode() + b"\n")
        answer = json.loads(connection.makefile().readline() or "{}")
    if answer.get("error", "no answer"):
        raise LabError(f"node {node.name}: {answer.get('error', 'no answer')}")
    return int(answer["pid"])


def await_containerd(node: Node) -> None:
    """Wait until containerd answers calls; raises LabError with the end of its log when it does not."""
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and control(node, "status"):
        if node.inside(CONTAINERD_SOCKET).exists() and run(node, ["ctr", "version"]).returncode == 0:
            return
        time.sleep(0.05)
    log = node.inside("/var/log/containerd.log").read_text(errors="replace")
    raise LabError(f"containerd of node {node.name} does not answer; the end of its log:\n{log[-2000:]}")


def restart(node: Node) -> None:
    control(node, "stop")
    control(node, "start")
    await_containerd(node)


def off(node: Node) -> None:
    """As by a loss of power: nobody answers any more; :func:`reboot` starts it again."""
    require_root()
    with lab_lock():
        _end_connections(node.name)
        _end_processes(node.name)


def reboot(node: Node) -> None:
    """As after a loss of power: processes, mounts and what lies in memory are gone, the disk is as it was."""
    off(node)
    with lab_lock():
        cgroups.remove(node.name)
        cgroups.create(node.name)
        _await_boot(node, _spawn(node))
    control(node, "start")
    await_containerd(node)


def run(node: Node, command: Sequence[str]) -> subprocess.CompletedProcess[str]:
    """Run a command in the node; the result carries its status and output."""
    node.inside("/")
    return subprocess.run(
        [str(node.directory / "enter"), *command],
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        check=False,
    )


def output(node: Node, command: Sequence[str]) -> str:
    """The output of a command in the node; raises LabError when it fails."""
    result = run(node, command)
    if result.returncode:
        reason = f"ended with status {result.returncode}: {result.stderr.strip()[-2000:]}"
        raise LabError(f"node {node.name}: {' '.join(command)} {reason}")
    return result.stdout


def down(name: str) -> None:
    """Remove whatever there is of a node, however far it came; nothing there is fine."""
    require_root()
    config.check_name(name)
    with lab_lock():
        _end_connections(name)
        _end_processes(name)
        cgroups.remove(name)
        for directory in (config.data_dir() / name, config.node_dir(name)):
            _remove_tree(directory)
        if not config.all_names():
            _remove_tree(config.runtime_dir())
            with contextlib.suppress(OSError):
                config.data_dir().rmdir()


def _end_connections(name: str) -> None:
    """ssh masters that Ansible keeps open are told to go, each by its own socket."""
    directory = config.node_dir(name) / "cp"
    for path in sorted(directory.iterdir()) if directory.is_dir() else []:
        if path.is_socket():
            command = ["ssh", "-F", "none", "-o", f"ControlPath={path}", "-O", "exit", name]
            subprocess.run(command, capture_output=True, check=False, timeout=10)


def _end_processes(name: str) -> None:
    """End the node's init, with which the kernel ends its pid namespace, then stragglers in its cgroups.

    The groups are the record: only the lab puts processes there, and they outlive a lab that died.
    """
    own = os.readlink("/proc/self/ns/pid")
    deadline = time.monotonic() + 20
    while pids := cgroups.processes(name) - {os.getpid()}:
        inits = {pid for pid in pids if _is_init(pid, own)}
        for pid in inits or pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        # After the signal, so that a paused task does nothing more.
        cgroups.thaw(name)
        if time.monotonic() > deadline:
            raise LabError(f"processes of node {name} do not end: {sorted(pids)}")
        time.sleep(0.02)


def _is_init(pid: int, own_namespace: str) -> bool:
    try:
        if os.readlink(f"/proc/{pid}/ns/pid") == own_namespace:
            return False
        for line in pathlib.Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("NSpid:"):
                # "host's, ..., own": process 1 one level below the host's namespace
                return len(line.split()) == 3 and line.split()[2] == "1"
    except OSError:
        return False
    return False


def _remove_tree(directory: pathlib.Path) -> None:
    if not directory.exists():
        return
    mounts = pathlib.Path("/proc/self/mountinfo").read_text().splitlines()
    below = [fields[4] for fields in map(str.split, mounts) if (fields[4] + "/").startswith(f"{directory}/")]
    if below:
        raise LabError(f"{directory} holds mounts of the host and is not removed: {', '.join(below)}")
    shutil.rmtree(directory)
