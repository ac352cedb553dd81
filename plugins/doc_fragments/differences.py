# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What becomes of a restore whose task is not as the captured one was."""

from __future__ import annotations


class ModuleDocFragment:
    """Documentation of the options in ``_options.DIFFERENCES``."""

    DOCUMENTATION = r"""
options:
  differences:
    description:
      - A capture records what its task has of the kernel, and a restore compares. What is other than it was, and was not asked for, is
        told in the result, in the receipt and as warnings.
    type: dict
    default: {}
    suboptions:
      fail_on:
        description:
          - Kinds of differences that fail the restore (C(task_differs)), which is taken back then. V(all) for each.
          - V(files) for those that the container had written and that are gone, or of another kind; owners, modes and attributes are given back.
          - V(mounts) for places, flags and kinds of mounts; V(namespaces) with the host name and the maps of users and groups; V(network)
            for devices, addresses and routes of a network of the container's own, and V(sysctls); V(cgroup) for the limits of its control
            group, and nested groups; V(limits), V(capabilities), V(no_new_privs), V(seccomp) and V(identity) (user, groups, umask, security
            label) of the processes; V(descriptors) for what each of their descriptors is; V(processes) for the processes themselves.
        type: list
        elements: str
        default: []
        choices:
          - all
          - files
          - mounts
          - namespaces
          - network
          - sysctls
          - cgroup
          - limits
          - capabilities
          - no_new_privs
          - seccomp
          - identity
          - descriptors
          - processes
"""
