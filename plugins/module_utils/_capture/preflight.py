# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What has to be right before a capture stops anything: all problems at once, and what is captured."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass, field

from .._checkpoint import reader as checkpoint_reader
from .._containerd import daemon, images, runtimes, snapshots
from .._containerd.bundle import Edits
from .._containerd.client import Client
from .._containerd.containers import Container
from .._containerd.images import Image
from .._containerd.tasks import Task
from .._core.errors import ConflictError, InputError, NodeError, RestoreError, combined
from .._criu import known_limits
from .._gpu import devices, forks, peer_access, processes as gpu_processes, shared_gpus, state as gpu_state, xla
from .._host import cgroup, memory as host_memory
from .._image import unpack
from .._oci import depth, spec_namespaces
from . import (
    gpu,
    host_room,
    inet_sockets,
    layer,
    mounts,
    needs,
    nested_groups,
    own_network,
    resources,
    restorable,
    room,
    sessions,
    targets,
    unsupported,
    volumes,
)
from .gpu import Gpus
from .mounts import Taken
from .needs import Found
from .params import NODE, STOPPED, CaptureParams


@dataclass(frozen=True)
class Subject:
    """What is captured."""

    #: As it runs.
    container: Container
    task: Task
    #: The image that the container was made of; None where it is not on the node.
    base: Image | None
    gpus: Gpus
    #: What the processes hold in host memory; VRAM comes on top.
    memory_bytes: int
    #: What it has written to its own files.
    written_bytes: int = 0
    #: Of ``_oci.depth``.
    written_steps: int = 0
    #: What CRIU has to be told of, as it is before anything stops.
    found: Found = field(default_factory=Found)
    memory_volumes: tuple[volumes.Found, ...] = ()
    #: What was found of what the operator vouches for, as restorable.vouched.
    accepted: tuple[dict[str, str], ...] = ()
    #: Of which CRIU has to be told.
    taken: tuple[Taken, ...] = ()
    #: What the runtime has added to containerd's spec.
    edits: Edits = field(default_factory=Edits)
    #: The root file system, in which links of the spec's paths are followed.
    root: str = ""
    #: What it takes on the disks.
    size: room.Bytes = field(default_factory=lambda: room.Bytes(0, 0, 0))
    #: Files that can only be taken by a copy, since a layer takes their names for deletions.
    reserved: int = 0
    warnings: tuple[str, ...] = ()

    @property
    def estimated_bytes(self) -> int:
        """What a checkpoint would have about, before it is compressed."""
        volume = sum(one.used for one in self.memory_volumes)
        return self.memory_bytes + self.gpus.vram + self.found.nameless_bytes + volume + self.written_bytes


def examine(client: Client, params: CaptureParams, container: Container, task: Task) -> Subject:
    """Look at node and task, CUDA's part included; nothing is changed.

    Raises the RestoreError of the one problem, or one that names all of them.
    """
    access = params.access
    running = mounts.survey(client.namespace, container, task, access.proc)
    container = running.container
    problems: list[RestoreError] = []
    warnings: list[str] = []
    gpus = Gpus()
    base: Image | None = None
    written = reserved = steps = 0
    try:
        scope = gpu_processes.Scope(task_pid=task.pid, proc=access.proc, cgroup_root=access.cgroup_root)
        gpus = gpu.examine(client, params.cuda(), params.gpu, scope.processes())
        if params.gpu != devices.NONE:
            pids = [process.pid for process in scope.processes()]
            problems += shared_gpus.problems(params.container_id, gpus.info, pids, access.proc)
            problems += targets.problems(params.container_id, params.targets, gpus.info)
        problems += forks.problems(gpus.forks, params.cuda_forks, params.container_id, access.proc)
        if gpus.suspend:
            problems += peer_access.problems(params.container_id, gpus.info, access.proc)
            problems += xla.problems(params.container_id, gpus.info, access.proc)
            warnings += gpu_state.ensure(client, params.cuda(), check=True).warnings
    except RestoreError as error:
        problems.append(error)
    try:
        survey = layer.written(client, container)
        if survey is None:
            raise layer.snapshot_absent(container)
        written, reserved, steps = survey.size, survey.reserved, survey.steps
        uncopied = bool(reserved) and not layer.is_copied(client, container)
        unfit = (layer.too_deep(container, survey), layer.reserved(container, survey, uncopied))
        problems += [problem for problem in unfit if problem]
        base = base_image(client, container)
    except RestoreError as error:
        problems.append(error)
    tgids = cgroup.tgids_of(task.pid, access.proc, access.cgroup_root)
    memory = host_memory.own(tgids, access.proc)
    path = daemon.daemon_environment(client)["PATH"]
    program = runtimes.program(container.runtime, container.runtime_options)
    problems += _program_problems(path, needs.locks_by_iptables(container, params.criu), program)
    problems += _version_problems(container, tgids, path, access.proc)
    problems += unsupported.problems(container, task.pid, tgids, access.proc)
    problems += _resource_problems(container, tgids, access.proc)
    problems += running.problems
    warnings += running.warnings
    held: list[volumes.Found] = []
    try:
        held = volumes.find(container, task.pid, params.memory_volumes, access.proc, running.root)
        warnings += volumes.warnings(client, container, held)
    except RestoreError as error:
        problems.append(error)
    found = needs.look(container, task.pid, tgids, access.proc, running.root, volumes.devices(held))
    problems += needs.problems(container, found, params.criu)
    size = room.Bytes(memory + gpus.vram + found.nameless_bytes, sum(volume.used for volume in held), written)
    problems += room.problems(client, params, size)
    if params.volatile:
        takes = host_room.taken(params, gpus.vram, room.on_disk(client, params, size))
        problems += host_room.problems(params, takes, host_memory.available(access.proc))
    problems += restorable.problems(container, task.pid, params.criu.empty_namespaces, access.proc, running.root)
    problems, accepted = restorable.vouched(problems, params.accept)
    if problems:
        raise combined(problems)
    warnings += [restorable.warning(taken) for taken in accepted]
    if spec_namespaces.shares_node_pids(container.spec):
        warnings.append(
            f"{container.id} runs in the node's process namespace: a restore needs all of its process ids to be free, "
            "here or on another node."
        )
    lost = own_network.lost(container.spec, task.pid, access.proc)
    warnings += needs.warnings(found, params.criu)
    warnings += sessions.warnings(container.id, task.pid, tgids, access.proc)
    warnings += nested_groups.warnings(container.id, task.pid, tgids, access.proc)
    warnings += [own_network.warning(container.id, lost)] if lost else []
    warnings += depth.warnings(container.id, steps)
    if reserved:
        warnings.append(
            f"{container.id} has {reserved} files whose names begin with .wh.: a restore of this collection gives them "
            "back, while other tools give them names that begin otherwise."
        )
    if params.volatile and params.store == NODE and params.leave == STOPPED:
        warnings.append(
            f"{params.staging_dir} is in host memory: once {container.id} has ended, a reboot loses the only copy "
            "of its state. With store: image or both the image is written before the workload ends."
        )
    if base is None and container.image:
        warnings.append(
            f"The image {container.image} of {container.id} is not on this node: the checkpoint only names it, and "
            "whoever restores it has to have it."
        )
    return Subject(
        container=container,
        task=task,
        base=base,
        gpus=gpus,
        memory_bytes=memory,
        written_bytes=written,
        written_steps=steps,
        found=found,
        memory_volumes=tuple(held),
        taken=tuple(running.taken),
        edits=running.edits,
        root=running.root,
        size=size,
        reserved=reserved,
        accepted=tuple(accepted),
        warnings=tuple(warnings),
    )


def base_image(client: Client, container: Container) -> Image | None:
    """The image that the container really was made of; None where it names none, or that one is gone altogether.

    The name in its record may have been moved to another image since, and a checkpoint that names that one would
    bring the process back onto other files. What cannot lie is the snapshot that the container's own stands on. Raises
    ConflictError ``base_image_moved``.
    """
    if not container.image:
        return None
    named = images.get(client, container.image)
    own = snapshots.stat(client, container.snapshotter, container.snapshot_key)
    parent = own.parent if own else ""
    if named is None or not parent or _fits(client, named, parent) is not False:
        return named
    if spec_namespaces.has_user_namespace(container.spec):
        # From containerd 2.1 on a copy of the image with other owners has a name of its own, and stands on the image.
        copied = snapshots.stat(client, container.snapshotter, parent)
        if copied and copied.parent and _fits(client, named, copied.parent):
            return named
    for other in images.list_all(client):
        if _fits(client, other, parent) and not _is_checkpoint(client, other):
            return other
    raise ConflictError(
        "base_image_moved",
        f"The container {container.id} was made of {container.image}, but that name stands for another image now "
        f"({named.target.digest}), and none on this node has the container's root file system ({parent}).",
        "Pull or import the image that the container was made of, under any name, then run again.",
        details={"name": container.image, "found": named.target.digest, "parent": parent},
    )


def _program_problems(path: str, iptables: bool, program: str) -> list[NodeError]:
    problems = list(daemon.restore_problems(path, iptables, program))
    called = shutil.which(program, path=path)
    if called is not None and daemon.lacks_criu(called, path):
        problems.append(
            NodeError(
                "runtime_without_criu",
                f"{called}, which the container's runtime calls, was built without CRIU.",
                "Install a crun whose --version shows +CRIU, or start the container with runc.",
            )
        )
    if not any(problem.code == "criu_missing" for problem in problems):
        problems += _criu_problems(path)
    return problems


def _criu_problems(path: str) -> list[NodeError]:
    """CRIU's own look at the kernel, ``criu check``; a process that ends well means that a dump can work."""
    try:
        # A step knows no AnsibleModule whose run_command it could use.
        done = subprocess.run(  # pylint: disable=ansible-bad-function
            [daemon.find_program("criu", path).path, "check"],
            capture_output=True,
            text=True,
            errors="replace",
            timeout=60,
            check=False,
            env={"PATH": path},
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        why = str(error)
    else:
        if done.returncode == 0:
            return []
        lines = [line for line in (done.stderr + done.stdout).splitlines() if "Error" in line] or [done.stderr]
        why = lines[0].strip()[-300:]
    return [
        NodeError(
            "criu_unusable",
            f"CRIU on this node does not pass its own check: {why or 'it ended without a word'}.",
            "Run criu check on the node; a newer CRIU or kernel is needed.",
        )
    ]


def _version_problems(container: Container, pids: Sequence[int], path: str, proc: str) -> list[NodeError]:
    """What these versions of CRIU and the kernel are known not to do with what the processes have."""
    sockets = inet_sockets.held_by(pids, proc)
    if not sockets:
        return []
    kernel, criu = os.uname().release, daemon.find_program("criu", path).version
    versions = {known_limits.KERNEL: kernel, known_limits.CRIU: criu}
    return [
        NodeError(
            "sockets_not_dumped",
            f"The processes of {container.id} hold {len(sockets)} TCP or UDP sockets (first: {sockets[0]}), which CRIU "
            f"{criu} cannot dump on Linux {kernel}. {limit.cause}",
            limit.remedy,
            details={"sockets": [str(one) for one in sockets[:20]], "kernel": kernel, "criu": criu},
        )
        for limit in known_limits.applying(known_limits.DUMP, [known_limits.INET_SOCKETS], versions)
    ]


def _resource_problems(container: Container, pids: Sequence[int], proc: str) -> list[NodeError]:
    problems = []
    # A terminal is on the container's own /dev/pts.
    terminal = bool((container.spec.get("process") or {}).get("terminal"))
    devices = [] if terminal else resources.foreign_devices(pids, proc)
    if devices:
        problems.append(
            NodeError(
                "stdio_foreign",
                f"Processes of {container.id} have devices of the host for input or output, which are on no mount "
                f"of the container, so CRIU cannot dump them: {', '.join(devices[:3])}.",
                "Restore the container anew with this collection and without a binary:// logger: then these are pipes.",
                details={"devices": devices[:20]},
            )
        )
    return problems


def _fits(client: Client, image: Image, parent: str) -> bool | None:
    """Whether a snapshot stands on the image's layers; None where the image does not tell."""
    try:
        chain = unpack.rootfs(client, image.target, image.name).chain_id
    except InputError:
        return None
    # With an id mapping, containerd appends that to the chain id.
    return parent == chain or parent.startswith(chain + "-")


def _is_checkpoint(client: Client, image: Image) -> bool:
    """A checkpoint's index names its base image, too."""
    try:
        checkpoint_reader.load(client, image.name)
    except InputError:
        return False
    return True
