# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A containerd of the test's own, beside whatever the host runs, driven by ctr."""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import pathlib
import shutil
import signal
import subprocess
import tarfile
from collections.abc import Mapping, Sequence

from gpuops_lab import image as lab_image

from gpuops_gpu.host import TOP_LINKS, Mount
from gpuops_gpu.runner import Runner, StepError
from gpuops_gpu.settings import NAMESPACE

REFERENCE = "gpuops.test/gpu-workload:1"
# runc keeps its state here, by containerd's namespace.
RUNC_STATE = pathlib.Path("/run/containerd/runc", NAMESPACE)
CGROUPS = pathlib.Path("/sys/fs/cgroup")
CONFIG = """\
version = 2
root = "{base}/containerd"
state = "{run}/state"
disabled_plugins = ["io.containerd.grpc.v1.cri"]
[grpc]
  address = "{run}/containerd.sock"
[ttrpc]
  address = "{run}/containerd.sock.ttrpc"
"""


class Engine:
    """containerd's life, and the containers in it. All calls raise StepError."""

    def __init__(self, runner: Runner, base: pathlib.Path) -> None:
        self._runner = runner
        self._base = base
        self._run = pathlib.Path("/run/gpuops-gpu")
        self.runtime = self._run / "state"
        self._process: subprocess.Popen[bytes] | None = None
        #: For ctr run, of containers that are in no pod.
        self.network_options: list[str] = []
        self.snapshotter = ""
        self.address = self._run / "containerd.sock"
        self.log = base / "containerd.log"

    def start(self) -> None:
        # Of a run that was killed.
        shutil.rmtree(RUNC_STATE, ignore_errors=True)
        for directory in (self._run, self._base / "tmp"):
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        (self._base / "containerd.toml").write_text(CONFIG.format(base=self._base, run=self._run))
        self._begin()
        # An overlay cannot be made on an overlay; of an empty image copies do as well. containerd does not notice.
        kind = self._runner.run(["stat", "--file-system", "--format=%T", str(self._base)], 10).output
        self.snapshotter = "native" if "overlay" in kind else "overlayfs"
        self._runner.environment["CONTAINERD_SNAPSHOTTER"] = self.snapshotter
        self.network_options = self._choose_network()

    def restart(self) -> None:
        """containerd ends and begins anew; its shims, and what they run, do not notice."""
        if self._process is not None:
            self._process.terminate()
            self._process.wait(15)
        self._begin()

    def _begin(self) -> None:
        environment = {key: value for key, value in self._runner.environment.items() if key != "XDG_RUNTIME_DIR"}
        environment["TMPDIR"] = str(self._base / "tmp")
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [str(self._base / "bin/containerd"), "--config", str(self._base / "containerd.toml")],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                env=environment,
            )
        self._runner.await_true("containerd answers", 30, self._answers, 0.2)

    def _answers(self) -> bool:
        if self._process is not None and self._process.poll() is not None:
            raise StepError(f"containerd ended: {self.log.read_text(errors='replace')[-1500:]}")
        return self.address.exists() and self.ctr("version", check=False)[0] == 0

    def _choose_network(self) -> list[str]:
        """A network namespace of its own if CRIU can lock one here; it does so with the kernel's packet filter."""
        rules = "*filter\n:INPUT ACCEPT [0:0]\n-A INPUT -m mark ! --mark 0xc114 -j DROP\nCOMMIT\n"
        filters = [f"printf '{rules}' | {program}" for program in ("iptables-restore", "ip6tables-restore")]
        script = " && ".join([*filters, "ip route save >/dev/null"])
        done = self._runner.run(["unshare", "--net", "sh", "-c", script], 20, check=False)
        return [] if done.status == 0 else ["--net-host"]

    @property
    def network(self) -> str:
        return "host" if self.network_options else "own"

    def stop(self) -> None:
        """End containerd, and shims that a failed test has left; they are known by this containerd's address."""
        if self._process is not None and self._process.poll() is None:
            for identifier in self.containers():
                self.delete(identifier)
            self._process.terminate()
            try:
                self._process.wait(15)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait(5)
        for shim in self._shims():
            # A shim that is killed leaves its container alive.
            children = pathlib.Path(f"/proc/{shim}/task/{shim}/children").read_text().split()
            for pid in (shim, *map(int, children)):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)

    def remove(self) -> None:
        """Every file that the test has made, and its cgroups."""
        for directory in (self._run, RUNC_STATE, self._base):
            with open("/proc/self/mountinfo", encoding="utf-8") as stream:
                points = [line.split()[4] for line in stream]
            # A mount that was left is taken away first, or what lies behind it would be removed.
            for point in sorted(points, key=len, reverse=True):
                if point.startswith(f"{directory}/"):
                    self._runner.run(["umount", point], 10)
            shutil.rmtree(directory, ignore_errors=True)
        for group in (*CGROUPS.glob(NAMESPACE), *CGROUPS.glob(f"*/{NAMESPACE}")):
            for path in (*sorted(group.glob("**/"), reverse=True), group):
                with contextlib.suppress(OSError):
                    path.rmdir()

    def _shims(self) -> list[int]:
        found = []
        for entry in os.listdir("/proc"):
            if entry.isdigit():
                try:
                    arguments = pathlib.Path("/proc", entry, "cmdline").read_bytes().split(b"\0")
                except OSError:
                    continue  # it ended meanwhile
                if b"containerd-shim" in arguments[0] and os.fsencode(self.address) in arguments:
                    found.append(int(entry))
        return found

    def ctr(self, *arguments: str, seconds: float = 30, check: bool = True) -> tuple[int, str, float]:
        """(status, output, seconds) of ctr in the test's namespace."""
        command = [str(self._base / "bin/ctr"), "--address", str(self.address), "--namespace", NAMESPACE]
        done = self._runner.run([*command, *arguments], seconds, check=check)
        return done.status, done.output, done.seconds

    def make_image(self, mounts: Sequence[Mount], links: Mapping[str, str]) -> None:
        """An image that holds nothing but the places of the mounts, the links to /usr and ``links``."""
        layer = io.BytesIO()
        with tarfile.open(fileobj=layer, mode="w", format=tarfile.USTAR_FORMAT) as tar:
            directories = {"etc", "tmp", "proc", "sys", "dev", "run", "root"}
            for mount in mounts:
                parts = pathlib.PurePath(mount.target.strip("/"))
                directories |= {str(part) for part in (parts, *parts.parents) if str(part) != "."}
            for name in sorted(directories):
                _add(tar, name, tarfile.DIRTYPE, 0o1777 if name == "tmp" else 0o755)
            for name in TOP_LINKS:
                if os.path.islink(f"/{name}"):
                    _add(tar, name, tarfile.SYMTYPE, 0o777, link=os.readlink(f"/{name}").lstrip("/"))
            for name, target in links.items():
                _add(tar, name.lstrip("/"), tarfile.SYMTYPE, 0o777, link=target)
            _add(tar, "etc/passwd", tarfile.REGTYPE, 0o644, b"root:x:0:0:root:/root:/bin/sh\n")
            _add(tar, "etc/group", tarfile.REGTYPE, 0o644, b"root:x:0:\n")
            # Programs of several processes call themselves "localhost".
            _add(tar, "etc/hosts", tarfile.REGTYPE, 0o644, b"127.0.0.1 localhost\n")
            _add(tar, "etc/nsswitch.conf", tarfile.REGTYPE, 0o644, b"hosts: files\n")
        archive = self._base / "image.tar"
        archive.write_bytes(lab_image.image_archive(layer.getvalue(), REFERENCE, lab_image.architecture()))
        self.ctr("images", "import", str(archive))

    def run(
        self,
        identifier: str,
        command: Sequence[str],
        *,
        mounts: Sequence[Mount],
        devices: Sequence[str],
        environment: Mapping[str, str],
        log: pathlib.Path,
        options: Sequence[str],
    ) -> None:
        """Start a container; its output goes to the log. ``options``: more of them for ctr run."""
        arguments = ["run", "--detach", "--log-uri", f"file://{log}", *options]
        for mount in mounts:
            # "bind", not "rbind": CRIU refuses mounts below it that the spec does not name.
            mode = "rw" if mount.writable else "ro"
            arguments += ["--mount", f"type=bind,src={mount.source},dst={mount.target},options=bind:{mode}"]
        for device in devices:
            arguments += ["--device", device]
        for name, value in environment.items():
            arguments += ["--env", f"{name}={value}"]
        self.ctr(*arguments, REFERENCE, identifier, *command)

    def checkpoint(self, identifier: str, reference: str) -> float:
        """Capture it with containerd's own tool; returns the seconds."""
        return self.ctr("containers", "checkpoint", "--task", "--rw", "--image", identifier, reference, seconds=150)[2]

    def digest(self, reference: str) -> str:
        """Of an image; empty where there is none."""
        rows = [line.split() for line in self.ctr("images", "ls")[1].splitlines()]
        return next((row[2] for row in rows if row and row[0] == reference), "")

    def delete(self, identifier: str) -> None:
        """End and remove a container; what is not there is fine."""
        if identifier in self.ctr("tasks", "ls", "-q")[1].split():
            self.ctr("tasks", "kill", "--signal", "SIGKILL", "--all", identifier, check=False)
            self.ctr("tasks", "rm", "--force", identifier, seconds=40, check=False)
        if identifier in self.ctr("containers", "ls", "-q")[1].split():
            self.ctr("containers", "rm", identifier)

    def remove_image(self, reference: str) -> None:
        if reference in self.ctr("images", "ls", "-q")[1].split():
            self.ctr("images", "rm", "--sync", reference, seconds=60)

    def containers(self) -> list[str]:
        return sorted(self.ctr("containers", "ls", "-q")[1].split())

    def pids(self, identifier: str) -> list[int]:
        """The host's pids in the container, in no order; empty without a task."""
        status, output, _ = self.ctr("tasks", "ps", identifier, check=False)
        words = [line.split() for line in output.splitlines()[1:]]
        return [int(row[0]) for row in words if row and row[0].isdigit()] if status == 0 else []

    def listing(self) -> dict[str, list[str]]:
        """What a restore could leave behind in containerd."""
        return {
            "containers": self.containers(),
            "tasks": sorted(self.ctr("tasks", "ls", "-q")[1].split()),
            "snapshots": sorted(line.split()[0] for line in self.ctr("snapshots", "ls")[1].splitlines()[1:]),
            "images": sorted(self.ctr("images", "ls", "-q")[1].split()),
            "leases": sorted(self.ctr("leases", "ls", "-q")[1].split()),
            "shims": [str(pid) for pid in self._shims()],
        }


def _add(tar: tarfile.TarFile, name: str, kind: bytes, mode: int, content: bytes = b"", link: str = "") -> None:
    entry = tarfile.TarInfo(name)
    entry.type, entry.mode, entry.linkname, entry.size = kind, mode, link, len(content)
    tar.addfile(entry, io.BytesIO(content))


def tree_digest(directory: pathlib.Path) -> str:
    """One digest for all files below; names the collection that was tested."""
    found = hashlib.sha256()
    for path in sorted(directory.rglob("*")):
        if path.is_file():
            found.update(str(path.relative_to(directory)).encode() + b"\0" + path.read_bytes())
    return found.hexdigest()
