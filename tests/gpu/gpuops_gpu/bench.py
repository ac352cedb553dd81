# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""All that the sections work with, and the life of a workload: started, suspended, captured, brought back, asked."""

from __future__ import annotations

import dataclasses
import functools
import json
import pathlib
import secrets
import shutil
import time
from collections.abc import Callable, Sequence
from typing import Any

from gpuops_gpu import gpu, host, pod
from gpuops_gpu.engine import Engine
from gpuops_gpu.evidence import Evidence
from gpuops_gpu.plays import Play, Plays
from gpuops_gpu.rehearsal import World
from gpuops_gpu.report import Section
from gpuops_gpu.runner import Runner, StepError
from gpuops_gpu.settings import Settings

# A context, the driver's own buffers: what may differ from the start when nobody uses the GPU any more.
SLACK = 64 << 20
CUDA_SECONDS = 90
#: NVLink multicast can put a host's GPUs out of service.
NO_MULTICAST = {"NCCL_NVLS_ENABLE": "0", "TORCH_SYMM_MEM_DISABLE_MULTICAST": "1", "NVSHMEM_DISABLE_NVLS": "1"}

#: A seccomp profile that forbids nothing else.
NO_IO_URING = {
    "defaultAction": "SCMP_ACT_ALLOW",
    "syscalls": [
        {"names": ["io_uring_setup", "io_uring_enter", "io_uring_register"], "action": "SCMP_ACT_ERRNO", "errnoRet": 1}
    ],
}


@dataclasses.dataclass
class Workload:
    """A container with a folder of the host for what it says; ``parts`` are the subfolders of its processes.

    ``cards``: indices of the GPUs that it sees, none for all. ``pod``: what it has in place of a network of its own, of
    the driver's folder and of devices. ``shm_mib``: the size of its /dev/shm, 0 for ctr's 64 MiB. ``no_io_uring``: it
    meets EPERM when it asks for one, as under containerd 2's default profile.
    """

    name: str
    command: list[str]
    directory: pathlib.Path
    parts: tuple[str, ...] = ("",)
    probe: str = "count.log"
    plain_python: bool = False
    bytes: int = 0
    cards: tuple[int, ...] = ()
    pod: pod.Pod | None = None
    shm_mib: int = 0
    no_io_uring: bool = False
    #: Whether its checkpoint records what the task had; one of ctr's does not.
    recorded: bool = True
    environment: dict[str, str] = dataclasses.field(default_factory=dict)

    @property
    def checkpoint(self) -> str:
        return f"gpuops.test/{self.name}-checkpoint:1"

    @property
    def log(self) -> pathlib.Path:
        return self.directory.with_suffix(".log")

    def part(self, name: str) -> pathlib.Path:
        return self.directory / name


@dataclasses.dataclass
class Bench:
    """The host as the test uses it. ``world`` is there in a rehearsal with the stand-in for the driver only."""

    settings: Settings
    runner: Runner
    engine: Engine
    plays: Plays
    python: dict[str, Any] = dataclasses.field(default_factory=dict)
    mounts: list[host.Mount] = dataclasses.field(default_factory=list)
    devices: list[str] = dataclasses.field(default_factory=list)
    driver: pod.Driver = dataclasses.field(default_factory=pod.Driver)
    library_path: str = ""
    base_used: int = 0
    base_processes: list[int] = dataclasses.field(default_factory=list)
    world: World | None = None
    #: Writes the report in the middle of a section, with what that has found so far.
    write_report: Callable[[Section], None] = lambda _section: None

    @property
    def evidence(self) -> Evidence:
        """Where logs are kept before they are removed."""
        places = (self.settings.base / "work", self.plays.state, self.engine.runtime)
        return Evidence(self.settings.out / "evidence.txt", places)

    @property
    def suspends(self) -> bool:
        """Whether there is a driver, real or stand-in, to suspend with."""
        return not self.settings.rehearsal or self.world is not None

    def workload(self, name: str, program: str, *arguments: str, **options: Any) -> Workload:
        """A program of the folder ``workloads`` in a container with a folder of its own."""
        path = f"{host.PROGRAMS_IN_CONTAINER}/{program}"
        command = [self.python["executable"], path, "--work", host.WORK_IN_CONTAINER, *arguments]
        return Workload(name, command, self.settings.base / "work" / name, **options)

    def pattern(self, name: str, gib: float, processes: int = 0, *more: str) -> Workload:
        """``more``: further arguments of the program."""
        arguments = ["--gib", str(gib), *(["--processes", str(processes)] if processes else []), *more]
        if self.settings.rehearsal:
            arguments.append("--host-memory")
        parts = tuple(str(number) for number in range(processes)) or ("",)
        probe = "0/count.log" if processes else "count.log"
        return self.workload(name, "vram_pattern.py", *arguments, parts=parts, probe=probe)

    def start(self, workload: Workload) -> None:
        shutil.rmtree(workload.directory, ignore_errors=True)
        workload.directory.mkdir(parents=True)
        environment = {
            "PATH": "/usr/bin:/bin",
            "HOME": "/tmp",
            "PYTHONDONTWRITEBYTECODE": "1",
            "PYTHONUNBUFFERED": "1",
            # What PyTorch's deterministic algorithms demand.
            "CUBLAS_WORKSPACE_CONFIG": ":4096:8",
        }
        if not workload.plain_python:
            environment["PYTHONPATH"] = host.SITE_IN_CONTAINER
        if self.library_path:
            environment["LD_LIBRARY_PATH"] = self.library_path
            # Triton looks for the driver by ldconfig, which knows nothing of the mount.
            environment["TRITON_LIBCUDA_PATH"] = self.library_path
        if workload.pod and self.driver.files:
            environment["LD_LIBRARY_PATH"] = environment["TRITON_LIBCUDA_PATH"] = host.DRIVER_IN_CONTAINER
        environment |= NO_MULTICAST | workload.environment
        self.engine.run(
            workload.name,
            workload.command,
            mounts=self._mounts(workload),
            devices=[] if workload.pod else self._devices(workload),
            environment=environment,
            log=workload.log,
            options=self._options(workload),
        )
        if workload.shm_mib:
            self._grow_shm(workload)

    def _mounts(self, workload: Workload) -> list[host.Mount]:
        work = host.Mount(str(workload.directory), host.WORK_IN_CONTAINER, writable=True)
        if workload.pod is None:
            return [*self.mounts, work]
        return [*(one for one in self.mounts if one.target != host.DRIVER_IN_CONTAINER), work, workload.pod.mount()]

    def _options(self, workload: Workload) -> list[str]:
        found = workload.pod.options() if workload.pod else list(self.engine.network_options)
        if workload.no_io_uring:
            profile = self.settings.base / "no-io-uring.json"
            profile.write_text(json.dumps(NO_IO_URING))
            found += ["--seccomp", "--seccomp-profile", str(profile)]
        return found

    def _grow_shm(self, workload: Workload) -> None:
        """As Docker's --shm-size does; ctr has no option for it."""
        (first,) = self.engine.pids(workload.name)[:1]
        size = f"remount,size={workload.shm_mib}m"
        self.runner.run(["nsenter", "--target", str(first), "--mount", "mount", "-o", size, "/dev/shm"], 10)

    def _devices(self, workload: Workload) -> list[str]:
        """The device nodes that the container gets."""
        if not workload.cards:
            return self.devices
        if self.world:
            self.world.cards[workload.name] = workload.cards
            return self.devices
        nodes = gpu.device_nodes()
        unseen = {node for index, node in enumerate(nodes) if index not in workload.cards}
        return [path for path in self.devices if path not in unseen]

    def alive(self, workload: Workload) -> bool:
        return bool(self.engine.pids(workload.name))

    def await_true(self, workload: Workload, what: str, seconds: float, test: Callable[[], bool]) -> None:
        """Wait for something of the workload, as long as it lives; the error has its last words."""
        next_look = time.monotonic() + 1

        def holds() -> bool:
            nonlocal next_look
            if test():
                return True
            if time.monotonic() > next_look:
                next_look = time.monotonic() + 1
                if not self.alive(workload) and not test():
                    raise StepError("Its container has ended.")
            return False

        try:
            self.runner.await_true(f"{workload.name}: {what}", seconds, holds)
        except StepError as error:
            raise StepError(f"{workload.name}: {what}: {error} {self.last_words(workload)}") from error

    def last_words(self, workload: Workload) -> str:
        text = workload.log.read_text(errors="replace").strip()[-800:] if workload.log.exists() else ""
        return f"Its output ends with: {text or 'nothing'}; it {'lives' if self.alive(workload) else 'has ended'}."

    def await_ready(self, workload: Workload, seconds: float = 60) -> None:
        """Until every process has filled its VRAM; notes how many bytes that are."""
        workload.bytes = 0
        for part in workload.parts:
            self.await_true(workload, "its VRAM is filled", seconds, (workload.part(part) / "ready").exists)
            workload.bytes += int(json.loads((workload.part(part) / "ready").read_text())["bytes"])
        if self.world:
            self.world.running(workload.name, workload.bytes // max(1, len(workload.parts)))

    def cuda_pids(self, workload: Workload) -> list[int]:
        """The processes with the GPU's memory: all but the parent that only waits for its several."""
        pids = sorted(self.engine.pids(workload.name))
        return pids[1:] if len(workload.parts) > 1 else pids

    def expected(self, workload: Workload) -> list[str]:
        """The digests that the pattern has, reckoned when it was written."""
        return [json.loads((workload.part(part) / "ready").read_text())["expected"] for part in workload.parts]

    def digests(self, workload: Workload, seconds: float = 60) -> list[str]:
        """What every process reads in its VRAM now."""
        token = secrets.token_hex(8)
        for part in workload.parts:
            (workload.part(part) / "request").write_text(token)

        def answer(part: str) -> dict[str, Any]:
            path = workload.part(part) / "digest.json"
            return dict(json.loads(path.read_text())) if path.exists() else {}

        def complete() -> bool:
            return all(answer(part).get("token") == token for part in workload.parts)

        self.await_true(workload, "it digests its VRAM", seconds, complete)
        return [answer(part)["digest"] for part in workload.parts]

    def count(self, workload: Workload) -> list[int]:
        lines = [(workload.part(part) / "count.log").read_text().split() for part in workload.parts]
        return [int(words[-1]) if words else 0 for words in lines]

    def cuda(self, state: str, seconds: float = CUDA_SECONDS, **target: Any) -> tuple[dict[str, Any], float]:
        """cuda_process, by itself; the originals were made with ctr and carry no owner, hence the force."""
        arguments = {"state": state, "force": True, "cuda_timeout": max(seconds, CUDA_SECONDS) - 30, **target}
        return self.plays.module("cuda_process", arguments, seconds)

    def suspend(self, section: Section, workload: Workload) -> dict[str, Any]:
        """Through the collection's module; without a driver there is nothing to suspend."""
        if not self.suspends:
            return {}
        answer, seconds = self.cuda("checkpointed", container_id=workload.name)
        section.figures[f"suspend {workload.name}"] = answer
        if answer["failed"]:
            raise StepError(f"cuda_process could not suspend {workload.name}: {answer.get('msg')}")
        span = phase_seconds(answer, "checkpoint")
        section.phase("suspend: cuda_process", seconds, workload.bytes)
        section.phase("suspend: driver calls", span, workload.bytes)
        return answer

    def capture(self, section: Section, workload: Workload, by_ctr: bool = False) -> None:
        """Suspend it, take the checkpoint, delete the container; in one go, or with containerd's own tool."""
        workload.recorded = not by_ctr and self.suspends
        if not workload.recorded:
            self.suspend(section, workload)
            seconds = self.engine.checkpoint(workload.name, workload.checkpoint)
            section.phase("dump: ctr containers checkpoint", seconds, workload.bytes)
        else:
            self._capture(section, workload)
        self.engine.delete(workload.name)
        section.check("the original is gone", workload.name not in self.engine.containers())

    def _capture(self, section: Section, workload: Workload) -> None:
        """The originals were made with ctr and carry no owner, hence the force."""
        arguments = {"container_id": workload.name, "name": workload.checkpoint, "leave": "stopped", "force": True}
        arguments |= {"gpu": "required", "staging_dir": str(self.plays.state)}
        answer, seconds = self.plays.module("containerd_checkpoint", arguments, 150)
        section.figures[f"capture {workload.name}"] = answer
        if answer["failed"]:
            raise StepError(f"containerd_checkpoint could not capture {workload.name}: {answer.get('msg')}")
        section.phase("capture: containerd_checkpoint", seconds, workload.bytes)
        for name, value in answer["seconds"].items():
            moves = name in ("cuda_suspend", "dump", "upload")
            section.phase(f"capture: {name}", float(value), workload.bytes if moves else 0)

    def entry(self, workload: Workload) -> dict[str, Any]:
        """The workload in the inventory."""
        return {
            "name": workload.name,
            "checkpoint": workload.checkpoint,
            # Those that ctr takes are nobody's for the collection, and these containers have folders of the host.
            "digest": self.engine.digest(workload.checkpoint),
            "gpu": "required" if self.suspends else "none",
            "stdout": str(workload.log),
            "probe": {"file": {"path": f"{host.WORK_IN_CONTAINER}/{workload.probe}", "seconds": 20}},
            **({"network": workload.pod.network} if workload.pod else {}),
        }

    def restore(self, section: Section, workload: Workload, seconds: float = 120, **more: Any) -> Play:
        """The playbook, with ``more`` keys of the entry; raises StepError when it fails. Notes the receipt's phases."""
        with self.watching(workload):
            play = self.plays.playbook("restore", {**self.entry(workload), **more}, seconds)
        if not play.ok:
            raise StepError(f"the playbook could not restore {workload.name}: {play.message}")
        section.phase("restore: the whole playbook", play.seconds, workload.bytes)
        receipt = self.plays.receipt(workload.name)
        section.figures[f"receipt {workload.name}"] = receipt
        self.check_as_it_was(section, workload, receipt)
        for name, value in (receipt.get("seconds") or {}).items():
            moves = name in ("stage", "start") or "gpu" in name or "cuda" in name
            section.phase(f"restore: {name}", float(value), workload.bytes if moves else 0)
        return play

    def check_as_it_was(self, section: Section, workload: Workload, receipt: dict[str, Any]) -> None:
        """Nothing of the restored task is other than it was, as far as the checkpoint records what it had."""
        found, why = receipt.get("differences"), receipt.get("not_compared")
        whole = found == [] and not why if workload.recorded else found is None and bool(why)
        section.check("what the task has is what it had", "differences" in receipt and whole, found or why)

    def watching(self, workload: Workload) -> Any:
        """In a rehearsal the stand-in is told of processes that come back; else nothing."""
        if self.world is None:
            return _Nothing()
        return self.world.watching(workload.name, workload.bytes // max(1, len(workload.parts)))

    def cleanup(self, section: Section, workload: Workload) -> None:
        """The clean-up playbook, and what has to be gone after it."""
        play = self.plays.playbook("cleanup", self.entry(workload), 60)
        section.phase("clean-up: the whole playbook", play.seconds)
        section.check("clean-up succeeds", play.ok, play.message)
        section.check("no container is left", workload.name not in self.engine.containers())
        section.check("no memory image and no receipt is left", not self.plays.staged(), self.plays.staged()[:5])
        self.check_gpu_free(section, "after the clean-up")

    def check_left(self, section: Section, when: str, pids: Sequence[int]) -> None:
        """None of these processes is on a GPU; others may be."""
        still = sorted(set(pids) & set(gpu.processes()))
        section.check(f"none of its processes is on a GPU {when}", not still, still)

    def check_gpu_free(self, section: Section, when: str, others: Sequence[int] | None = None) -> None:
        """No process on the GPU but those before the test and ``others``; without others no VRAM in use either."""
        if not self.suspends:
            return
        strange = sorted(set(gpu.processes()) - set(self.base_processes) - set(others or ()))
        section.check(f"no process is on the GPU {when}", not strange, strange)
        if others is None:
            excess = gpu.used() - self.base_used
            section.check(f"no VRAM is in use {when}", excess <= SLACK, f"{excess} bytes more than at the start")

    def take_away(self, workload: Workload) -> None:
        """At a section's end, whatever became of it: nothing of the workload stays. Raises nothing."""
        self.runner.log.write(f"taking {workload.name} away")
        self.evidence.keep(workload.name)
        steps: list[Callable[[], object]] = [
            functools.partial(self._suspend, [workload]),
            functools.partial(self.engine.delete, workload.name),
            functools.partial(self.engine.remove_image, workload.checkpoint),
        ]
        for step in steps:
            try:
                # Also when the section's time is over.
                with self.runner.limited(self._last_seconds([workload]), beyond=True):
                    step()
            except StepError as error:
                self.runner.log.write(f"taking {workload.name} away: {error}", show=True)
        shutil.rmtree(self.plays.state, ignore_errors=True)

    def suspend_live(self, workloads: Sequence[Workload]) -> None:
        """All that live leave their cards at once, before each is taken away. Raises nothing."""
        try:
            with self.runner.limited(self._last_seconds(workloads), beyond=True):
                self._suspend(workloads)
        except StepError as error:
            self.runner.log.write(f"suspending them before they are taken away: {error}", show=True)

    def _suspend(self, workloads: Sequence[Workload]) -> None:
        """Ending a live CUDA process that was restored has hung hosts."""
        live = [workload for workload in workloads if self.suspends and self.alive(workload)]
        if len(live) == 1:
            self.cuda("checkpointed", self._last_seconds(live), container_id=live[0].name)
        elif live:
            pids = [pid for workload in live for pid in self.cuda_pids(workload)]
            self.cuda("checkpointed", self._last_seconds(live), pids=pids)

    @staticmethod
    def _last_seconds(workloads: Sequence[Workload]) -> float:
        """For a step of what is done at the end: the driver moves 1 to 3 GB in a second."""
        return 30 + max((workload.bytes for workload in workloads), default=0) / 1e9


class _Nothing:
    def __enter__(self) -> None:
        return None

    def __exit__(self, *_: object) -> None:
        return None


def phase_seconds(answer: dict[str, Any], name: str) -> float:
    """Seconds of a phase of cuda_process; of several processes side by side, from the first begin to the last end."""
    spans = answer.get("seconds")
    if isinstance(spans, dict) and name in spans:
        return float(spans[name] or 0.0)
    found = [float((one.get("seconds") or {}).get(name) or 0.0) for one in answer.get("processes") or []]
    return max(found, default=0.0)
