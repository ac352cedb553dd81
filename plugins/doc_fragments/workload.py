# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a restored workload is: its original, its container here, its task.

The modules of the single steps have these options by themselves, M(gpuops.restore.containerd_restore) has them of each
workload. A fragment is merged option by option, not deeper, so the whole of ``workloads`` is here.
"""

from __future__ import annotations

import textwrap

_ORIGINAL = r"""
digest:
  description:
    - The digest that the checkpoint has to have, as its capture returned it. Another one is refused, whatever its name.
    - Who gives it vouches for the checkpoint.
  type: str
metadata_content:
  description:
    - The text of a JSON file that describes the original, with C(originalImage) and, optionally, C(snapshotter),
      C(snapshotID) and C(ociSpec). It wins over what the checkpoint image says.
  type: str
image:
  description:
    - Reference of the base image, where it is another than the checkpoint or the metadata say. Its digest has to be the
      one that the checkpoint recorded.
  type: str
snapshotter:
  description:
    - Snapshotter to use instead of the recorded one.
  type: str
mounts:
  description:
    - Sources of bind mounts as they were, mapped to what they are on this node. A source below a given one is mapped with it.
    - Files of NVIDIA's driver that are not where they were are found by themselves, also those of another release, where this
      node has exactly one.
  type: dict
  default: {}
added_mounts:
  description:
    - Bind mounts that the original had and its spec does not name, as a runtime or a hook adds them and other tools' checkpoints
      do not tell. Their places in the container, and what is mounted there on this node.
    - What lacks is named by the preflight (C(mount_unnamed)), once the checkpoint is staged.
  type: dict
  default: {}
limits:
  description:
    - What becomes of limits that speak of another machine, such as a kubelet's pinning to processors and memory nodes, limits of huge
      pages of a size, or of block devices by number. V(keep) keeps all; what this node cannot have is refused (C(limits_unfit)).
    - V(fit) leaves out those that this node cannot have, and warns of each; the others stay.
  type: str
  choices: [keep, fit]
  default: keep
memory_volumes:
  description:
    - Which of the memory volumes that the checkpoint holds come back, each as a tmpfs of its own with the content that it had, below
      C(/run/gpuops-restore/volumes). V(auto) for all, V(none), or where they are in the container, such as V(/dev/shm). One whose source
      C(mounts) maps is left to you.
    - Containers that had one together have it together again if they are restored in one call; see C(docs/checkpoints.md).
  type: list
  elements: str
  default: [auto]
network:
  description:
    - V(host), V(none), or the path of a network namespace. Only a container that was checkpointed in a namespace given by
      path, as in a pod, can be moved to another one; CRIU restores any other network as it was.
    - C(cni:) and the path of a CNI configuration on the node, such as V(cni:/etc/cni/net.d/10-net.conflist), has the network made anew by the
      plugins that it names (in C(/opt/cni/bin), C(/usr/lib/cni) or C(/usr/libexec/cni)), once the namespace is there and before sockets come
      back. The device is called as it was; plugins with the capability C(ips) are asked for the addresses that were. For a namespace of the
      container's own, and instead of a pod's that is gone. It is taken away with the task.
    - Without it a namespace that still can be had is kept, and a pod's that is gone is replaced by an empty one.
  type: str
network_command:
  description:
    - A program of the node, by its absolute path, and its arguments, which make the network anew once the namespace is there, and before
      sockets come back. For a namespace of the container's own, instead of a pod's that is gone, or in one that C(network) names.
    - It is run as root, not by a shell, in the node's namespaces, with C(GPUOPS_RESTORE_NETNS), the path of the network namespace (as C(nsenter
      --net=PATH) takes it), C(GPUOPS_RESTORE_CONTAINER), the container's name, C(GPUOPS_RESTORE_NAMESPACE), that of containerd's namespace,
      and C(GPUOPS_RESTORE_ACTION=make) in its environment. It may take 60 seconds.
    - If it fails, the restore does (C(network_command_failed)), with the last of its output, and is taken back. With the task, and after a
      failed restore, it is run once more with C(GPUOPS_RESTORE_ACTION=remove); C(GPUOPS_RESTORE_NETNS) is empty then where the namespace is
      gone. In check mode it is not run.
  type: list
  elements: str
  default: []
verify_key:
  description:
    - Public SSH keys, as files C(*.pub) have them. The checkpoint has to be signed by one of them
      (M(gpuops.restore.containerd_checkpoint_signature)). Empty, nobody asks.
  type: list
  elements: str
  default: []
"""

_CONTAINER = r"""
snapshot_id:
  description:
    - Key of the new snapshot. The default is C(snapshotID) of the metadata, else C(gpuops-restore-) and the container's name.
  type: str
env:
  description:
    - Environment variables to add for processes that are executed in the container later. The restored process keeps its own.
    - Values of eight characters and more are masked wherever they occur in what the module returns.
  type: dict
  default: {}
cgroups_path:
  description:
    - Cgroup path in the format of the runtime's cgroup driver. The default is a fresh one named after the container.
  type: str
allow_hooks:
  description:
    - Keep the OCI hooks of the original.
  type: bool
  default: false
allow_annotations:
  description:
    - Annotations of CRI or CDI to keep; a name, or the beginning of one followed by C(*).
  type: list
  elements: str
  default: []
criu:
  description:
    - Options for CRIU, written to a configuration file of this container.
  type: dict
  default: {}
  suboptions:
    tcp:
      description:
        - What becomes of TCP connections; V(established) brings them back, V(close) closes them. With V(none) CRIU refuses
          a checkpoint that has some. V(auto) brings them back where the checkpoint records that it was taken with them, and closes
          where it records only sockets whose connection had ended.
      type: str
      choices: [auto, established, close, none]
      default: auto
    file_locks:
      description:
        - Restore file locks; V(auto) does where the checkpoint records them.
      type: str
      choices: ["auto", "true", "false"]
      default: auto
    ext_unix_sk:
      description:
        - Allow Unix sockets whose other end is outside of the container; V(auto) does where the checkpoint records them.
      type: str
      choices: ["auto", "true", "false"]
      default: auto
    manage_cgroups:
      description:
        - CRIU's way with cgroups. V(ignore) leaves them to runc, which is what a fresh cgroup needs.
      type: str
      choices: [ignore, none, props, soft, full, strict]
      default: ignore
    extra:
      description:
        - Further lines of CRIU's configuration file, such as C(ghost-limit 8M). Options that redirect files or run programs
          are refused.
      type: list
      elements: str
      default: []
"""

_ROUTE = r"""
route:
  description:
    - V(staged) has runc read the staged directory. V(descriptor) has containerd extract the images once more, a full
      copy of the process memory in its temporary directory, which the module removes after the start. Use it only
      where the staged directory cannot be had.
  type: str
  choices: [staged, descriptor]
  default: staged
"""

_OUTPUT = r"""
stdout:
  description:
    - Where the output goes from now on; an absolute path, made with mode 0600 and appended to, or a C(binary://) URI.
    - Without it the output is discarded, through a pipe, so that the process can be checkpointed again.
    - Input that was a pipe becomes one that stays open and silent; with a C(binary://) URI containerd gives none.
    - What a terminal shows is output, too; it stays open, and nothing is typed there.
  type: str
stderr:
  description:
    - The same for the error output. Where only one of both is given, it takes both.
  type: str
"""

_GPU_MAP = r"""
gpu_map:
  description:
    - For each GPU that the processes could see at their checkpoint, by UUID, the GPU to restore its memory to. Those that
      they did not use have to be listed, too (C(visible) of M(gpuops.restore.cuda_process_info)), each with a new one
      of its own, which has to be of the same chip. C(CUDA_VISIBLE_DEVICES) makes no difference.
    - A map that sends every GPU to itself is the same as none. Any other needs driver 580 or later.
  type: dict
  default: {}
"""

# What a workload can be told: M(gpuops.restore.containerd_checkpoint) has it as options, a restore of each workload.
_HOOK = r"""
command:
  description:
    - Command to execute in the container.
  type: list
  elements: str
command_seconds:
  description:
    - Seconds that it may take; 30 by default. Past them it is killed, and has failed.
  type: float
exit_status:
  description:
    - Exit status that it must have; 0 by default.
  type: int
http:
  description:
    - A request that is made once.
  type: dict
  suboptions:
    url:
      description:
        - The address.
      type: str
      required: true
    method:
      description:
        - How to ask.
      type: str
      choices: [GET, POST, PUT, PATCH, DELETE]
      default: POST
    body:
      description:
        - What to send along.
      type: str
    headers:
      description:
        - Headers of the request.
      type: dict
    status:
      description:
        - Statuses that are success; 200 by default.
      type: list
      elements: int
    seconds:
      description:
        - Seconds that the answer may take; 30 by default.
      type: float
    network:
      description:
        - Whose network namespace to ask from; the container's by default.
      type: str
      choices: [container, host]
    validate_certs:
      description:
        - Verify the certificate of https; done by default.
      type: bool
"""

# What only containerd_restore has.
_RESTORE = r"""
name:
  description:
    - Container id of the restored container.
  type: str
  required: true
checkpoint:
  description:
    - Name of the checkpoint image.
  type: str
  required: true
gpu:
  description:
    - Whether GPU memory has to come back.
    - V(auto) brings it back where there is some, and insists on it where the capture recorded GPU processes or the spec
      names GPU devices. V(required) fails without. V(none) never asks the driver.
  type: str
  choices: [auto, required, none]
  default: auto
vram:
  description:
    - Bytes that the checkpoint held on each GPU, by old UUID, if its capture did not record them and the estimate, the size
      of the memory images, is not good enough.
  type: dict
  default: {}
probe:
  description:
    - The proof that the workload works, exactly one of its C(command), C(file) and C(http), as for
      M(gpuops.restore.containerd_probe). It is made each time.
  type: dict
  default: {}
  suboptions:
    command:
      description:
        - Command to execute in the container.
      type: list
      elements: str
    command_seconds:
      description:
        - Seconds that it may take; 30 by default.
      type: float
    exit_status:
      description:
        - Exit status that it must have; 0 by default.
      type: int
    file:
      description:
        - File in the container that has to change.
      type: dict
      suboptions:
        path:
          description:
            - Its path in the container.
          type: str
          required: true
        seconds:
          description:
            - Within how many seconds; 10 by default.
          type: float
    http:
      description:
        - Address that has to answer.
      type: dict
      suboptions:
        url:
          description:
            - The address.
          type: str
          required: true
        status:
          description:
            - Statuses that are proof; 200 by default.
          type: list
          elements: int
        seconds:
          description:
            - Within how many seconds; 10 by default.
          type: float
        network:
          description:
            - Whose network namespace to ask from; the container's by default.
          type: str
          choices: [container, host]
        validate_certs:
          description:
            - Verify the certificate of https; done by default.
          type: bool
after_restore:
  description:
    - What the workload is told once it runs again with its GPU memory, before its C(probe); exactly one of C(command) and C(http). It is
      told once for each restore. If it fails, the restore has failed, and is taken back.
  type: dict
  suboptions:
"""

_RECORD = r"""
record:
  description:
    - Facts to keep in the workload's receipt.
  type: dict
  default: {}
"""

_READS = r"""
workloads:
  description:
    - Several workloads in one call, in place of O(checkpoint) and O(container_id). What is said here is said for each by itself; all other
      options are for all.
  type: list
  elements: dict
  suboptions:
    container_id:
      description:
        - As O(container_id).
      type: str
      required: true
    checkpoint:
      description:
        - As O(checkpoint).
      type: str
      required: true
"""

_CAPTURES = r"""
workloads:
  description:
    - Several workloads in one call, side by side as far as host memory and disk allow (O(parallel)), in place of O(container_id) and
      O(name). One that fails is taken back alone. What is said here is said for each by itself; all other options are for all.
  type: list
  elements: dict
  suboptions:
    container_id:
      description:
        - As O(container_id).
      type: str
      required: true
    name:
      description:
        - As O(name).
      type: str
      required: true
    leave:
      description:
        - As O(leave).
      type: str
      choices: [running, paused, stopped]
      default: running
    store:
      description:
        - As O(store).
      type: str
      choices: [node, image, both]
      default: image
    gpu:
      description:
        - As O(gpu).
      type: str
      choices: [auto, required, none]
      default: auto
    cuda_forks:
      description:
        - As O(cuda_forks).
      type: str
      choices: [detach, refuse]
      default: detach
    accept:
      description:
        - As O(accept).
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
        - As O(targets).
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
            - Version of its NVIDIA driver.
          type: str
        gpus:
          description:
            - Names of its GPUs, one for each.
          type: list
          elements: str
    criu:
      description:
        - As O(criu).
      type: dict
      default: {}
      suboptions:
        tcp_established: &switch
          description:
            - As the option of the same name in O(criu).
          type: str
          choices: ["auto", "true", "false"]
          default: auto
        skip_in_flight: *switch
        file_locks: *switch
        ext_unix_sk: *switch
        link_remap: *switch
        ghost_limit: *switch
        ghost_limit_max:
          description:
            - As O(criu.ghost_limit_max).
          type: int
          default: 4294967296
        shell_job:
          description:
            - As O(criu.shell_job).
          type: bool
          default: false
        empty_namespaces: &lines
          description:
            - As the option of the same name in O(criu).
          type: list
          elements: str
          default: []
        extra: *lines
    memory_volumes:
      description:
        - As O(memory_volumes).
      type: list
      elements: str
      default: [auto]
    force:
      description:
        - As O(force).
      type: bool
      default: false
"""
_CAPTURE_HOOKS = ("before_capture", "after_capture")


def _options(*parts: str) -> str:
    return "options:" + textwrap.indent("".join(parts), "  ")


class ModuleDocFragment:
    """Documentation of the options in ``_options`` that begin with ``WORKLOAD_``, and of ``workloads``."""

    # With a type: ansible-test takes every plain assignment here for a literal, and ends at one that is none.
    ORIGINAL: str = _options(_ORIGINAL)
    CONTAINER: str = _options(_CONTAINER)
    ROUTE: str = _options(_ROUTE)
    OUTPUT: str = _options(_OUTPUT)
    GPU_MAP: str = _options(_GPU_MAP)

    HOOKS: str = _options(
        *(f"\n{name}:\n  type: dict\n  suboptions:" + textwrap.indent(_HOOK, " " * 4) for name in _CAPTURE_HOOKS)
    )

    CAPTURES: str = _options(
        _CAPTURES,
        *(
            f"\n    {name}:\n      description:\n        - As O({name}).\n      type: dict\n      suboptions:"
            + textwrap.indent(_HOOK, " " * 8)
            for name in _CAPTURE_HOOKS
        ),
    )

    READS: str = _options(_READS + textwrap.indent(_ORIGINAL + _OUTPUT, " " * 4))

    METADATA = r"""
options:
  metadata:
    description:
      - Path on the node of a JSON file that describes the original, as O(metadata_content) does.
    type: path
"""

    START = r"""
options:
  alive_seconds:
    description:
      - Seconds for which the process has to stay alive after the start.
    type: float
    default: 1.0
  restore_timeout:
    description:
      - Seconds that CRIU may take. Past them the task is removed and the outcome is V(unknown).
      - V(0) is the size of the checkpoint at O(minimum_rate), and at least 1800.
    type: int
    default: 0
"""

    WORKLOADS: str = r"""
options:
  workloads:
    description:
      - What has to run.
    type: list
    elements: dict
    required: true
    suboptions:""" + textwrap.indent(
        _RESTORE + textwrap.indent(_HOOK, " " * 4) + _RECORD + _ORIGINAL + _CONTAINER + _ROUTE + _OUTPUT + _GPU_MAP,
        " " * 6,
    )
