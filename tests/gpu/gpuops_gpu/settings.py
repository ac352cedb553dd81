# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What can be set from outside, all by environment variables; README.md lists them."""

from __future__ import annotations

import dataclasses
import os
import pathlib
from collections.abc import Mapping, Sequence

USUAL = ("pattern", "capture", "park", "failures", "training", "four")
#: These need a second card, or minutes of their own, and run when they are named.
NAMED = ("programs", "several", "window", "ways", "leaving", "maintenance", "node")
SECTIONS = (*USUAL, *NAMED)
#: Of the section ``node``, the most telling first.
NODE_PARTS = ("abreast", "bounds", "turn", "ddp", "model", "window", "largest")
PLACES = ("disk", "tmpfs")
NAMESPACE = "gpuops-gpu"
GIB = 1 << 30


@dataclasses.dataclass(frozen=True)
class Settings:
    """Sizes in GiB of VRAM, times in seconds.

    base: everything that the test unpacks and makes; removed at the end unless ``keep``.
    gib: of the workload with a pattern. small: of the one in the failure cases. part: of each of the four processes
    that are timed. full_part: of each of the four that go through the playbook. window: of the workloads whose windows
    are measured, each in one and in four processes (``spread``), the page cache cold and warm (``caches``), in
    ``pairs`` runs of each side.
    leaving: what is captured either way, (processes, GiB of VRAM in each).
    dump: of the one that is dumped to each kind of place.
    node: parts of the section of that name. node_gib: of each card's workload in its part ``abreast``, at each of
    ``node_places``. node_margin: what the largest total leaves free, and less than its step beyond. node_proves: at
    which of the places the largest total is captured and restored, too.
    programs: of the section of that name, all if none is named; so many ``abreast``.
    rehearsal: no GPU; host memory stands in for VRAM, and the report says so.
    """

    base: pathlib.Path
    out: pathlib.Path
    gib: float
    small: float
    part: float
    full_part: float
    window: tuple[float, ...]
    spread: tuple[int, ...]
    caches: tuple[str, ...]
    pairs: int
    leaving: tuple[tuple[int, float], ...]
    dump: float
    node: tuple[str, ...]
    node_gib: tuple[float, ...]
    node_places: tuple[str, ...]
    node_margin: float
    node_proves: tuple[str, ...]
    steps: int
    seconds: float
    sections: tuple[str, ...]
    programs: tuple[str, ...]
    abreast: int
    keep: bool
    rehearsal: bool
    standin: pathlib.Path | None


def read(environment: Mapping[str, str] = os.environ) -> Settings:
    """Raises ValueError with a sentence when a value makes no sense."""

    def number(name: str, default: float) -> float:
        text = environment.get(name) or str(default)
        try:
            value = float(text)
        except ValueError:
            value = -1.0
        if value <= 0:
            raise ValueError(f"{name} is {text!r}, which is no positive number.")
        return value

    def names(name: str, default: Sequence[str], known: Sequence[str]) -> tuple[str, ...]:
        found = tuple(environment.get(name, "").replace(",", " ").split()) or tuple(default)
        unknown = [one for one in found if one not in known]
        if unknown:
            raise ValueError(f"{name} has {unknown[0]!r}; there are: {' '.join(known)}.")
        return found

    base = pathlib.Path(environment.get("GPUOPS_GPU_DIR") or "/opt/gpuops-gpu")
    standin = environment.get("GPUOPS_GPU_STANDIN")
    return Settings(
        base=base,
        out=pathlib.Path(environment.get("OUT") or "gpu-test-output").absolute(),
        gib=number("GPUOPS_GPU_GIB", 8),
        small=number("GPUOPS_GPU_SMALL_GIB", 1),
        part=number("GPUOPS_GPU_PART_GIB", 4),
        full_part=number("GPUOPS_GPU_FULL_PART_GIB", 1),
        window=tuple(float(size) for size in (environment.get("GPUOPS_GPU_WINDOW_GIB") or "8 16").split()),
        spread=tuple(int(number) for number in (environment.get("GPUOPS_GPU_SPREAD") or "1 4").split()),
        caches=tuple((environment.get("GPUOPS_GPU_CACHES") or "cold warm").split()),
        pairs=int(number("GPUOPS_GPU_PAIRS", 3)),
        leaving=tuple(map(_case, (environment.get("GPUOPS_GPU_LEAVING") or "8 16 40 4x4").split())),
        dump=number("GPUOPS_GPU_DUMP_GIB", 16),
        node=names("GPUOPS_GPU_NODE", NODE_PARTS, NODE_PARTS),
        node_gib=tuple(float(size) for size in (environment.get("GPUOPS_GPU_NODE_GIB") or "8 24").split()),
        node_places=names("GPUOPS_GPU_NODE_PLACES", ("disk",), PLACES),
        node_margin=number("GPUOPS_GPU_NODE_MARGIN_GIB", 12),
        node_proves=names("GPUOPS_GPU_NODE_PROVES", (), PLACES),
        steps=int(number("GPUOPS_GPU_STEPS", 200)),
        seconds=number("GPUOPS_GPU_SECONDS", 900),
        sections=names("GPUOPS_GPU_SECTIONS", USUAL, SECTIONS),
        programs=tuple(environment.get("GPUOPS_GPU_PROGRAMS", "").replace(",", " ").split()),
        abreast=int(number("GPUOPS_GPU_ABREAST", 1)),
        keep=bool(environment.get("GPUOPS_GPU_KEEP")),
        rehearsal=bool(environment.get("GPUOPS_GPU_REHEARSAL")),
        standin=pathlib.Path(standin) if standin else None,
    )


def _case(text: str) -> tuple[int, float]:
    """``16`` is one process with 16 GiB, ``4x4`` are four with 4 GiB in each."""
    processes, _, gib = text.rpartition("x")
    return int(processes or 1), float(gib)
