# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The options that every module of this collection has."""

from __future__ import annotations


class ModuleDocFragment:
    """Documentation of the connection to containerd."""

    DOCUMENTATION = r"""
options:
  address:
    description:
      - Path of the socket on which containerd listens, on the node.
      - The module's user needs the right to open it, which by default only root has.
      - If not set here, the environment variable E(CONTAINERD_ADDRESS) of the node is used.
    type: path
    default: /run/containerd/containerd.sock
  namespace:
    description:
      - The containerd namespace to work in. Everything that Kubernetes runs is in V(k8s.io).
      - This is containerd's own notion and has nothing to do with namespaces of Kubernetes or of the Linux kernel.
      - If not set here, the environment variable E(CONTAINERD_NAMESPACE) of the node is used.
    type: str
    default: k8s.io
  timeout:
    description:
      - Seconds that one call to containerd may take before it is given up.
      - It bounds a single call, not the whole module. Calls that move data have limits by O(minimum_rate).
    type: int
    default: 60
  minimum_rate:
    description:
      - Megabytes a second below which data that moves (a blob, a layer, memory) counts as stuck.
      - A call that moves data may take its bytes divided by this, and at least 1800 seconds; leases that the modules make for
        themselves last as long. To and from registries and compressors the limit is 1 MiB/s, or this where it is lower.
    type: float
    default: 50.0
requirements:
  - Linux
  - containerd >= 1.6
  - Python >= 3.9
  - grpcio (Python package; C(python3-grpcio) in Debian and Ubuntu)
  - protobuf >= 3.12 (Python package; C(python3-protobuf) in Debian and Ubuntu)
"""
