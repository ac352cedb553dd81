# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Guarded imports of what a node may lack."""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
import traceback
from typing import Any

from .errors import NodeError

# gRPC's C core writes to stderr, which Ansible takes for a broken module.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")
# Forked helpers (probes) must not inherit gRPC's fork handlers.
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")

grpc: Any
GRPC_TRACEBACK: str | None = None
try:
    grpc = importlib.import_module("grpc")
except ImportError:
    grpc = None
    GRPC_TRACEBACK = traceback.format_exc()

PROTOBUF_TRACEBACK: str | None = None
try:
    from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
except ImportError:
    PROTOBUF_TRACEBACK = traceback.format_exc()


# The bindings of the NVIDIA driver are only ever imported by helper processes (see _child): a driver that hangs must
# not take the module along, and its library may have to be found in a place that only a fresh process can be told of.


def has_cuda() -> bool:
    """Whether cuda-bindings is installed (by itself or as a part of cuda-python)."""
    return _is_installed("cuda.bindings")


def has_nvml() -> bool:
    """Whether nvidia-ml-py is installed."""
    return _is_installed("pynvml")


def require_cuda() -> None:
    """Raise NodeError ``dependency_missing`` unless cuda-bindings is there to be imported by a helper process."""
    if not has_cuda():
        raise NodeError(
            "dependency_missing",
            f"{sys.executable} on this node cannot import cuda.bindings.driver.",
            "Set restore_node_dependency_source to venv, or install cuda-bindings 12.8 or later for it.",
            details={"missing": ["cuda-bindings"]},
        )


def _is_installed(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except ImportError:
        # The package above it is missing.
        return False


def require_grpc() -> None:
    """Raise NodeError ``dependency_missing`` unless grpcio and protobuf can be imported."""
    missing = [name for name, why in (("grpcio", GRPC_TRACEBACK), ("protobuf", PROTOBUF_TRACEBACK)) if why]
    if missing:
        raise NodeError(
            "dependency_missing",
            f"{sys.executable} on this node cannot import {' and '.join(missing)}.",
            "Set restore_node_dependency_source to venv or system, or install the packages for that interpreter.",
            details={"missing": missing, "traceback": GRPC_TRACEBACK or PROTOBUF_TRACEBACK},
        )


def descriptor_modules() -> tuple[Any, Any, Any]:
    """protobuf's descriptor_pb2, descriptor_pool and message_factory; NodeError when protobuf is missing."""
    require_grpc()
    return descriptor_pb2, descriptor_pool, message_factory
