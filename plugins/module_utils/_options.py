# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Argument specs of the options that several modules share.

Each is documented by the fragment of the same name in plugins/doc_fragments; ansible-test compares the two.
"""

from __future__ import annotations

from typing import Any

from ._core import labels

Spec = dict[str, Any]

OWNERSHIP: Spec = {
    "owner": {"type": "str", "default": labels.DEFAULT_OWNER},
    "force": {"type": "bool", "default": False},
}
#: Public keys are no secrets.
VERIFY_KEY: Spec = {"verify_key": {"type": "list", "elements": "str", "default": [], "no_log": False}}
#: As ``_core.state_dir.STATE_ROOT``, which modules without files on the node are not sent for this.
STAGING: Spec = {"staging_dir": {"type": "path", "default": "/var/lib/gpuops-restore"}}
LEASE: Spec = {"lease": {"type": "str"}}
BUSY: Spec = {"busy_timeout": {"type": "float", "default": 30.0}}
#: The second is for the action plugin only, which reads the file of that name while the module runs.
PROGRESS: Spec = {"progress": {"type": "int", "default": 15}, "progress_id": {"type": "str"}}
PREPARED: Spec = {"assume_prepared": {"type": "bool", "default": False}}
HUGE_PAGES: Spec = {"huge_pages": {"type": "str", "choices": ["auto", "always", "keep"], "default": "auto"}}

#: Calls of the CUDA driver.
GPU: Spec = {"cuda_timeout": {"type": "int", "default": 600}, "driver_root": {"type": "path"}}
GPU_LOCK: Spec = {"lock_timeout": {"type": "float", "default": 10.0}}
#: Whether the driver is called at all. What that means differs, so each module documents it by itself.
GPU_MODE: Spec = {"gpu": {"type": "str", "choices": ["auto", "required", "none"], "default": "auto"}}
#: Content of tmpfs mounts from outside. Captures and restores each document it by themselves.
MEMORY_VOLUMES: Spec = {"memory_volumes": {"type": "list", "elements": "str", "default": ["auto"]}}
#: What a workload is told: a command in its container, or an HTTP request.
HOOK: Spec = {
    "command": {"type": "list", "elements": "str"},
    "command_seconds": {"type": "float"},
    "exit_status": {"type": "int"},
    "http": {
        "type": "dict",
        "options": {
            "url": {"type": "str", "required": True},
            "method": {"type": "str", "choices": ["GET", "POST", "PUT", "PATCH", "DELETE"], "default": "POST"},
            "body": {"type": "str", "no_log": True},
            "headers": {"type": "dict", "no_log": True},
            "status": {"type": "list", "elements": "int"},
            "seconds": {"type": "float"},
            "network": {"type": "str", "choices": ["container", "host"]},
            "validate_certs": {"type": "bool"},
        },
    },
}
#: Which processes are meant.
GPU_PROCESSES: Spec = {"container_id": {"type": "str"}, "pids": {"type": "list", "elements": "int"}}

#: What the restored process and its container were, and what they become here.
WORKLOAD_ORIGINAL: Spec = {
    "digest": {"type": "str"},
    "metadata_content": {"type": "str", "no_log": True},
    "image": {"type": "str"},
    "snapshotter": {"type": "str"},
    "mounts": {"type": "dict", "default": {}},
    "added_mounts": {"type": "dict", "default": {}},
    "limits": {"type": "str", "choices": ["keep", "fit"], "default": "keep"},
    **MEMORY_VOLUMES,
    "network": {"type": "str"},
    "network_command": {"type": "list", "elements": "str", "default": []},
    **VERIFY_KEY,
}
#: What of the host a container may have.
POLICY: Spec = {
    "runtimes": {
        "type": "list",
        "elements": "dict",
        "default": [],
        "options": {
            "name": {"type": "str", "required": True},
            "binary_name": {"type": "str"},
            "root": {"type": "path"},
            "no_pivot_root": {"type": "bool", "default": False},
        },
    },
    "policy": {
        "type": "dict",
        "default": {},
        "options": {
            "digests": {"type": "list", "elements": "str", "default": []},
            "own_captures": {"type": "bool", "default": True},
            "capabilities": {"type": "list", "elements": "str"},
            "host_namespaces": {
                "type": "list",
                "elements": "str",
                "choices": ["network", "pid", "ipc", "uts", "mount"],
            },
            "bind_sources": {"type": "list", "elements": "str"},
            "devices": {"type": "list", "elements": "str"},
            "sysctls": {"type": "list", "elements": "str"},
            "mount_types": {"type": "list", "elements": "str"},
            "seccomp_unconfined": {"type": "bool"},
            "privileged": {"type": "bool"},
            "host_control": {"type": "bool"},
        },
    },
}
WORKLOAD_CONTAINER: Spec = {
    "snapshot_id": {"type": "str"},
    "env": {"type": "dict", "default": {}, "no_log": True},
    "cgroups_path": {"type": "str"},
    "allow_hooks": {"type": "bool", "default": False},
    "allow_annotations": {"type": "list", "elements": "str", "default": []},
    "criu": {
        "type": "dict",
        "default": {},
        "options": {
            "tcp": {"type": "str", "choices": ["auto", "established", "close", "none"], "default": "auto"},
            "file_locks": {"type": "str", "choices": ["auto", "true", "false"], "default": "auto"},
            "ext_unix_sk": {"type": "str", "choices": ["auto", "true", "false"], "default": "auto"},
            "manage_cgroups": {
                "type": "str",
                "choices": ["ignore", "none", "props", "soft", "full", "strict"],
                "default": "ignore",
            },
            "extra": {"type": "list", "elements": "str", "default": []},
        },
    },
}
WORKLOAD_METADATA: Spec = {"metadata": {"type": "path"}}
WORKLOAD_OUTPUT: Spec = {"stdout": {"type": "str"}, "stderr": {"type": "str"}}
WORKLOAD_ROUTE: Spec = {"route": {"type": "str", "choices": ["staged", "descriptor"], "default": "staged"}}
WORKLOAD_START: Spec = {
    "alive_seconds": {"type": "float", "default": 1.0},
    "restore_timeout": {"type": "int", "default": 0},
}
DIFFERENCES: Spec = {
    "differences": {
        "type": "dict",
        "default": {},
        "options": {
            "fail_on": {
                "type": "list",
                "elements": "str",
                "default": [],
                "choices": [
                    "all",
                    "files",
                    "mounts",
                    "namespaces",
                    "network",
                    "sysctls",
                    "cgroup",
                    "limits",
                    "capabilities",
                    "no_new_privs",
                    "seccomp",
                    "identity",
                    "descriptors",
                    "processes",
                ],
            }
        },
    }
}
WORKLOAD_GPU_MAP: Spec = {"gpu_map": {"type": "dict", "default": {}}}
