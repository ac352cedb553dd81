# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a capture records about the node and the process: the annotation ``io.gpuops.restore/facts`` of an image index.

Compact JSON, version 1. Whoever made the image wrote it, and no restore depends on it: what is of another type than it
should be counts as not recorded, what is not known here is passed over.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from .._core import strict_json
from .._core.strict_json import StrictJsonError

VERSION = 1


@dataclass(frozen=True)
class ProcessFacts:
    """A process with CUDA state, as it was before it left its GPUs."""

    #: Of GPU memory, on all GPUs; 0 for one that has CUDA state alone; None where the driver did not tell.
    bytes: int | None = None
    #: The same by GPU UUID.
    gpus: Mapping[str, int | None] = field(default_factory=dict)
    #: Its id within the container, which it has again after a restore; None where that was not recorded.
    pid: int | None = None


@dataclass(frozen=True)
class CardFacts:
    """A GPU on which processes had memory."""

    uuid: str
    index: int | None = None
    name: str = ""


@dataclass(frozen=True)
class GpuFacts:
    """The driver, the GPUs and the processes with CUDA state."""

    driver: str | None = None
    #: As ``13.0``.
    cuda: str | None = None
    cards: tuple[CardFacts, ...] = ()
    #: UUIDs of all GPUs that the processes could see, used or not: what a map onto other GPUs has to list.
    visible: tuple[str, ...] = ()
    #: None where they cannot be read.
    processes: tuple[ProcessFacts, ...] | None = None


@dataclass(frozen=True)
class Facts:
    """Facts of a node and of a task on it; empty where nothing was recorded."""

    container: str = ""
    #: Of the container and its pod, those that people give; a restored container has them for selections.
    labels: Mapping[str, str] = field(default_factory=dict)
    #: RFC 3339, UTC.
    taken_at: str = ""
    kernel: str = ""
    architecture: str = ""
    cpu_model: str = ""
    #: Flags of the CPU that programs depend on.
    cpu_features: tuple[str, ...] = ()
    runtime: str = ""
    #: Of runc.
    runtime_version: str = ""
    criu: str = ""
    #: ``v1``, ``hybrid`` or ``v2``.
    cgroup: str | None = None
    #: Of the processes, besides GPU memory.
    memory_bytes: int | None = None
    #: What laying out the writable layer takes, of ``_oci.depth``.
    written_steps: int | None = None
    #: What CRIU was told for the dump, by its own names; None where that was not recorded.
    criu_options: tuple[str, ...] | None = None
    base_image: str = ""
    base_image_digest: str | None = None
    #: What the container had of the host, as ``_oci.spec_rights`` names it; None where that was not recorded.
    rights: tuple[str, ...] | None = None
    #: None where no process had CUDA state, or nobody looked.
    gpu: GpuFacts | None = None
    #: Whether the capture looked for processes with CUDA state.
    gpu_examined: bool = False

    @classmethod
    def parse(cls, text: str) -> Facts:
        """From the annotation's text; empty where it is unreadable or of another version."""
        try:
            return cls.from_json(strict_json.parse_object(text))
        except StrictJsonError:
            return cls()

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Facts:
        """From the annotation, parsed."""
        if document.get("version") != VERSION or isinstance(document["version"], bool):
            return cls()
        cpu, runtime, base = (_mapping(document, key) for key in ("cpu", "runtime", "base_image"))
        gpu = _gpu(document.get("gpu"))
        return cls(
            container=_text(document, "container") or "",
            labels={key: value for key, value in _mapping(document, "labels").items() if isinstance(value, str)},
            taken_at=_text(document, "taken_at") or "",
            kernel=_text(document, "kernel") or "",
            architecture=_text(document, "architecture") or "",
            cpu_model=_text(cpu, "model") or "",
            cpu_features=_texts(cpu, "features"),
            runtime=_text(runtime, "name") or "",
            runtime_version=_text(runtime, "version") or "",
            criu=_text(document, "criu") or "",
            cgroup=_text(document, "cgroup"),
            memory_bytes=_size(document.get("memory_bytes")),
            written_steps=_size(document.get("written_steps")),
            criu_options=_texts(document, "criu_options") if "criu_options" in document else None,
            base_image=_text(base, "name") or "",
            base_image_digest=_text(base, "digest"),
            rights=_texts(document, "rights") if isinstance(document.get("rights"), list) else None,
            gpu=gpu,
            gpu_examined=gpu is not None or ("gpu" in document and document["gpu"] is None),
        )

    def render(self) -> str:
        """The annotation's text."""
        return json.dumps(self.to_json(), separators=(",", ":"), sort_keys=True)

    def to_json(self) -> dict[str, Any]:
        """The annotation as a document, as modules return it too; {} where nothing was recorded."""
        if self == Facts():
            return {}
        document: dict[str, Any] = {
            "version": VERSION,
            "container": self.container,
            "taken_at": self.taken_at,
            "kernel": self.kernel,
            "architecture": self.architecture,
            "cpu": {"model": self.cpu_model, "features": list(self.cpu_features)},
            "runtime": {"name": self.runtime, "version": self.runtime_version},
            "criu": self.criu,
            "cgroup": self.cgroup,
            "memory_bytes": self.memory_bytes,
            "base_image": {"name": self.base_image, "digest": self.base_image_digest},
        }
        if self.written_steps is not None:
            document["written_steps"] = self.written_steps
        if self.labels:
            document["labels"] = dict(self.labels)
        if self.rights is not None:
            document["rights"] = list(self.rights)
        if self.criu_options is not None:
            document["criu_options"] = list(self.criu_options)
        if self.gpu_examined:
            document["gpu"] = _gpu_document(self.gpu) if self.gpu else None
        return document

    @property
    def cuda_processes(self) -> tuple[ProcessFacts, ...]:
        """The processes with CUDA state."""
        return (self.gpu.processes or ()) if self.gpu else ()

    @property
    def visible_gpus(self) -> tuple[str, ...]:
        """The GPUs that the processes could see, used or not, by UUID."""
        return self.gpu.visible if self.gpu else ()

    @property
    def tells_vram(self) -> bool:
        """Whether the GPU memory of all processes is known, be it that there were none."""
        if self.gpu is None:
            return self.gpu_examined
        return self.gpu.processes is not None and all(process.bytes is not None for process in self.gpu.processes)

    def vram(self) -> dict[str, int]:
        """Bytes that the processes had on each GPU, by UUID; empty where that is not known."""
        found: dict[str, int] = {}
        for process in self.cuda_processes:
            for uuid, size in process.gpus.items():
                if size:
                    found[uuid] = found.get(uuid, 0) + size
        return found


def _gpu(value: Any) -> GpuFacts | None:
    if not isinstance(value, dict):
        return None
    cards = value.get("gpus")
    return GpuFacts(
        driver=_text(value, "driver"),
        cuda=_text(value, "cuda"),
        cards=tuple(
            CardFacts(card["uuid"], _size(card.get("index")), _text(card, "name") or "")
            for card in (cards if isinstance(cards, list) else [])
            if isinstance(card, dict) and isinstance(card.get("uuid"), str)
        ),
        visible=_texts(value, "visible"),
        processes=_processes(value.get("processes")),
    )


def _processes(value: Any) -> tuple[ProcessFacts, ...] | None:
    if not isinstance(value, list) or not all(isinstance(process, dict) for process in value):
        return None
    return tuple(
        ProcessFacts(
            _size(process.get("bytes")),
            {uuid: _size(size) for uuid, size in _mapping(process, "gpus").items()},
            _size(process.get("pid")),
        )
        for process in value
    )


def _gpu_document(gpu: GpuFacts) -> dict[str, Any]:
    document: dict[str, Any] = {
        "driver": gpu.driver,
        "cuda": gpu.cuda,
        "gpus": [{"uuid": card.uuid, "index": card.index, "name": card.name} for card in gpu.cards],
        "visible": list(gpu.visible),
    }
    if gpu.processes is not None:
        document["processes"] = [
            {"bytes": process.bytes, "gpus": dict(process.gpus), **({"pid": process.pid} if process.pid else {})}
            for process in gpu.processes
        ]
    return document


def _mapping(document: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    found = document.get(key)
    return found if isinstance(found, dict) else {}


def _text(document: Mapping[str, Any], key: str) -> str | None:
    found = document.get(key)
    return found if isinstance(found, str) else None


def _texts(document: Mapping[str, Any], key: str) -> tuple[str, ...]:
    found = document.get(key)
    return tuple(text for text in found if isinstance(text, str)) if isinstance(found, list) else ()


def _size(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None
