# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Programs as people run them: each goes on equal to the bit after two captures and restores, or is refused untouched.

A program writes what each of its steps has given. Two of a kind begin at once: one is left alone, the other is
captured, ended and restored twice on its way, and the two files are compared byte by byte. One that cannot come back
has to be refused before anything is touched, and to go on.
"""

from __future__ import annotations

import concurrent.futures
import dataclasses
import queue
import time
from typing import Any

from gpuops_gpu import gpu
from gpuops_gpu.bench import Bench, Workload
from gpuops_gpu.pod import Pod
from gpuops_gpu.report import Section
from gpuops_gpu.runner import StepError

STEPS = 120
PAUSE = 0.1
#: What the stand-in says that a program holds.
STANDIN_BYTES = 1 << 20


@dataclasses.dataclass(frozen=True)
class Program:
    """One of the section's programs.

    ``refused``: the failure code of its capture, empty for one that goes on. ``capture`` and ``restore``: options that
    it needs there. ``cards``: so many GPUs have to be there. ``shm_mib``: size of its /dev/shm, 0 for the usual one.
    ``times``: how often it is captured and restored.
    ``pod``: in a container as a GPU pod has it, which comes back in another pod. ``no_io_uring``: switched off for it.
    """

    name: str
    file: str
    arguments: tuple[str, ...] = ()
    environment: dict[str, str] = dataclasses.field(default_factory=dict)
    capture: dict[str, Any] = dataclasses.field(default_factory=dict)
    restore: dict[str, Any] = dataclasses.field(default_factory=dict)
    refused: str = ""
    steps: int = STEPS
    cards: int = 1
    times: int = 2
    shm_mib: int = 0
    pod: bool = False
    no_io_uring: bool = False


#: No memory of the driver's that processes have in common; drivers before 610 restore none.
NO_P2P = {"NCCL_P2P_DISABLE": "1", "NCCL_CUMEM_HOST_ENABLE": "0"}
#: As many compile workers as a small node has, not one for each of this host's processors.
FEW_WORKERS = {"TORCHINDUCTOR_COMPILE_THREADS": "8"}
#: Else each run chooses its kernels by time, and no two are equal.
XLA = {"XLA_FLAGS": "--xla_gpu_deterministic_ops=true --xla_gpu_autotune_level=0"}
#: NCCL makes files of 34 MiB there, whatever its transport.
DDP = ("--shm-mib", "1024")
PROGRAMS = (
    Program("loader-fork", "loader.py", ("--start-method", "fork")),
    # Their semaphores are deleted files that another name leads to.
    Program("loader-spawn", "loader.py", ("--start-method", "spawn")),
    Program("loader-forkserver", "loader.py", ("--start-method", "forkserver")),
    # Its client is in the container, too, so nobody has to be told of their connection.
    Program("server", "serve.py"),
    Program("generation", "generate.py", environment=FEW_WORKERS),
    Program("managed", "managed.py", refused="cuda_checkpoint_failed"),
    Program("compiled", "compiled.py", environment=FEW_WORKERS),
    Program("jax", "jax_train.py", environment={**XLA, "XLA_PYTHON_CLIENT_ALLOCATOR": "platform"}),
    Program(
        "jax-default",
        "jax_train.py",
        environment={**XLA, "XLA_PYTHON_CLIENT_MEM_FRACTION": "0.05"},
        refused="xla_allocator",
    ),
    Program("pod", "loader.py", ("--start-method", "fork"), pod=True),
    Program("two-cards", "many_cards.py", cards=2),
    Program("ddp-shm", "ddp.py", DDP, NO_P2P, cards=2, shm_mib=1024, no_io_uring=True),
    # Its launcher heeds the variable, torchrun does not.
    Program(
        "ddp-sockets",
        "ddp.py",
        (*DDP, "--launcher", "own"),
        {**NO_P2P, "USE_LIBUV": "0", "NCCL_SHM_DISABLE": "1", "NCCL_SOCKET_IFNAME": "lo"},
        cards=2,
        shm_mib=1024,
    ),
    Program("ddp-pod", "ddp.py", DDP, NO_P2P, cards=2, pod=True, no_io_uring=True),
    # The remedies of these three are ddp-shm.
    Program(
        "ddp-driver-shm",
        "ddp.py",
        DDP,
        {"NCCL_P2P_DISABLE": "1"},
        refused="cuda_ipc",
        cards=2,
        shm_mib=1024,
        no_io_uring=True,
    ),
    Program("ddp-p2p", "ddp.py", DDP, refused="cuda_ipc", cards=2, shm_mib=1024, no_io_uring=True),
    Program("ddp-io-uring", "ddp.py", DDP, NO_P2P, refused="io_uring_open", cards=2, shm_mib=1024),
)


def programs(bench: Bench, section: Section) -> None:
    """All of them, so many at a time as the settings say; one that fails does not keep the others from running."""
    if not bench.suspends:
        raise StepError("Captures need a driver, real or stand-in.")
    wanted = [one for one in PROGRAMS if not bench.settings.programs or one.name in bench.settings.programs]
    count = len(gpu.device_nodes())
    for program in wanted:
        if program.cards > count:
            section.figures[f"{program.name}: not run"] = f"it needs {program.cards} GPUs"
    there = [one for one in wanted if one.cards <= count]
    # Several at a time spread over the cards; each then sees its own.
    alone = bench.settings.abreast > 1
    slots: queue.SimpleQueue[int] = queue.SimpleQueue()
    for slot in range(bench.settings.abreast):
        slots.put(slot)
    end = time.monotonic() + bench.runner.limit(3600)

    def carried_out(program: Program) -> Section:
        inner = Section(program.name)
        slot = slots.get()
        try:
            own = dataclasses.replace(bench, plays=bench.plays.beside(program.name))
            with bench.runner.limited(end - time.monotonic()):
                carry_out(own, inner, program, (slot % count,) if alone and program.cards == 1 else ())
        except StepError as error:
            inner.check("it ran", False, str(error))
        finally:
            slots.put(slot)
        return inner

    with concurrent.futures.ThreadPoolExecutor(bench.settings.abreast) as pool:
        for program, inner in zip(there, pool.map(carried_out, there)):
            section.add(program.name, inner)


def carry_out(bench: Bench, section: Section, program: Program, cards: tuple[int, ...] = ()) -> None:
    """``cards``: the only ones that it sees, none for all."""
    reference = make_workload(bench, program, "undisturbed", 0.0)
    subject = make_workload(bench, program, "captured", PAUSE)
    reference.cards = subject.cards = cards
    try:
        bench.start(reference)
        # In the host's network both would listen on one port.
        expected = undisturbed(bench, program, reference) if bench.engine.network == "host" else ""
        bench.start(subject)
        await_steps(bench, subject, program.steps // 4, 120)
        if bench.world:
            subject.bytes = STANDIN_BYTES
            bench.world.running(subject.name, STANDIN_BYTES)
        if program.refused:
            _refused(bench, section, program, subject)
        else:
            for which in range(1, program.times + 1):
                _there_and_back(bench, section, program, subject, which)
                await_steps(bench, subject, program.steps * (which + 1) // 4, 60)
        expected = expected or undisturbed(bench, program, reference)
        await_steps(bench, subject, program.steps + 1, 90)
        found = text_of(subject)
        section.check(
            "all steps equal those of an undisturbed run, to the bit",
            found == expected,
            first_difference(found, expected),
        )
        if program.refused:
            # What cannot be suspended has never been restored either.
            bench.engine.delete(subject.name)
    finally:
        for workload in (subject, reference):
            bench.take_away(workload)
            if workload.pod:
                workload.pod.remove()


def undisturbed(bench: Bench, program: Program, reference: Workload) -> str:
    """What the program gives when it is left alone."""
    await_steps(bench, reference, program.steps + 1, 150)
    expected = text_of(reference)
    if not program.refused:
        bench.suspend(Section("end"), reference)
    bench.engine.delete(reference.name)
    return expected


def make_workload(bench: Bench, program: Program, role: str, pause: float) -> Workload:
    """Of a program that is run twice, in a container of its own each time."""
    cpu = ["--cpu"] if bench.settings.rehearsal else []
    arguments = ["--steps", str(program.steps), "--pause", str(pause), *program.arguments, *cpu]
    name = f"{program.name}-{role}"
    return bench.workload(
        name,
        program.file,
        *arguments,
        parts=(),
        probe="beat.log",
        plain_python=True,
        pod=_pod(bench, name, 1) if program.pod else None,
        shm_mib=program.shm_mib,
        no_io_uring=program.no_io_uring,
        environment=program.environment,
    )


def _pod(bench: Bench, name: str, number: int) -> Pod:
    found = Pod(bench.runner, bench.settings.base, name, number, bench.driver)
    found.make()
    return found


def _there_and_back(bench: Bench, section: Section, program: Program, subject: Workload, which: int) -> None:
    """Captured and stopped, taken away, restored from the image."""
    pids = bench.engine.pids(subject.name)
    options = {"container_id": subject.name, "name": subject.checkpoint, "leave": "stopped", "force": True}
    options |= {"gpu": "required", "staging_dir": str(bench.plays.state), **program.capture}
    answer, seconds = bench.plays.module("containerd_checkpoint", options, 150)
    section.figures[f"{subject.name}: capture {which}"] = answer
    if answer["failed"]:
        raise StepError(f"containerd_checkpoint could not capture {subject.name}: {answer.get('msg')}")
    section.phase(f"capture {which}: containerd_checkpoint", seconds)
    for name, value in answer["seconds"].items():
        section.phase(f"capture {which}: {name}", float(value))
    reached = steps_of(subject)
    told = f"at step {reached}; attempts of locks: {answer['lock_attempts']}; forks detached: {len(answer['detached'])}"
    section.check(f"capture {which} was in the middle", 0 < reached < program.steps, told)
    bench.engine.delete(subject.name)
    bench.check_left(section, f"after capture {which}", pids)
    if subject.pod:
        subject.pod.remove()
        subject.pod = _pod(bench, subject.name, which + 1)
    inner = Section("restore")
    play = bench.restore(inner, subject, **program.restore)
    section.add(f"restore {which}", inner)
    section.check(f"restore {which} by the playbook", play.changed > 0, f"changed={play.changed} in {play.seconds} s")


def _refused(bench: Bench, section: Section, program: Program, subject: Workload) -> None:
    """Refused before anything is touched: it goes on at once, and is not captured half."""
    options = {"container_id": subject.name, "name": subject.checkpoint, "force": True, "gpu": "required"}
    answer, _seconds = bench.plays.module("containerd_checkpoint", {**options, **program.capture}, 150)
    section.figures[f"{subject.name}: refusal"] = answer
    code = (answer.get("failure") or {}).get("code")
    section.check(f"its capture is refused ({program.refused})", code == program.refused, answer.get("msg"))
    before = steps_of(subject)
    bench.await_true(subject, "it goes on", 30, lambda: steps_of(subject) > before)


def text_of(workload: Workload) -> str:
    return (workload.directory / "steps.txt").read_text(encoding="utf-8")


def steps_of(workload: Workload) -> int:
    path = workload.directory / "steps.txt"
    return len(path.read_text(encoding="utf-8").splitlines()) if path.exists() else 0


def await_steps(bench: Bench, workload: Workload, steps: int, seconds: float) -> None:
    bench.await_true(workload, f"step {steps}", seconds, lambda: steps_of(workload) >= steps)


def first_difference(found: str, expected: str) -> str:
    """The first line in which two runs differ."""
    for ours, theirs in zip(found.splitlines(), expected.splitlines()):
        if ours != theirs:
            return f"{ours[:200]} / {theirs[:200]}"
    return f"{len(found.splitlines())} and {len(expected.splitlines())} lines"
