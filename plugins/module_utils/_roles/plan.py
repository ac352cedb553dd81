# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a run would do, in words."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from . import images
from .problems import of_workload
from .results import mapping

_SHAPE = "%-20s %-24s %-6s %10s %9s  %s"
_UNITS = ("Bytes", "KB", "MB", "GB", "TB", "PB", "EB", "ZB", "YB")


def entry(known: Mapping[str, Any]) -> dict[str, Any]:
    """The plan for the workload ``name``."""
    name = known["name"]
    checkpoint = images.checkpoint_of(known["found"], name)
    restored = mapping(mapping(known["restored"].get("workloads")).get(name))
    problems = of_workload(known["problems"], name)
    failure = known["failures"].get(name)
    unseen = ["whatever the checkpoint needs; it can only be read once it is on the node"] if known["unseen"] else []
    return {
        "go": failure is None and not problems,
        "checkpoint": known["checkpoint"],
        "digest": checkpoint.get("digest", ""),
        "base_image": images.base_of(checkpoint).get("name") or "",
        "bytes": mapping(checkpoint.get("criu")).get("size") or 0,
        # How long its window will take; empty where nobody can tell.
        "predicted": restored.get("predicted") or mapping(known["checked"].get("predicted")).get(name) or {},
        "changes": [*mapping(known["stages"].get(name)).get("actions", []), *restored.get("actions", []), *unseen],
        "problems": [*problems, *([] if failure is None else [failure["msg"]])],
    }


def table(plans: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> list[str]:
    """The plans of workloads, by host and name, as lines for a screen."""
    lines = [_SHAPE % ("HOST", "WORKLOAD", "", "MEMORY", "WINDOW", "CHECKPOINT")]
    for host, of_host in plans.items():
        if not of_host:
            lines.append(_SHAPE % (host, "-", "NO-GO", "", "", "The host gave no answer."))
        for name, plan in of_host.items():
            lines += [_line(host, name, plan), *(f"    {line}" for line in _details(plan))]
    return lines


def _line(host: str, name: str, plan: Mapping[str, Any]) -> str:
    window = "?" if plan["changes"] else "-"
    if plan["predicted"]:
        window = f"~{plan['predicted']['seconds']:.1f} s"
    size = int(plan["bytes"])
    verdict = "GO" if plan["go"] else "NO-GO"
    return _SHAPE % (host, name, verdict, _readable(size) if size else "?", window, plan["checkpoint"])


def _details(plan: Mapping[str, Any]) -> Iterator[str]:
    predicted = plan["predicted"]
    if predicted:
        ahead = f"; before it {predicted['ahead']:.1f} s of reading ahead" if predicted["ahead"] >= 0.1 else ""
        yield f"window by {predicted['basis']}{ahead}"
    yield from (f"problem: {line}" for line in plan["problems"])
    if plan["go"]:
        yield from (f"would {line}" for line in plan["changes"])
        if not plan["changes"]:
            yield "nothing to do"


def _readable(size: int) -> str:
    """As Ansible's filter human_readable has it."""
    power = min((size.bit_length() - 1) // 10, len(_UNITS) - 1)
    return f"{size / (1 << 10 * power):.2f} {_UNITS[power]}"
