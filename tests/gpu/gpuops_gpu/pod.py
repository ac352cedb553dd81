# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A container as a GPU pod has it: the pod's network by path, the sandbox's /dev/shm, a runtime that adds the driver.

There is no kubelet and no NVIDIA container toolkit here: the runtime is a stand-in (:mod:`gpuops_gpu.cdi_runtime`), its
CDI spec lists the driver's real files, as ``nvidia-ctk cdi generate`` does, each by itself.
"""

from __future__ import annotations

import dataclasses
import json
import os
import pathlib
import re
import shutil

from gpuops_gpu import cdi_runtime
from gpuops_gpu.host import DRIVER_IN_CONTAINER, Mount
from gpuops_gpu.runner import Runner, StepError

#: A library or data file of the driver bears its version in its name.
VERSIONED = re.compile(r"(?P<name>.+\.so)\.\d+(\.\d+)+$")
SHM = "/dev/shm"


@dataclasses.dataclass(frozen=True)
class Driver:
    """What a CDI spec lists of this host's driver. ``links``: names that the loader looks for, and their files."""

    files: tuple[str, ...] = ()
    devices: tuple[str, ...] = ()
    links: dict[str, str] = dataclasses.field(default_factory=dict)


def driver(folder: str, devices: list[str]) -> Driver:
    """The versioned files of the driver's folder; a link without the version is what ldconfig would make."""
    files = sorted(entry.path for entry in os.scandir(folder) if entry.is_file(follow_symlinks=False))
    named = {path: found for path in files if (found := VERSIONED.match(os.path.basename(path)))}
    links = {f"{found['name']}.1": os.path.basename(path) for path, found in named.items()}
    return Driver(tuple(named), tuple(devices), links)


class Pod:
    """The sandbox of one container, and the runtime. A second one is made after a capture, as another node has it."""

    def __init__(self, runner: Runner, base: pathlib.Path, name: str, number: int, found: Driver) -> None:
        self._runner = runner
        self._driver = found
        self._runtime = base / "runtime"
        self._netns = f"gpuops-{name}-{number}"
        self._sandbox = pathlib.Path("/run/gpuops-gpu/sandboxes", f"{name}-{number}")
        self._name = name

    @property
    def network(self) -> str:
        return f"/run/netns/{self._netns}"

    def make(self) -> None:
        self._sandbox.mkdir(parents=True)
        shm = ["mount", "-t", "tmpfs", "-o", "nosuid,nodev,noexec,mode=1777,size=2g", "shm", str(self._sandbox)]
        self._runner.run(shm, 10)
        self._runner.run(["ip", "netns", "add", self._netns], 10)
        self._runner.run(["ip", "-n", self._netns, "link", "set", "lo", "up"], 10)
        self._runtime.mkdir(exist_ok=True)
        program = pathlib.Path(shutil.copyfile(cdi_runtime.__file__, self._runtime / "cdi-runtime"))
        program.chmod(0o755)
        options = ["ro", "nosuid", "nodev", "rbind", "rprivate"]
        mounts = [
            {"hostPath": path, "containerPath": f"{DRIVER_IN_CONTAINER}/{os.path.basename(path)}", "options": options}
            for path in self._driver.files
        ]
        nodes = [{"path": path} for path in self._driver.devices]
        edits = {"mounts": mounts, "deviceNodes": nodes, "env": ["NVIDIA_VISIBLE_DEVICES=void"]}
        spec = {"cdiVersion": "0.6.0", "kind": "nvidia.com/gpu", "devices": [], "containerEdits": edits}
        (self._runtime / "cdi.json").write_text(json.dumps(spec, indent=1))

    def options(self) -> list[str]:
        """For ctr run."""
        found = ["--runc-binary", str(self._runtime / "cdi-runtime"), "--with-ns", f"network:{self.network}"]
        labels = {"pod.name": self._name, "pod.namespace": "default", "container.name": "main"}
        for name, value in labels.items():
            found += ["--label", f"io.kubernetes.{name}={value}"]
        notes = {"container-type": "container", "sandbox-id": self._sandbox.name, "container-name": "main"}
        for name, value in notes.items():
            found += ["--annotation", f"io.kubernetes.cri.{name}={value}"]
        return found

    def mount(self) -> Mount:
        return Mount(str(self._sandbox), SHM, writable=True)

    def remove(self) -> None:
        """What is not there is fine; raises StepError when something stays."""
        if self._sandbox.exists():
            self._runner.run(["umount", str(self._sandbox)], 10, check=False)
            try:
                self._sandbox.rmdir()
            except OSError as error:
                raise StepError(f"{self._sandbox} is left: {error}") from error
        if os.path.exists(self.network):
            self._runner.run(["ip", "netns", "delete", self._netns], 10)
