#!/usr/bin/python
# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: containerd_checkpoint
short_description: Capture a running task as a checkpoint image
version_added: 0.1.0
description:
  - Captures memory, files and spec of a running container as a checkpoint image, which the other modules of this
    collection and C(ctr containers restore --rw --live) restore.
  - CUDA processes are locked and checkpointed first, so that their GPU memory comes along. Then the task is paused while
    CRIU dumps it and its writable layer is read, resumed, and its CUDA processes get their memory back. The image is
    written while the workload runs again.
  - Whatever fails, the workload goes on, also when the module is told to end (SIGTERM, a connection that breaks). When it is
    killed, a mark below C(/run/gpuops-restore) says what may stand still, and the next run of this module for the
    container, for whatever image name, resumes it first and takes away what was half made.
  - Before anything is touched, the capture applies the rules of a restore. What could not come back is refused, with the reason.
    O(accept) has what an operator may vouch for.
  - Where the driver cannot give CUDA processes their memory back, or a process does not outlive the interruption by a dump, the
    message says so.
  - The image names the base image that the container was really made of, even if its tag has been moved since.
  - Capturing changes nothing of the container, so it is allowed for containers that this collection has not made.
    Ending its task with O(leave=stopped) is not, without O(force).
  - To delete a checkpoint image use M(gpuops.restore.containerd_image).
extends_documentation_fragment:
  - gpuops.restore.containerd
  - gpuops.restore.attributes
  - gpuops.restore.attributes.full
  - gpuops.restore.staging
  - gpuops.restore.lease
  - gpuops.restore.progress
  - gpuops.restore.gpu
  - gpuops.restore.gpu.lock
  - gpuops.restore.huge_pages
  - gpuops.restore.ownership
  - gpuops.restore.busy
  - gpuops.restore.workload.hooks
  - gpuops.restore.workload.captures
attributes:
  check_mode:
    details:
      - The preflight runs, and the driver is asked for the state of CUDA processes, which changes nothing.
  idempotent:
    details:
      - By name. A checkpoint of that name, taken from the container, is kept as it is; O(force) takes a new one each time.
requirements:
  - runc and CRIU (3.17 or newer) with iptables-restore on the node, where containerd finds them
  - for CUDA, what M(gpuops.restore.cuda_process) requires
options:
  container_id:
    description:
      - Name of the container; or O(workloads), for several.
    type: str
  name:
    description:
      - Reference of the checkpoint image.
    type: str
  parallel:
    description:
      - How many of O(workloads) are captured at once at most. V(0) is four for each processor of the node. Each begins when host memory
        has room for its GPU memory, and the disk for its dump, beside those that are under way.
    type: int
    default: 0
  state:
    description:
      - V(present) has the checkpoint there. V(settled) takes none - a workload that a capture has left paused, on purpose or because it
        was killed, goes on or ends, as O(leave) says.
      - V(completed) takes none either - it writes the image of a checkpoint that lives on the node (O(store=node)). The workload may run
        meanwhile, or have been restored from it. With O(store=both) the staged directory stays as the image's.
    type: str
    choices: [present, completed, settled]
    default: present
  leave:
    description:
      - V(running) has the workload go on. V(stopped) keeps it paused until the checkpoint is safe on the disk and then ends it, so
        that nothing happens after the moment that was captured; the image, where one is wanted, is written after
        (before, where O(staging_dir) is on a tmpfs). The ended task and the container stay.
      - V(paused) keeps it paused, and off its GPUs, until O(state=settled) has it go on or end. A migration does so until its target has
        proved itself. Until then no other capture of the container is taken.
    type: str
    choices: [running, paused, stopped]
    default: running
  store:
    description:
      - Where the checkpoint is kept. V(image) writes an image into containerd's content store, for archives, registries and C(ctr), and
        the dump gives its disk back meanwhile.
      - V(node) makes the dump itself the staged checkpoint - it is made durable and given its name, and nothing is copied, so that the
        workload may end as soon as the dump is on the disk, and the memory is there once. Spec, facts, writable layer and base image are
        kept under O(name) in containerd. Restores on this node take it like any other; it leaves the node when
        O(state=completed) has written its image, which has another digest.
      - V(both) has the image and the staged directory (O(keep_staged)). With O(leave=stopped) the workload ends before the image is written.
      - A checkpoint that lives on the node alone is as lasting as O(staging_dir) - on a tmpfs it goes with a reboot.
    type: str
    choices: [node, image, both]
    default: image
  gpu:
    description:
      - V(auto) suspends CUDA processes where there are any. V(required) fails where there are none. V(none) does not look.
      - With V(auto) a node without driver or bindings is fine as long as no process of the task has a device of the NVIDIA
        driver open.
    type: str
    choices: [auto, required, none]
    default: auto
  cuda_forks:
    description:
      - What becomes of processes that were forked of a CUDA process, such as the workers of a PyTorch DataLoader. They hold mappings
        and descriptors of the driver that they inherited and cannot use, and that CRIU does not take.
      - With V(detach) each of them gives these up once its parent has left the GPU, and does not notice. With V(refuse) there
        is no checkpoint where there are such processes.
      - Only processes without CUDA state of their own are touched, and only on x86-64. O(gpu=none) looks for none.
    type: str
    choices: [detach, refuse]
    default: detach
  accept:
    description:
      - Reasons for a refusal that you vouch for, and take the risk of.
      - Each is the code of the refusal. What was found of it is in the result (RV(accepted)) and is warned of.
      - V(cuda_ipc) - several processes have NCCL loaded, and nothing says that they keep off each other's GPU memory (C(NCCL_P2P_DISABLE=1))
        and off host memory of the driver's (C(NCCL_CUMEM_HOST_ENABLE=0)). If they share some, drivers before 610 cannot restore them,
        and the capture ends the workload.
      - V(nvlink_multicast) - NCCL or NVSHMEM is loaded, several GPUs are in use, and nothing says that NVLink multicast (NVLS) is off,
        which no driver restores. If it is used, the capture ends the workload.
      - V(xla_allocator) - a JAX program has GPU memory of XLA's own allocator, not of C(XLA_PYTHON_CLIENT_ALLOCATOR=platform). Driver 580 does
        not restore it, and the capture ends the workload.
      - V(cuda_mps) - an MPS daemon runs on the node, and its pipes are where CUDA looks for them in the container. If the processes
        use it, the driver refuses the checkpoint, or they do not come back from it.
      - V(user_namespace_remapped) - the container runs in a user namespace. A restore does not give it the files of its image, so that
        it cannot change those that it has not written before.
      - V(target_driver_differs), V(target_gpu_lacking) - one of O(targets) has another driver, or not the GPUs. A restore is not
        kept from being tried there.
      - V(mount_source_symlink) - the source of a bind mount is a symbolic link, which CRIU does not follow. The restore has to map
        it to what it leads to (its option C(mounts)).
    type: list
    elements: str
    choices:
      - cuda_ipc
      - cuda_mps
      - mount_source_symlink
      - nvlink_multicast
      - target_driver_differs
      - target_gpu_lacking
      - user_namespace_remapped
      - xla_allocator
    default: []
  targets:
    description:
      - The nodes that the checkpoint is meant for. With CUDA processes there is no checkpoint unless each of them has the driver and
        the GPUs that the processes need, or O(accept) has V(target_driver_differs) or V(target_gpu_lacking).
      - What M(gpuops.restore.cuda_process_info) tells on such a node can be given here.
    type: list
    elements: dict
    default: []
    suboptions:
      name:
        description:
          - The node's name, for messages.
        type: str
        required: true
      driver:
        description:
          - Version of its NVIDIA driver, as V(580.159.04). It is not compared where it is not given.
        type: str
      gpus:
        description:
          - Names of its GPUs as NVML has them, or words of these such as V(H100), one for each GPU. An empty list says that it has none.
            They are not compared where they are not given.
        type: list
        elements: str
  criu:
    description:
      - What CRIU takes along beyond what it does by itself. With V(auto) it is told so where the processes have such a thing;
        RV(criu_options) lists what it was told, and why. The checkpoint records it, and a restore does likewise by default.
      - Options that containerd does not know stand in C(/etc/criu/runc.conf), or in the own CRIU configuration of a container that
        this collection has restored, for as long as the dump lasts. What was there before stays. Another dump on the node at the
        same time may meet those of C(/etc/criu/runc.conf) too.
    type: dict
    default: {}
    suboptions:
      tcp_established:
        description:
          - Take TCP connections. V(auto) takes those that have both ends in the container, and refuses where others lead out of it.
          - Sockets whose connection has ended are taken in any case, and come back closed, unless they have received what nobody has
            read yet, or are beside a connection. Then V(auto) takes them where every network has their address, V(false) never.
        type: str
        choices: ["auto", "true", "false"]
        default: auto
      skip_in_flight:
        description:
          - Leave out TCP connections that nobody has accepted yet, which CRIU cannot take. Their clients meet an end.
        type: str
        choices: ["auto", "true", "false"]
        default: auto
      file_locks:
        description:
          - Take file locks.
        type: str
        choices: ["auto", "true", "false"]
        default: auto
      ext_unix_sk:
        description:
          - Take datagram sockets that are connected to one out of the container, which has the same name within it and is in the same
            network namespace, such as C(/dev/log). Of other Unix sockets that lead out of the container CRIU takes none.
        type: str
        choices: ["auto", "true", "false"]
        default: auto
      shell_job:
        description:
          - Have CRIU take a terminal whose session leader is out of the container (C(shell-job)), as where a program was handed one
            from outside. A container with a terminal of its own needs no option.
        type: bool
        default: false
      link_remap:
        description:
          - Take files that are open or mapped, were deleted by the name that they were opened by, and have another name, as
            semaphores of Python's C(multiprocessing). CRIU makes links for them (C(link-remap)).
          - On mounts from outside of the container such a file is always refused, since no checkpoint holds it.
        type: str
        choices: ["auto", "true", "false"]
        default: auto
      ghost_limit:
        description:
          - Take deleted files without a name that are larger than CRIU's limit of 1 MiB, such as NCCL's in C(/dev/shm). V(auto)
            raises the limit to the largest one, V(true) to O(criu.ghost_limit_max), V(false) leaves it.
        type: str
        choices: ["auto", "true", "false"]
        default: auto
      ghost_limit_max:
        description:
          - Bytes that such a file may have. It is in the dump as a whole.
        type: int
        default: 4294967296
      extra:
        description:
          - Further lines of CRIU's configuration for this dump, such as C(force-irmap). Options that redirect files or run programs
            are refused.
        type: list
        elements: str
        default: []
      empty_namespaces:
        description:
          - Kinds of namespaces (V(network)) that are captured without their content.
        type: list
        elements: str
        default: []
  before_capture:
    description:
      - What the workload is told before it stands still, once the preflight has found nothing in the way; exactly one of C(command) and
        C(http). An inference server may give its cache back then, a training stop at a barrier.
      - If it fails, nothing is captured, and O(after_capture) is run, since the workload may rest by then. If it succeeds, the preflight
        is made again.
  after_capture:
    description:
      - What it is told when it goes on, whether there is a checkpoint or not; after O(leave=paused) that is when it is settled, after a run
        that was killed, in the next. It is not run where the workload ends.
      - If it fails, the checkpoint is complete all the same, and RV(failure) names it in C(details.checkpoint).
  memory_volumes:
    description:
      - Mounts in memory from outside of the container whose content goes into the checkpoint, such as a pod's C(/dev/shm) and an
        C(emptyDir) with medium C(Memory). CRIU does not see it. It is packed while the workload stands still, and stored after.
      - V(auto) takes each tmpfs that the spec has as a bind, that the container may write to, and that is not one of the node's own
        (C(/run), C(/dev/shm), C(/tmp)). V(none) takes none. Else it lists where they are in the container.
    type: list
    elements: str
    default: [auto]
  staging_dir:
    description:
      - Directory below which the dump lies until the image is complete. It holds a copy of all memory, mode 0700.
      - The workload stands still while the dump is written there. Where host memory has room for it, a directory on a tmpfs
        such as C(/dev/shm/gpuops-restore) makes that as short as it can be; O(keep_staged) is not for such a directory.
        A reboot loses what lies there, so that O(leave=stopped) writes the image first, and warns with O(store=node).
  keep_staged:
    description:
      - Keep the dump as the staged directory of the new checkpoint, so that a restore on this node needs no
        M(gpuops.restore.containerd_checkpoint_stage). Nothing is copied.
    type: bool
    default: false
  lease_seconds:
    description:
      - Seconds after which the module's own lease expires, should the run be killed.
      - V(0) is an hour more than the size of the checkpoint takes at O(minimum_rate).
    type: int
    default: 0
  checkpoint_timeout:
    description:
      - Seconds that CRIU's dump may take.
      - V(0) is the memory of the processes and of their GPUs at O(minimum_rate), and at least 1800.
    type: int
    default: 0
  owner:
    description:
      - Owner label of the image; with O(leave=stopped) the container has to have it too.
  force:
    description:
      - Take a new checkpoint even if there is one of that name, and put it in the place of whatever image has the name.
      - With O(leave=stopped), end the task of a container of another owner too.
seealso:
  - module: gpuops.restore.containerd_checkpoint_info
  - module: gpuops.restore.containerd_checkpoint_stage
  - module: gpuops.restore.cuda_process
author:
  - The gpuops.restore contributors (@gpuops)
"""

EXAMPLES = r"""
- name: Capture the training while it runs
  gpuops.restore.containerd_checkpoint:
    container_id: pytorch-training
    name: registry.local/pytorch-training-checkpoint:001

- name: Capture it before the node is serviced, and end it
  gpuops.restore.containerd_checkpoint:
    container_id: pytorch-training
    name: registry.local/pytorch-training-checkpoint:before-maintenance
    leave: stopped
    gpu: required
    # The container is one of Kubernetes, without this collection's owner label.
    force: true

- name: Capture it for a node that has to have the same driver and chip, with a mount whose source is a link
  gpuops.restore.containerd_checkpoint:
    container_id: pytorch-training
    name: registry.local/pytorch-training-checkpoint:to-move
    targets:
      - name: gpu-b
        driver: 580.159.04
        gpus: [H100, H100]
    accept: [mount_source_symlink]

- name: All of a node leave it for its window, and wait on its disk
  gpuops.restore.containerd_checkpoint:
    workloads:
      - {container_id: pytorch-training, name: "registry.local/pytorch-training-checkpoint:window", store: node, leave: stopped, force: true}
      - {container_id: inference, name: "registry.local/inference-checkpoint:window", store: node, leave: stopped, force: true}

- name: An inference server gives back its cache first, and takes it again
  gpuops.restore.containerd_checkpoint:
    container_id: inference
    name: registry.local/inference-checkpoint:007
    before_capture:
      http: {url: "http://127.0.0.1:8000/sleep?level=1", seconds: 60}
    after_capture:
      http: {url: "http://127.0.0.1:8000/wake_up"}

- name: Take a new one under the same name, with its TCP connections, those to elsewhere too
  gpuops.restore.containerd_checkpoint:
    container_id: api-server
    name: registry.local/api-server-checkpoint:latest
    force: true
    criu:
      tcp_established: true

- name: Take a training that keeps large deleted files, and no lock of files
  gpuops.restore.containerd_checkpoint:
    container_id: pytorch-training
    name: registry.local/pytorch-training-checkpoint:003
    criu:
      ghost_limit_max: 17179869184
      file_locks: false
      extra: [force-irmap]
"""

RETURN = r"""
checkpoint:
  description: The checkpoint image. C(digest) is null in check mode where it would be new.
  type: dict
  returned: with O(container_id)
  sample:
    name: registry.local/pytorch-training-checkpoint:001
    digest: sha256:2f5c1e4f0e5d5f4c6f9a9d3f4a1f3c2b1a0e9d8c7b6a5f4e3d2c1b0a9f8e7d6c
    container_id: pytorch-training
workloads:
  description:
    - With O(workloads), by container. Each has what a call for it alone returns, and C(failure), which is V(null) where there is none,
      with its C(msg). The values below are there, not beside it.
  type: dict
  returned: with O(workloads)
  sample:
    pytorch-training:
      changed: true
      checkpoint: {name: "registry.local/pytorch-training-checkpoint:001", digest: "sha256:2f5c", container_id: pytorch-training}
      seconds: {standstill: 2.1, total: 4.0}
      failure: null
staged:
  description: The staged directory, where the dump stays as one (O(store), O(keep_staged)); empty otherwise.
  type: str
  returned: with O(container_id)
  sample: ""
detached:
  description: The processes that gave up what they inherited of a CUDA process; how many mappings and descriptors.
  type: list
  elements: dict
  returned: with O(container_id)
  sample: [{pid: 41240, mappings: 33, descriptors: 36}]
ended:
  description:
    - The captured processes that ended when the workload went on. A dump interrupts system calls, and a program that takes that for an
      error ends. With the task's own process the workload has ended. Each is warned of; after a failure they are in
      C(failure.details.ended).
  type: list
  elements: dict
  returned: with O(container_id)
  sample: []
accepted:
  description:
    - What was found of what O(accept) vouches for - C(code) and C(message) of the refusal that it would have been, and the C(outcome).
      Each is a warning, too.
  type: list
  elements: dict
  returned: with O(container_id)
  sample: []
criu_options:
  description:
    - What CRIU was told to do and why, by its own names for the options; in check mode, as it would be.
    - C(tcp-close) is for the restore alone.
  type: list
  elements: dict
  returned: with O(container_id)
  sample:
    - {option: file-locks, value: "", why: "a file lock (POSIX of /var/lib/app/lock by process 41240 (python3))"}
    - {option: ghost-limit, value: "35651584", why: "the deleted file /dev/shm/nccl-Xk3 of process 41240 takes 0.03 GiB"}
unlinked_files:
  description: The deleted files that CRIU took along by another name, and the process that holds each.
  type: list
  elements: dict
  returned: with O(container_id)
  sample: [{pid: 41240, path: /dev/shm/sem.mp-4hq2e1u6}]
mounts_taken:
  description:
    - Mounts that no spec names, as hooks of a runtime make them, and what of the node is mounted there. Each is a bind mount of
      the captured spec.
  type: list
  elements: dict
  returned: with O(container_id)
  sample: [{destination: /usr/bin/nvidia-smi, source: /usr/bin/nvidia-smi}]
added_by_runtime:
  description:
    - What the container's runtime has added to the spec in containerd's record, all of which is in the captured one. Destinations
      of mounts, paths of devices, names of environment variables, programs of hooks.
  type: dict
  returned: with O(container_id)
  sample: {mounts: [/usr/lib/x86_64-linux-gnu/libcuda.so.580.159.04], devices: [/dev/nvidia0], env: [], hooks: []}
memory_volumes:
  description:
    - The memory volumes that the checkpoint holds; bytes of the tar (C(size)) and of memory (C(used)), and the other containers that had
      the volume too (C(shared)).
  type: list
  elements: dict
  returned: with O(container_id)
  sample:
    - destination: /dev/shm
      digest: sha256:7d3e1e4f0e5d5f4c6f9a9d3f4a1f3c2b1a0e9d8c7b6a5f4e3d2c1b0a9f8e7d6c
      size: 67119616
      used: 67108864
      shared: []
hooks:
  description: What the workload was told, O(before_capture) and O(after_capture); what came of it, and how long it took.
  type: list
  elements: dict
  returned: with O(container_id)
  sample:
    - hook: before_capture
      kind: http
      ok: true
      detail: http://127.0.0.1:8000/sleep answered POST with status 200.
      seconds: 1.7
lock_attempts:
  description: How often it was tried to lock all CUDA processes, which may wait for each other; 0 where there was none to lock.
  type: int
  returned: with O(container_id)
  sample: 1
recorded:
  description: The facts that the image records about node and process, as in M(gpuops.restore.containerd_checkpoint_info).
  type: dict
  returned: with O(container_id)
  sample: {version: 1, taken_at: "2026-11-24T05:31:31Z", container: pytorch-training, kernel: 6.18.44}
recovered:
  description: Whether a capture that was broken off had left something, which this run took back (in check mode, would).
  type: bool
  returned: with O(container_id)
  sample: false
actions:
  description: What was done, or in check mode would be.
  type: list
  elements: str
  returned: with O(container_id)
  sample: ["pause the task (pid 41235) and dump it", "resume the task", "write the image"]
sizes:
  description: Bytes of the CRIU images, of the writable layer and of memory volumes.
  type: dict
  returned: with O(container_id), when a checkpoint was taken
  sample: {criu: 1082130432, writable_layer: 4096, memory_volumes: 0}
seconds:
  description:
    - Seconds by phase. C(standstill) is how long the workload stood still, from the lock of its CUDA processes, or its
      pause, to its going on (C(cuda_suspend), C(pause), C(dump), C(layer), C(resume), C(cuda_resume)), memory volumes
      (C(volumes)) being a part of C(layer). With
      O(leave=stopped) it is how long it stood still until it could end. C(upload) is what follows while it runs, C(keep) what makes the
      dump a checkpoint on the node, and C(complete) the image of such a one.
  type: dict
  returned: with O(container_id), when a checkpoint was taken
  sample:
    {preflight: 0.12, pause: 0.01, dump: 0.21, layer: 0.03, resume: 0.01, standstill: 0.26, upload: 0.4, total: 1.1}
predicted:
  description:
    - What was foretold of C(seconds), in check mode what can be expected; empty where nothing is captured. C(standstill) and C(total), the
      C(phases), and the C(basis), V(earlier captures) of this node since it booted, or V(an estimate). C(concurrency) is how many
      workloads each processor captures at a time.
  type: dict
  returned: with O(container_id)
  sample:
    standstill: 0.3
    total: 1.2
    phases: {preflight: 0.12, pause: 0.01, dump: 0.25, layer: 0.03, resume: 0.01, upload: 0.78}
    basis: earlier captures
    concurrency: 1.0
huge_pages:
  description: What became of the switch for huge pages; empty where no CUDA process had to leave its GPU.
  type: dict
  returned: with O(container_id)
  sample: {wish: auto, switched: true, was: madvise, measured: {small: 0.021, huge: 0.011}}
failure:
  description:
    - What went wrong. C(code) is stable, C(outcome) is V(retryable), V(terminal) or V(unknown).
    - After a failed dump C(details) has C(kind), C(cause) and CRIU's C(errors). C(details.left_behind) is there when
      something could not be taken back, and the next run tries again.
    - When only the CUDA processes do not get their memory back, the image is complete all the same, and C(details.checkpoint)
      names it.
  type: dict
  returned: failure
  sample:
    code: criu_dump_failed
    outcome: terminal
    rpc: containerd.services.tasks.v1.Tasks/Checkpoint
    hint: Set criu.tcp_established, or close the connections first.
    details: {kind: tcp_established, errors: []}
"""

from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.gpuops.restore.plugins.module_utils import _module, _options
from ansible_collections.gpuops.restore.plugins.module_utils._capture import (
    batch,
    capture as capture_steps,
    complete,
    restorable,
    settle,
)
from ansible_collections.gpuops.restore.plugins.module_utils._capture.params import (
    AUTO,
    SWITCH,
    CaptureParams,
    CaptureResult,
)
from ansible_collections.gpuops.restore.plugins.module_utils._containerd.client import Client
from ansible_collections.gpuops.restore.plugins.module_utils._core import progress_file
from ansible_collections.gpuops.restore.plugins.module_utils._core.errors import RestoreError
from ansible_collections.gpuops.restore.plugins.module_utils._gpu import forks
from ansible_collections.gpuops.restore.plugins.module_utils._gpu.access import GpuAccess


def step(module: AnsibleModule, client: Client) -> dict[str, Any]:
    """Carry out one call of the module."""
    state, workloads = module.params["state"], module.params["workloads"]
    if workloads is not None:
        access = GpuAccess.from_options(module.params)
        jobs = [CaptureParams.from_options({**module.params, **workload}, access) for workload in workloads]
        return _of_all(
            module, batch.carry_out(client.another, state, jobs, module.params["parallel"], module.check_mode)
        )
    params = CaptureParams.from_options(module.params)
    states = {"present": capture_steps.captured, "completed": complete.completed, "settled": settle.settled}
    done = states[state](client, params, module.check_mode)
    for warning in done.warnings:
        module.warn(warning)
    return {**_shown(params, done), "diff": {"before": done.before, "after": done.after}}


def _shown(params: CaptureParams, done: CaptureResult) -> dict[str, Any]:
    result: dict[str, Any] = {
        "changed": done.changed,
        "checkpoint": {"name": params.name, "digest": done.digest or None, "container_id": params.container_id},
        "staged": done.staged,
        "detached": done.detached,
        "accepted": done.accepted,
        "ended": done.ended,
        "criu_options": done.criu_options,
        "unlinked_files": done.unlinked_files,
        "mounts_taken": done.mounts_taken,
        "added_by_runtime": done.added_by_runtime,
        "memory_volumes": done.memory_volumes,
        "hooks": done.hooks,
        "lock_attempts": done.lock_attempts,
        "recorded": done.facts.to_json(),
        "recovered": done.recovered,
        "actions": done.actions,
        "huge_pages": done.huge_pages,
        "predicted": done.predicted,
    }
    if done.sizes:
        result["sizes"] = done.sizes
        result["seconds"] = done.seconds
    return result


def _of_all(module: AnsibleModule, found: list[batch.Outcome]) -> dict[str, Any]:
    answers: dict[str, dict[str, Any]] = {}
    failed: dict[str, RestoreError] = {}
    for one in found:
        if one.result is not None:
            for warning in one.result.warnings:
                module.warn(warning)
            answers[one.params.container_id] = {**_shown(one.params, one.result), "failure": None}
        elif one.error is not None:
            failed[one.params.container_id] = one.error
            failure = {"msg": one.error.sentence(), "failure": one.error.failure().result()}
            answers[one.params.container_id] = {"changed": False, **failure}
    answer: dict[str, Any] = {
        "changed": any(one["changed"] for one in answers.values()),
        "workloads": answers,
        "diff": {
            when: {one.params.container_id: getattr(one.result, when) for one in found if one.result is not None}
            for when in ("before", "after")
        },
    }
    if failed:
        answer["failed"] = True
        answer["failure"] = next(iter(failed.values())).failure().result()
        answer["msg"] = f"{len(failed)} of {len(found)} workload(s) failed. " + " ".join(
            f"{name}: {error.sentence()}" for name, error in failed.items()
        )
    return answer


#: What each workload has by itself.
_WORKLOAD: dict[str, Any] = {
    "leave": {"type": "str", "choices": ["running", "paused", "stopped"], "default": "running"},
    "store": {"type": "str", "choices": ["node", "image", "both"], "default": "image"},
    **_options.GPU_MODE,
    "cuda_forks": {"type": "str", "choices": list(forks.CHOICES), "default": forks.DETACH},
    "accept": {"type": "list", "elements": "str", "choices": sorted(restorable.ACCEPTABLE), "default": []},
    "targets": {
        "type": "list",
        "elements": "dict",
        "default": [],
        "options": {
            "name": {"type": "str", "required": True},
            "driver": {"type": "str"},
            "gpus": {"type": "list", "elements": "str"},
        },
    },
    "criu": {
        "type": "dict",
        "default": {},
        "apply_defaults": True,
        "options": {
            **{
                name: {"type": "str", "choices": list(SWITCH), "default": AUTO}
                for name in (
                    "tcp_established",
                    "skip_in_flight",
                    "file_locks",
                    "ext_unix_sk",
                    "link_remap",
                    "ghost_limit",
                )
            },
            "ghost_limit_max": {"type": "int", "default": 4 << 30},
            "shell_job": {"type": "bool", "default": False},
            "empty_namespaces": {"type": "list", "elements": "str", "default": []},
            "extra": {"type": "list", "elements": "str", "default": []},
        },
    },
    **_options.MEMORY_VOLUMES,
    "before_capture": {"type": "dict", "options": _options.HOOK},
    "after_capture": {"type": "dict", "options": _options.HOOK},
}
ARGUMENT_SPEC: dict[str, Any] = {
    "container_id": {"type": "str"},
    "name": {"type": "str"},
    # Documented as a whole by the fragment ``workload.captures``.
    "workloads": {
        "type": "list",
        "elements": "dict",
        "options": {
            "container_id": {"type": "str", "required": True},
            "name": {"type": "str", "required": True},
            **_WORKLOAD,
            "force": {"type": "bool", "default": False},
        },
    },
    "parallel": {"type": "int", "default": 0},
    "state": {"type": "str", "choices": ["present", "completed", "settled"], "default": "present"},
    **_WORKLOAD,
    **_options.STAGING,
    "keep_staged": {"type": "bool", "default": False},
    **_options.LEASE,
    **_options.PROGRESS,
    "lease_seconds": {"type": "int", "default": 0},
    "checkpoint_timeout": {"type": "int", "default": 0},
    **_options.GPU,
    **_options.GPU_LOCK,
    **_options.HUGE_PAGES,
    **_options.OWNERSHIP,
    **_options.BUSY,
}


def main() -> None:
    """Entry point of the module."""
    _module.run(
        ARGUMENT_SPEC,
        step,
        board=progress_file.board,
        required_one_of=[("container_id", "workloads")],
        required_together=[("container_id", "name")],
        mutually_exclusive=[("container_id", "workloads")],
    )


if __name__ == "__main__":
    main()
