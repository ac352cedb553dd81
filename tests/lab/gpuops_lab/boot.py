# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A node's first steps: new namespaces, its own file system, then the node's init takes over."""

from __future__ import annotations

import ctypes
import os
import pathlib
import socket
import stat
import subprocess

from gpuops_lab import cgroups
from gpuops_lab.config import STATE_ROOT, LabError, Node

# linux/sched.h and sys/mount.h
NEW_NAMESPACES = 0x00020000 | 0x02000000 | 0x04000000 | 0x08000000 | 0x20000000 | 0x40000000
MS_NOSUID, MS_NODEV, MS_NOEXEC = 2, 4, 8
MS_BIND, MS_REC, MS_PRIVATE, MS_SHARED = 4096, 16384, 1 << 18, 1 << 20
MNT_DETACH = 2
DEVICES = {"null": (1, 3), "zero": (1, 5), "full": (1, 7), "random": (1, 8), "urandom": (1, 9), "tty": (5, 0)}
DEVICE_LINKS = {
    "fd": "/proc/self/fd",
    "stdin": "fd/0",
    "stdout": "fd/1",
    "stderr": "fd/2",
    "ptmx": "pts/ptmx",
}
# Plain directories of the host's file system: containerd's overlayfs cannot work on top of an overlay.
VOLUMES = {"/var/lib/containerd": 0o711, STATE_ROOT: 0o700, "/tmp": 0o1777}
INIT = "/usr/lib/gpuops-lab/init.py"


def boot(node: Node) -> None:
    """Start the node's init and record the host's pid of it; the caller is a process without threads."""
    cgroups.enter(node.name)
    libc = ctypes.CDLL(None, use_errno=True)
    entries = cgroups.host_hierarchies()
    _check(libc.unshare(NEW_NAMESPACES), "unshare")
    release, wait = socket.socketpair()
    pid = os.fork()
    if pid:
        wait.close()
        (node.directory / "pid").write_text(f"{pid}\n")
        release.sendall(b"1")
        return
    release.close()
    # The pid is on record before anything else happens.
    if wait.recv(1):
        _become_node(libc, node, entries)


def _become_node(libc: ctypes.CDLL, node: Node, entries: list[cgroups.Hierarchy]) -> None:
    cgroups.settle(node.name, entries)
    socket.sethostname(node.name)
    _mount(libc, "none", "/", "", MS_REC | MS_PRIVATE)
    root = node.data / "root"
    layers = f"lowerdir={':'.join(node.lower)},upperdir={node.data}/upper,workdir={node.data}/work"
    _mount(libc, "overlay", str(root), "overlay", 0, layers)
    for path, mode in VOLUMES.items():
        source = node.data / "volumes" / path.strip("/").replace("/", "-")
        # After a reboot it is there, with what was in it.
        source.mkdir(parents=True, exist_ok=True)
        source.chmod(mode)
        target = root / path.strip("/")
        target.mkdir(parents=True, exist_ok=True)
        _mount(libc, str(source), str(target), "", MS_BIND)
    _mount(libc, "proc", f"{root}/proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC)
    _mount(libc, "sysfs", f"{root}/sys", "sysfs", MS_NOSUID | MS_NODEV | MS_NOEXEC)
    _mount(libc, "tmpfs", f"{root}/run", "tmpfs", MS_NOSUID | MS_NODEV, "mode=755")
    _devices(libc, root)
    _cgroup_mounts(libc, root, entries)
    for name in ("lock", "sshd", "gpuops-lab"):
        (root / "run" / name).mkdir(mode=0o755)
    old = root / "mnt"
    _pivot(libc, root, old)
    # As on an ordinary host, so that mounts propagate as they would there.
    _mount(libc, "none", "/", "", MS_REC | MS_SHARED)
    subprocess.run(["/usr/sbin/ip", "link", "set", "lo", "up"], check=True)
    environment = {
        "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "HOME": "/root",
        "LANG": "C.UTF-8",
    }
    os.execve("/usr/bin/python3", ["python3", "-I", INIT], environment)


def _devices(libc: ctypes.CDLL, root: pathlib.Path) -> None:
    dev = root / "dev"
    _mount(libc, "tmpfs", str(dev), "tmpfs", MS_NOSUID, "mode=755")
    mask = os.umask(0)
    for name, (major, minor) in DEVICES.items():
        os.mknod(dev / name, 0o666 | stat.S_IFCHR, os.makedev(major, minor))
    os.umask(mask)
    for name, target in DEVICE_LINKS.items():
        (dev / name).symlink_to(target)
    for name in ("pts", "shm", "mqueue"):
        (dev / name).mkdir()
    _mount(
        libc,
        "devpts",
        f"{dev}/pts",
        "devpts",
        MS_NOSUID | MS_NOEXEC,
        "newinstance,ptmxmode=0666,mode=620,gid=5",
    )
    _mount(libc, "tmpfs", f"{dev}/shm", "tmpfs", MS_NOSUID | MS_NODEV, "mode=1777")
    _mount(libc, "mqueue", f"{dev}/mqueue", "mqueue", MS_NOSUID | MS_NODEV | MS_NOEXEC)


def _cgroup_mounts(libc: ctypes.CDLL, root: pathlib.Path, entries: list[cgroups.Hierarchy]) -> None:
    """The host's layout, seen from within the node's cgroup namespace."""
    flags = MS_NOSUID | MS_NODEV | MS_NOEXEC
    base = root / "sys/fs/cgroup"
    if any(not entry.unified for entry in entries):
        _mount(libc, "tmpfs", str(base), "tmpfs", flags, "mode=755")
    for entry in entries:
        target = root / entry.mount.strip("/")
        target.mkdir(parents=True, exist_ok=True)
        if entry.unified:
            _mount(libc, "cgroup2", str(target), "cgroup2", flags)
            continue
        _mount(libc, "cgroup", str(target), "cgroup", flags, entry.options)
        controllers = entry.options.split(",")
        if len(controllers) > 1 and controllers[0] != "none":
            for controller in controllers:
                link = base / controller
                if not link.exists():
                    link.symlink_to(target.name)


def _pivot(libc: ctypes.CDLL, root: pathlib.Path, old: pathlib.Path) -> None:
    os.chdir(root)
    subprocess.run(["pivot_root", str(root), str(old)], check=True)
    os.chdir("/")
    if libc.umount2(b"/mnt", MNT_DETACH):
        raise LabError(f"the host's file systems cannot be detached: {os.strerror(ctypes.get_errno())}")


def _mount(libc: ctypes.CDLL, source: str, target: str, kind: str, flags: int, data: str = "") -> None:
    result = libc.mount(source.encode(), target.encode(), kind.encode(), ctypes.c_ulong(flags), data.encode())
    _check(result, f"mount of {kind or source} at {target}")


def _check(result: int, what: str) -> None:
    if result:
        raise LabError(f"{what} failed: {os.strerror(ctypes.get_errno())}; the lab needs root with CAP_SYS_ADMIN")
