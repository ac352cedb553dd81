# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What is wanted of a capture, and what came of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from .._checkpoint import volumes
from .._containerd.client import Client
from .._core import labels, state_dir
from .._gpu import devices, driver, forks, state as gpu_state
from .._gpu.access import GpuAccess
from .._host import huge_pages as host_huge_pages, mountinfo
from .._oci.facts import Facts
from .._probe import hook as probe_hook
from .._probe.hook import Hook
from . import mark, rates
from .targets import Target

#: What becomes of the workload when the checkpoint is there.
RUNNING, PAUSED, STOPPED = "running", "paused", "stopped"
#: Where the checkpoint is kept: staged on the node alone, as an image in containerd, or as both.
NODE, IMAGE, BOTH = "node", "image", "both"
#: An option of CRIU: where it is needed, always, never.
SWITCH = AUTO, ON, OFF = "auto", "true", "false"


@dataclass(frozen=True)
class DumpOptions:
    """What CRIU may take along in a dump, beyond what it does by itself."""

    #: AUTO, ON or OFF, as those that follow: TCP connections, which AUTO takes that do not lead out of the container.
    tcp_established: str = AUTO
    file_locks: str = AUTO
    #: Datagram sockets that are connected to one outside of the container.
    ext_unix_sk: str = AUTO
    #: To leave out TCP connections that nobody has accepted yet.
    skip_in_flight: str = AUTO
    #: Deleted files with another name.
    link_remap: str = AUTO
    #: Deleted files without a name that are larger than CRIU takes by itself.
    ghost_limit: str = AUTO
    #: The largest of them, in bytes.
    ghost_limit_max: int = 4 << 30
    #: A terminal.
    shell_job: bool = False
    #: Kinds of namespaces that are captured without their content.
    empty_namespaces: tuple[str, ...] = ()
    #: Further lines of CRIU's configuration.
    extra: tuple[str, ...] = ()


@dataclass(frozen=True)
class CaptureParams:
    """The checkpoint that is wanted. Times in seconds."""

    container_id: str
    #: The checkpoint image's.
    name: str
    leave: str = RUNNING
    store: str = IMAGE
    gpu: str = devices.AUTO
    #: What becomes of what forks of CUDA processes inherited: forks.DETACH or forks.REFUSE.
    cuda_forks: str = forks.DETACH
    #: What the operator vouches for: codes of restorable.ACCEPTABLE.
    accept: tuple[str, ...] = ()
    #: The nodes that the checkpoint is meant for, as far as they are known.
    targets: tuple[Target, ...] = ()
    criu: DumpOptions = field(default_factory=DumpOptions)
    #: Destinations, or AUTO or NONE of _checkpoint.volumes alone.
    memory_volumes: tuple[str, ...] = (volumes.AUTO,)
    #: What the workload is told before it stands still, and when it goes on.
    before_capture: Hook | None = None
    after_capture: Hook | None = None
    staging_dir: str = state_dir.STATE_ROOT
    #: A reboot loses what lies in ``staging_dir``.
    volatile: bool = False
    keep_staged: bool = False
    #: None: one of its own, which expires after ``lease_seconds`` should this run be killed.
    lease: str | None = None
    #: 0: as long as the size of the checkpoint allows.
    lease_seconds: int = 0
    checkpoint_timeout: float = 0.0
    owner: str = labels.DEFAULT_OWNER
    force: bool = False
    huge_pages: str = host_huge_pages.KEEP
    marks_root: str = field(default_factory=mark.default_root)
    #: Where it is noted what captures of this node take; "" for nowhere.
    rates_file: str = ""
    #: How many workloads each processor captures at a time, at least 1.
    concurrency: float = 1.0
    access: GpuAccess = field(default_factory=GpuAccess)

    @classmethod
    def from_options(cls, options: Mapping[str, Any], access: GpuAccess | None = None) -> CaptureParams:
        """From the options of ``containerd_checkpoint``; ``access``: that of the others that are captured with it."""
        criu = options["criu"]
        return cls(
            container_id=options["container_id"],
            name=options["name"],
            leave=options["leave"],
            store=options["store"],
            gpu=options["gpu"],
            cuda_forks=options["cuda_forks"],
            accept=tuple(options["accept"]),
            targets=tuple(map(Target.from_options, options["targets"])),
            criu=DumpOptions(
                **{**criu, "empty_namespaces": tuple(criu["empty_namespaces"]), "extra": tuple(criu["extra"])}
            ),
            memory_volumes=tuple(options["memory_volumes"]),
            before_capture=_hook(probe_hook.BEFORE_CAPTURE, options),
            after_capture=_hook(probe_hook.AFTER_CAPTURE, options),
            staging_dir=options["staging_dir"],
            volatile=mountinfo.is_in_memory(options["staging_dir"], mountinfo.parse(mountinfo.read())),
            keep_staged=options["keep_staged"],
            lease=options["lease"],
            lease_seconds=options["lease_seconds"],
            checkpoint_timeout=float(options["checkpoint_timeout"]),
            owner=options["owner"],
            force=options["force"],
            huge_pages=options["huge_pages"],
            rates_file=rates.FILE,
            access=access or GpuAccess.from_options(options),
        )

    @property
    def keeps_staged(self) -> bool:
        """Whether the dump stays as the staged directory of the image."""
        return self.keep_staged or self.store == BOTH

    @property
    def node_first(self) -> bool:
        """Whether the checkpoint lives on the node, be it until its image is written: what is to end can end then.

        Not where a reboot would take both the workload and its image that is not written yet.
        """
        return self.store == NODE or (self.leave == STOPPED and not self.volatile)

    @property
    def spends_dump(self) -> bool:
        """Whether nobody needs the dump once its image is written, nor before: what fails has the workload go on."""
        return not (self.keeps_staged or self.node_first)

    def dump_seconds(self, client: Client, memory: int) -> float:
        """How long CRIU may take for so many bytes of memory."""
        return self.checkpoint_timeout or client.seconds_for(memory)

    def cuda(self, state: str = driver.CHECKPOINTED) -> gpu_state.StateParams:
        """What is asked of the CUDA processes. Whose the container is was decided before."""
        return gpu_state.StateParams(
            state=state,
            container_id=self.container_id,
            force=True,
            access=self.access,
        )


@dataclass
class CaptureResult:
    """What was, or in check mode would be, done."""

    changed: bool = False
    #: A capture that was broken off had left something, which is taken back.
    recovered: bool = False
    #: The checkpoint's; empty where check mode cannot know it.
    digest: str = ""
    #: The staged directory, where the dump stays as one.
    staged: str = ""
    #: How often it was tried to lock all CUDA processes, which may wait for each other.
    lock_attempts: int = 0
    #: The captured processes that ended when the workload went on: pid and command.
    ended: list[dict[str, Any]] = field(default_factory=list)
    #: The processes that gave up what they inherited of a CUDA process, as Fork.result.
    detached: list[dict[str, Any]] = field(default_factory=list)
    #: What was found of what the operator vouches for, as restorable.vouched.
    accepted: list[dict[str, str]] = field(default_factory=list)
    #: What CRIU was told to do and why, as Need.result.
    criu_options: list[dict[str, Any]] = field(default_factory=list)
    #: The deleted files that CRIU took along by another name, as UnlinkedFile.result.
    unlinked_files: list[dict[str, Any]] = field(default_factory=list)
    #: Mounts that no spec names and CRIU was told of, as Taken.result.
    mounts_taken: list[dict[str, str]] = field(default_factory=list)
    #: What the runtime has added to containerd's spec, as Edits.result.
    added_by_runtime: dict[str, list[str]] = field(default_factory=dict)
    #: What the workload was told, each with its name as ``hook``.
    hooks: list[dict[str, Any]] = field(default_factory=list)
    #: As MemoryVolume.shown, in check mode without digest and size.
    memory_volumes: list[dict[str, Any]] = field(default_factory=list)
    before: dict[str, Any] = field(default_factory=dict)
    after: dict[str, Any] = field(default_factory=dict)
    actions: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    #: Bytes by part of the image.
    sizes: dict[str, int] = field(default_factory=dict)
    #: Foretold of :attr:`seconds`, as Prediction.result; empty where nothing is captured.
    predicted: dict[str, Any] = field(default_factory=dict)
    #: By phase.
    seconds: dict[str, float] = field(default_factory=dict)
    #: What the image records of node and process.
    facts: Facts = field(default_factory=Facts)
    #: What became of the switch for huge pages.
    huge_pages: dict[str, Any] = field(default_factory=dict)


def _hook(name: str, options: Mapping[str, Any]) -> Hook | None:
    return Hook.from_options(name, options[name] or {}, options["container_id"], options["staging_dir"])
