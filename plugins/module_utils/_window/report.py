# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The report of a window: one document, and a page and a text made of it. Pure; made on the controller."""

from __future__ import annotations

import datetime
import html
import math
from collections.abc import Mapping, Sequence
from typing import Any

from .._core import text
from . import course, evacuation, pace

VERSION = 1
#: How a phase of a node is called in the report, and whether somebody has to look at it.
_NODES = {
    "": ("not begun", True),
    course.PLANNED: ("stopped before or in the capture", True),
    course.CAPTURED: ("captured, the work is not done", True),
    course.WORKING: ("the work did not end", True),
    course.WORKED: ("the work is done, not all is back", True),
    course.RETURNING: ("given up, not all of what was captured is back", True),
    course.RETURNED: ("given up, what was captured is back", True),
    course.SKIPPED: ("left alone", True),
    course.DONE: ("done", False),
}
#: And where workloads are parked instead.
_PARKING = {
    course.PLANNED: ("stopped before or in the parking", True),
    course.PARKED: ("parked, the work is not done", True),
    course.RETURNING: ("given up, not all of what was parked is back", True),
    course.RETURNED: ("given up, what was parked is back", True),
}
#: And where they are moved to spare nodes.
_EVACUATING = {
    course.PLANNED: ("stopped before or in the move", True),
    course.EVACUATED: ("evacuated, the work is not done", True),
    course.RETURNING: ("given up, not all of what was moved is back", True),
    course.RETURNED: ("given up, what was moved is back", True),
}
_STYLE = """
:root{color-scheme:light dark;--line:#8884;--good:#188038;--bad:#c5221f;--quiet:#777}
body{font:15px/1.45 system-ui,sans-serif;margin:0 auto;padding:1rem;max-width:64rem}
h1{font-size:1.4rem;margin:.2rem 0}h2{font-size:1.1rem;margin:1.6rem 0 .3rem}
.totals{display:flex;flex-wrap:wrap;gap:.5rem;margin:1rem 0}
.totals div{border:1px solid var(--line);border-radius:.5rem;padding:.4rem .8rem}
.totals b{display:block;font-size:1.3rem}
.good{color:var(--good)}.bad{color:var(--bad)}.quiet{color:var(--quiet)}
.card{border:1px solid var(--line);border-radius:.5rem;padding:.6rem .8rem;margin:.5rem 0;overflow-wrap:anywhere}
.line{display:flex;height:.7rem;border-radius:.35rem;overflow:hidden;background:var(--line);margin:.4rem 0}
.line i{display:block;min-width:2px}
.line i:nth-child(4n+1){background:#4285f4}.line i:nth-child(4n+2){background:#f9ab00}
.line i:nth-child(4n+3){background:#34a853}.line i:nth-child(4n){background:#a142f4}
ol{margin:.3rem 0;padding-left:1.3rem}code{font-size:.85em}
"""


def build(
    window: str, nodes: Mapping[str, Mapping[str, Any]], collection: str, now: str, serial: Any = "100%"
) -> dict[str, Any]:
    """The document. ``nodes``: by host, what was heard last: ``node``, ``workloads``, ``facts``, ``problems``.

    ``serial``: how the run makes batches of them.
    """
    done, over = pace.batches(nodes), pace.over(nodes)
    found = [_node(host, heard) for host, heard in nodes.items()]
    workloads = [one for node in found for one in node["workloads"]]
    return {
        "version": VERSION,
        "window": window,
        "made_at": now,
        "collection": collection,
        "method": ", ".join(sorted({node["method"] for node in found if node["phase"]})) or course.CHECKPOINT,
        "mode": ", ".join(sorted({node["mode"] for node in found if node["phase"]})) or course.IN_PLACE,
        "totals": {
            "nodes": len(found),
            "done": sum(node["phase"] == course.DONE for node in found),
            "to_look_at": sum(node["look"] for node in found),
            "workloads": len(workloads),
            **{
                phase.replace(" ", "_"): sum(one["phase"] == phase for one in workloads)
                for phase in (
                    course.RESTORED,
                    course.RESUMED,
                    course.CAPTURED,
                    course.PARKED,
                    course.AWAY,
                    course.STAYS,
                    course.PLANNED,
                    course.LEFT_OUT,
                    course.LOST,
                )
            },
            "back": sum(one["phase"] in course.BACK for one in workloads),
            "bytes": sum(one["bytes"] for one in workloads),
        },
        "batches": done,
        "seconds_left": pace.left(done, serial, len(nodes), over),
        "pace": pace.say(done, serial, len(nodes), over),
        "nodes": found,
    }


def _node(host: str, heard: Mapping[str, Any]) -> dict[str, Any]:
    node, facts = heard.get("node") or {}, heard.get("facts") or {}
    phase = str(node.get("phase", ""))
    attempt = int(node.get("attempt", 1))
    workloads = [_workload(one, host) for one in heard.get("workloads") or () if int(one.get("attempt", 1)) == attempt]
    problems = [str(one) for one in heard.get("problems") or () if one]
    method = str(node.get("method") or course.CHECKPOINT)
    mode = str(node.get("mode") or course.IN_PLACE)
    other = _PARKING if method == course.PARK else _EVACUATING if mode == course.EVACUATE else {}
    words, look = {**_NODES, **other}.get(phase, (phase, True))
    return {
        "host": host,
        "method": method,
        "mode": mode,
        "phase": phase,
        "words": words,
        "look": look or bool(problems) or any(one["message"] for one in workloads),
        "attempt": attempt,
        "problems": problems,
        "driver": facts.get("driver") or "",
        "kernel": facts.get("kernel") or "",
        "gpus": [dict(card) for card in facts.get("gpus") or ()],
        "history": list(node.get("history") or ()),
        "workloads": workloads,
    }


def _workload(record: Mapping[str, Any], host: str) -> dict[str, Any]:
    history = list(record.get("history") or ())
    stopped, back = _outing(history, str(record.get("stopped_at") or ""), str(record.get("back_at") or ""))
    outage = _outage(stopped, back, (record.get("seen") or {}).get("park"))
    moves = [dict(move) for move in record.get("moves") or ()]
    if moves:
        # It runs in between.
        stopped, back = moves[0]["stopped_at"], moves[-1]["back_at"]
        known = [move["outage"] for move in moves if move["outage"] is not None]
        outage = sum(known) if len(known) == len(moves) else None
        last = {"digest": moves[-1]["digest"], "checkpoint": record["home" if moves[-1]["to"] == host else "out"]}
        record = {**record, **last}
    return {
        "name": record["called"],
        "container": record["id"],
        "restored": record["restored"],
        "phase": record["phase"],
        "message": record.get("message") or "",
        "checkpoint": record["checkpoint"],
        "digest": record.get("digest") or "",
        "gpu": bool(record.get("gpu")),
        "bytes": int(record.get("bytes") or 0),
        "seconds": {key: value for key, value in (record.get("seen") or {}).items() if value is not None},
        "predicted": {key: value for key, value in (record.get("predicted") or {}).items() if value is not None},
        "proof": record.get("proof") or "",
        "stopped_at": stopped,
        "back_at": back,
        "outage": outage,
        "where": evacuation.where(record, host),
        "moves": moves,
        "history": history,
    }


def _outing(history: Sequence[Mapping[str, Any]], since: str, until: str) -> tuple[str, str]:
    """When it last came to stand still, and was back; each empty where it was not. Messages are noted anew.

    ``since``, ``until``: when its capture stopped it and its restore was through. Both are noted only once all captures
    or restores of the node are.
    """
    stopped, back, out = "", "", False
    for entry in history:
        phase, at = entry.get("phase"), str(entry.get("at", ""))
        if phase in course.WAITING and not out:
            # One that came back and is gone again, by a reboot, was not stopped by its capture.
            stopped, back, out = since if back < since < at else at, "", True
        elif phase in course.BACK and (out or not back):
            back, out = until if stopped < until <= at else at, False
    return stopped, back


def _time(moment: Any) -> datetime.datetime | None:
    try:
        return datetime.datetime.strptime(str(moment), text.UTC)
    except ValueError:
        return None


def _outage(stopped: str, back: str, parking: float | None) -> int | None:
    """Seconds from its standstill to its return; None where it is not back. ``parking``: before it was noted."""
    begun, ended = _time(stopped), _time(back)
    if begun is None or ended is None:
        return None
    return int((ended - begun).total_seconds() + math.ceil(parking or 0))


def page(report: Mapping[str, Any]) -> str:
    """One self-contained page: no script, nothing that is fetched."""
    totals = report["totals"]
    shown = [
        ("nodes done", f"{totals['done']} of {totals['nodes']}", totals["done"] == totals["nodes"]),
        ("workloads back", f"{totals['back']} of {totals['workloads']}", totals["back"] == totals["workloads"]),
        ("to look at", str(totals["to_look_at"]), not totals["to_look_at"]),
        ("in host memory" if report["method"] == course.PARK else "captured", _size(totals["bytes"]), None),
    ]
    if course.EVACUATE in report["mode"]:
        away = totals[course.AWAY] + totals[course.STAYS]
        shown.insert(2, ("on spare nodes", str(away), None))
    cards = "".join(
        f'<div class="{"" if good is None else "good" if good else "bad"}"><b>{_text(value)}</b>{_text(name)}</div>'
        for name, value, good in shown
    )
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<title>Window {_text(report['window'])}</title><style>{_STYLE}</style></head><body>"
        f"<h1>Maintenance window {_text(report['window'])}</h1>"
        f'<p class="quiet">{_text(report["made_at"])} · gpuops.restore {_text(report["collection"])}</p>'
        f'<p class="quiet">{_text(report["pace"])}</p>'
        f'<div class="totals">{cards}</div>{"".join(map(_section, report["nodes"]))}</body></html>\n'
    )


def _section(node: Mapping[str, Any]) -> str:
    mark = "bad" if node["look"] else "good"
    facts = " · ".join(
        part
        for part in (
            f"kernel {node['kernel']}" if node["kernel"] else "",
            f"driver {node['driver']}" if node["driver"] else "",
            f"{len(node['gpus'])} GPU(s)" if node["gpus"] else "",
            f"attempt {node['attempt']}" if node["attempt"] > 1 else "",
        )
        if part
    )
    lines = "".join(f'<p class="bad">{_text(line)}</p>' for line in node["problems"])
    return (
        f'<h2>{_text(node["host"])} <span class="{mark}">{_text(node["words"])}</span></h2>'
        f'<p class="quiet">{_text(facts)}</p>{lines}{"".join(map(_card, node["workloads"]))}'
    )


def _card(one: Mapping[str, Any]) -> str:
    stays = one["phase"] == course.STAYS and not one["message"]
    mark = "good" if one["phase"] in course.BACK or stays else "bad"
    more = [
        f"outage {one['outage']} s" if one["outage"] is not None else "",
        _size(one["bytes"]) if one["bytes"] else "",
        "GPU memory" if one["gpu"] else "",
        *(_seconds(key, value, one["predicted"].get(key)) for key, value in one["seconds"].items()),
    ]
    message = f'<p class="bad">{_text(one["message"])}</p>' if one["message"] else ""
    back = f"container {one['container']}, back as {one['restored']}"
    if one["back_at"]:
        back = f"stopped {one['stopped_at']}, back {one['back_at']}. {one['proof']} {back}"
    if one["moves"]:
        back = " ".join([f"Runs on {one['where']}." if one["where"] else "", *map(_move, one["moves"])]).strip()
    digest = f"<br><code>{_text(one['checkpoint'])} {_text(one['digest'])}</code>"
    steps = "".join(
        f"<li>{_text(entry.get('at', ''))} {_text(entry.get('phase', ''))}"
        f"{': ' + _text(entry['message']) if entry.get('message') else ''}</li>"
        for entry in one["history"]
    )
    return (
        f'<div class="card"><b>{_text(one["name"])}</b> <span class="{mark}">{_text(one["phase"])}</span> '
        f'<span class="quiet">{_text(" · ".join(part for part in more if part))}</span>'
        f"{_bar(one['history'])}{message}<ol>{steps}</ol>"
        f'<span class="quiet">{_text(back)}{digest}</span></div>'
    )


def _move(move: Mapping[str, Any]) -> str:
    took = f", outage {move['outage']} s" if move["outage"] is not None else ""
    when = f", stopped {move['stopped_at']}, back {move['back_at']}" if move["back_at"] else ""
    return f"From {move['from']} to {move['to']}{when}{took}."


def _bar(history: Sequence[Mapping[str, Any]]) -> str:
    """A time line: each phase as long as it took to the next."""
    times = [(entry.get("phase", ""), _time(entry.get("at"))) for entry in history]
    known = [(phase, at) for phase, at in times if at is not None]
    parts = [(phase, max((after - at).total_seconds(), 0.0)) for (phase, at), (_next, after) in zip(known, known[1:])]
    whole = sum(seconds for _phase, seconds in parts)
    if not whole:
        return ""
    drawn = "".join(
        f'<i style="width:{100 * seconds / whole:.1f}%" title="{_text(phase)} {seconds:.0f} s"></i>'
        for phase, seconds in parts
    )
    return f'<div class="line">{drawn}</div>'


def markdown(report: Mapping[str, Any]) -> str:
    """The same as text."""
    totals = report["totals"]
    lines = [
        f"# Maintenance window {report['window']}",
        "",
        f"{report['made_at']}: {totals['done']} of {totals['nodes']} node(s) done, {totals['back']} of "
        f"{totals['workloads']} workload(s) back, {totals['to_look_at']} node(s) to look at.",
        *([report["pace"]] if report["pace"] else []),
        "",
        "| node | state | workload | phase | outage | stopped | back | digest |",
        "|---|---|---|---|---|---|---|---|",
    ]
    told = []
    for node in report["nodes"]:
        rows = node["workloads"] or [{}]
        for one in rows:
            outage = f"{one['outage']} s" if one.get("outage") is not None else ""
            cells = (
                node["host"],
                node["words"],
                one.get("name", ""),
                _standing(one) if one else "",
                outage,
                one.get("stopped_at", ""),
                one.get("back_at", ""),
                one.get("digest", ""),
            )
            lines.append("| " + " | ".join(_cell(cell) for cell in cells) + " |")
        told += [f"- {node['host']}: {line}" for line in node["problems"]]
        told += [f"- {node['host']}, {one['name']}: {one['message']}" for one in node["workloads"] if one["message"]]
    if told:
        lines += ["", "## To look at", "", *told]
    return "\n".join(lines) + "\n"


def lines(report: Mapping[str, Any]) -> list[str]:
    """One line for each node and workload, for a screen."""
    found = []
    for node in report["nodes"]:
        found.append(f"{node['host']}: {node['words']}")
        found += [f"    problem: {line}" for line in node["problems"]]
        for one in node["workloads"]:
            outage = f", outage {one['outage']} s" if one["outage"] is not None else ""
            if one["moves"] and one["outage"] is not None:
                outage = f", outage {' + '.join(str(move['outage']) for move in one['moves'])} s"
            found.append(
                f"    {one['name']}: {_standing(one)}{outage}{': ' + one['message'] if one['message'] else ''}"
            )
    return [*found, report["pace"]] if report["pace"] else found


def _standing(one: Mapping[str, Any]) -> str:
    """The workload's phase, with its spare node where it is on one."""
    away = one["phase"] in (course.AWAY, course.STAYS)
    return f"{one['phase']}, runs on {one['where']}" if away else str(one["phase"])


def _seconds(name: str, seen: float, predicted: float | None) -> str:
    return f"{name} {seen:.1f} s" + (f" (predicted {predicted:.1f} s)" if predicted is not None else "")


def _size(size: int) -> str:
    return f"{size / (1 << 30):.2f} GiB" if size >= 1 << 28 else f"{size / (1 << 20):.1f} MiB"


def _text(value: Any) -> str:
    return html.escape(str(value))


def _cell(value: Any) -> str:
    return str(value).replace("|", "\\|").replace("\n", " ")
