# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What of the host a restored container may have; see ``_options.POLICY``."""

from __future__ import annotations


class ModuleDocFragment:
    """Documentation of the options in ``_options.POLICY``."""

    DOCUMENTATION = r"""
options:
  runtimes:
    description:
      - The runtimes that may run restored containers. A checkpoint that names another one is refused, for the name of a runtime and the
        programs and directories among its options are the host's.
      - Of entries with the recorded name, the one with the recorded program is taken, else the first, with a warning. Of the recorded
        options, the cgroup driver, the session keyring and the owner of standard input and output are taken over, and nothing else.
      - Without it, the node's default runtime, as containerd's configuration has it, and V(io.containerd.runc.v2).
    type: list
    elements: dict
    default: []
    suboptions:
      name:
        description:
          - Name of the runtime, such as V(io.containerd.runc.v2), or the path of its shim.
        type: str
        required: true
      binary_name:
        description:
          - The program that the shim runs; runc where it is not given.
        type: str
      root:
        description:
          - Directory in which runc keeps its states; the shim's own where it is not given.
        type: path
      no_pivot_root:
        description:
          - For nodes whose root file system is a ramdisk.
        type: bool
        default: false
  policy:
    description:
      - What of the host a restored container may have, beyond what containerd gives each. Whatever is asked for and not allowed is refused
        before anything is made (C(policy_refused)), with a list of all of it and the key that allows each.
      - A key that is not given allows what the container had when it was captured, if the checkpoint is known, that is, if this node
        captured it, if O(policy.digests) or the workload's C(digest) names it, or if it is signed as C(verify_key) asks. For any other
        checkpoint it allows nothing but what is said at the key. A key that is given is the whole truth, for known checkpoints too; an
        empty list allows nothing.
      - What the operator says of a workload, sources in C(mounts) and its C(network), needs no other permission.
    type: dict
    default: {}
    suboptions:
      digests:
        description:
          - Digests of checkpoints that the operator vouches for.
        type: list
        elements: str
        default: []
      own_captures:
        description:
          - Whether checkpoints that this node captured itself are known, as long as their image stays in containerd.
        type: bool
        default: true
      capabilities:
        description:
          - Capabilities beyond containerd's usual fourteen, such as V(SYS_PTRACE); V(all) for all.
        type: list
        elements: str
      host_namespaces:
        description:
          - Namespaces of the host; V(network) also allows another one that the spec names by path.
        type: list
        elements: str
        choices: [network, pid, ipc, uts, mount]
      bind_sources:
        description:
          - Directories of the host below which sources of bind mounts may lie, by their names and by what their links lead to; one that
            ends in C(:ro) allows mounts that can only be read.
          - Without it V(/srv), V(/mnt), V(/media), V(/data) and V(/scratch), the programs and libraries below V(/usr:ro) and V(/lib:ro),
            and what NVIDIA's driver adds.
        type: list
        elements: str
      devices:
        description:
          - Devices beyond the GPUs' (V(/dev/nvidia0) and the like, V(/dev/dri)), by path, as C(c 10:229), or C(net:) and the name of a
            network device; V(all) for all.
        type: list
        elements: str
      sysctls:
        description:
          - Kernel settings beyond those that Kubernetes calls safe, or the beginning of some followed by C(*).
        type: list
        elements: str
      mount_types:
        description:
          - Types of file systems to mount beyond the kernel's own, such as V(nfs) or V(ext4).
        type: list
        elements: str
      seccomp_unconfined:
        description:
          - Processes without a seccomp filter. Without it they are allowed, as containerd by itself and kubelet by default have none.
        type: bool
      privileged:
        description:
          - A writable C(/proc/sys), C(/sys) or control group file system, mounts that reach the host, SELinux labels without limits.
          - V(true) also allows all capabilities and devices, and no seccomp filter, where these keys are not given.
        type: bool
      host_control:
        description:
          - Mounts of C(/), of containerd's socket or another that rules the host, or of a directory that holds one.
        type: bool
"""
