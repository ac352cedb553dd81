# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""OCI specs as containerd keeps them, for the tests of whatever reads specs."""

from __future__ import annotations

from typing import Any

POD_UID = "1b4e28ba-2fa1-11d2-883f-0016d3cca427"
KUBELET_POD = f"/var/lib/kubelet/pods/{POD_UID}"
SANDBOX_ID = "5f4dcc3b5aa765d61d8327deb882cf995f4dcc3b5aa765d61d8327deb882cf99"
SANDBOX = f"/var/lib/containerd/io.containerd.grpc.v1.cri/sandboxes/{SANDBOX_ID}"
SHM = f"/run/containerd/io.containerd.grpc.v1.cri/sandboxes/{SANDBOX_ID}/shm"
OLD_CGROUP = "kubepods-burstable-pod1b4e28ba.slice:cri-containerd:0123abcd"


def _bind(destination: str, source: str, *options: str) -> dict[str, Any]:
    """A bind mount as CRI writes it."""
    return {
        "destination": destination,
        "type": "bind",
        "source": source,
        "options": ["rbind", "rprivate", *options],
    }


def cri_spec() -> dict[str, Any]:
    """A GPU container of a pod, made by CRI on a node with systemd, with NVIDIA devices by CDI."""
    return {
        "ociVersion": "1.1.0",
        "process": {
            "user": {"uid": 1000, "gid": 1000, "additionalGids": [1000]},
            "args": ["python", "train.py", "--api-key", "sk-1234", "--epochs=3", "--db-password=hunter2"],
            "env": ["PATH=/usr/bin", "HOSTNAME=train-0", "HF_TOKEN=hf_abc", "CUDA_VISIBLE_DEVICES=0"],
            "cwd": "/workspace",
            "noNewPrivileges": True,
            "oomScoreAdj": 987,
        },
        "root": {"path": "rootfs"},
        "mounts": [
            {"destination": "/proc", "type": "proc", "source": "proc", "options": ["nosuid"]},
            {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "mode=755"]},
            _bind("/data", f"{KUBELET_POD}/volumes/kubernetes.io~csi/data/mount", "rw"),
            _bind("/scratch", f"{KUBELET_POD}/volumes/kubernetes.io~empty-dir/scratch", "rw"),
            _bind("/etc/hosts", f"{KUBELET_POD}/etc-hosts", "rw"),
            _bind("/dev/termination-log", f"{KUBELET_POD}/containers/train/8f3a", "rw"),
            _bind("/etc/hostname", f"{SANDBOX}/hostname", "rw"),
            _bind("/etc/resolv.conf", f"{SANDBOX}/resolv.conf", "rw"),
            _bind("/dev/shm", SHM, "rw"),
            _bind("/usr/lib/libcuda.so.1", "/usr/lib/x86_64-linux-gnu/libcuda.so.550.54", "ro"),
        ],
        "hooks": {
            "createContainer": [
                {
                    "path": "/usr/bin/nvidia-cdi-hook",
                    "args": ["nvidia-cdi-hook", "update-ldcache", "--folder", "/usr/lib"],
                    "env": ["NVIDIA_CTK_DEBUG=false"],
                }
            ]
        },
        "annotations": {
            "io.kubernetes.cri.container-name": "train",
            "io.kubernetes.cri.container-type": "container",
            "io.kubernetes.cri.sandbox-id": SANDBOX_ID,
            "cdi.k8s.io/nvidia": "nvidia.com/gpu=0",
            "example.com/team": "vision",
            "example.com/webhook-token": "t0ps3cret",
        },
        "linux": {
            "resources": {"memory": {"limit": 8589934592}, "cpu": {"shares": 2048}},
            "cgroupsPath": OLD_CGROUP,
            "namespaces": [
                {"type": "pid"},
                {"type": "ipc", "path": "/proc/1234/ns/ipc"},
                {"type": "uts", "path": "/proc/1234/ns/uts"},
                {"type": "mount"},
                {"type": "network", "path": "/proc/1234/ns/net"},
                {"type": "cgroup"},
            ],
            "devices": [
                {"path": "/dev/nvidia0", "type": "c", "major": 195, "minor": 0},
                {"path": "/dev/nvidiactl", "type": "c", "major": 195, "minor": 255},
            ],
            "mountLabel": "system_u:object_r:container_file_t:s0:c1,c2",
            "maskedPaths": ["/proc/kcore"],
            "readonlyPaths": ["/proc/sys", "/proc/sysrq-trigger"],
        },
    }


def ctr_spec() -> dict[str, Any]:
    """A container started by containerd's own client, all namespaces its own."""
    return {
        "ociVersion": "1.2.0",
        "process": {
            "terminal": True,
            "user": {"uid": 0, "gid": 0, "additionalGids": [0]},
            "args": ["sh", "-c", "while :; do date; sleep 1; done"],
            "env": ["PATH=/usr/bin:/bin", "TERM=xterm"],
            "cwd": "/",
        },
        "root": {"path": "rootfs"},
        "mounts": [
            {
                "destination": "/proc",
                "type": "proc",
                "source": "proc",
                "options": ["nosuid", "noexec", "nodev"],
            },
            {"destination": "/run", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "mode=755"]},
        ],
        "linux": {
            "cgroupsPath": "/default/counter",
            "readonlyPaths": ["/proc/sys", "/proc/sysrq-trigger"],
            "resources": {"devices": [{"allow": False, "access": "rwm"}]},
            "namespaces": [
                {"type": "pid"},
                {"type": "ipc"},
                {"type": "uts"},
                {"type": "mount"},
                {"type": "network"},
            ],
        },
    }
