# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import json
from html.parser import HTMLParser
from typing import Any

import pytest

from ansible_collections.gpuops.restore.plugins.filter.window_report import window_report

DIGEST = "sha256:" + "1" * 64


def record(name: str, phase: str, message: str = "", **more: Any) -> dict[str, Any]:
    history = [
        {"at": "2026-12-02T20:00:00Z", "phase": "planned"},
        {"at": "2026-12-02T20:00:10Z", "phase": "captured", "digest": DIGEST},
    ]
    if phase == "restored":
        history.append({"at": "2026-12-02T20:04:10Z", "phase": "restored"})
    return {
        "id": name,
        "called": name,
        "restored": name,
        "attempt": 1,
        "phase": phase,
        "message": message,
        "checkpoint": f"x/{name}:1",
        "digest": DIGEST,
        "gpu": True,
        "bytes": 3 << 30,
        "seen": {"capture": 2.5, "restore": 3.0},
        "predicted": {"restore": 2.8},
        "history": history,
        **more,
    }


HEARD: dict[str, Any] = {
    "gpu-a": {
        "node": {"phase": "done", "attempt": 1},
        "facts": {"kernel": "6.18.4", "driver": "580.159.04", "gpus": [{"uuid": "GPU-1", "name": "H100"}]},
        "workloads": [record("bert", "restored")],
        "problems": [],
    },
    "gpu-b": {
        "node": {"phase": "worked", "attempt": 1},
        "facts": {},
        "workloads": [record("api", "captured", "No <room> | on the card.")],
        "problems": ["The driver was updated."],
    },
    "gpu-c": {},
}


class Seen(HTMLParser):
    """The text of a page, its tags, and everything that it would fetch or run."""

    def __init__(self) -> None:
        super().__init__()
        self.text, self.fetched, self.open = "", list[str](), list[str]()

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        if tag in ("script", "link", "img", "iframe") or any(name in ("src", "href", "onclick") for name, _v in attrs):
            self.fetched.append(tag)
        if tag not in ("meta", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def test_the_document() -> None:
    found = window_report(HEARD, "document", "w1", "0.1.0")
    json.dumps(found)
    assert (found["version"], found["window"], found["collection"]) == (1, "w1", "0.1.0")
    totals = {key: found["totals"][key] for key in ("nodes", "done", "to_look_at", "workloads", "restored", "captured")}
    assert totals == {"nodes": 3, "done": 1, "to_look_at": 2, "workloads": 2, "restored": 1, "captured": 1}
    bert = found["nodes"][0]["workloads"][0]
    assert (bert["outage"], bert["seconds"]["restore"], bert["predicted"]["restore"]) == (240, 3.0, 2.8)
    assert found["nodes"][1]["workloads"][0]["outage"] is None
    assert (found["nodes"][2]["words"], found["nodes"][2]["look"]) == ("not begun", True)


def test_the_page_has_everything_and_needs_nothing() -> None:
    seen = Seen()
    seen.feed(window_report(HEARD, "page", "w1"))
    assert seen.fetched == [] and seen.open == []
    for part in ("Maintenance window w1", "gpu-b", "No <room> | on the card.", "outage 240 s", DIGEST, "580.159.04"):
        assert part in seen.text
    assert "The driver was updated." in seen.text and "(predicted 2.8 s)" in seen.text


def test_the_text_has_a_row_for_each_and_what_has_to_be_looked_at() -> None:
    text = window_report(HEARD, "markdown", "w1")
    assert "| gpu-a | done | bert | restored | 240 s | 2026-12-02T20:00:10Z | 2026-12-02T20:04:10Z |" in text
    assert "- gpu-b: The driver was updated." in text and "- gpu-b, api: No <room>" in text
    assert window_report(HEARD, "lines", "w1")[0] == "gpu-a: done"


def test_it_says_how_long_each_batch_took_and_what_is_left() -> None:
    spans: dict[str, Any] = {
        "gpu-a": {"hosts": ["gpu-a"], "begun": "100.0", "ended": "160.0"},
        "gpu-b": {"hosts": ["gpu-b"], "begun": 160.0, "ended": 230.0},
    }
    done = {"phase": "done", "attempt": 1}
    heard = {host: {**one, "batch": spans.get(host), "node": done} for host, one in HEARD.items()}
    found = window_report(heard, "document", "w1", serial=[1])
    assert [one["predicted"] for one in found["batches"]] == [None, 60.0]
    said = (
        "The last batch, with 1 node(s), took 70 s (predicted 60 s). The 1 node(s) that are left will take about 65 s."
    )
    assert (found["seconds_left"], found["pace"]) == (65.0, said)
    assert window_report(heard, "lines", "w1", serial=[1])[-1] == said
    assert said in window_report(heard, "markdown", "w1", serial=[1])
    assert said in window_report(heard, "page", "w1", serial=[1])


def test_what_an_earlier_attempt_has_left_is_not_shown() -> None:
    heard = {"gpu-a": {"node": {"phase": "done", "attempt": 2}, "workloads": [record("old", "planned")]}}
    assert window_report(heard, "document", "w1")["nodes"][0]["workloads"] == []


@pytest.mark.parametrize(
    ("since", "until", "outage"),
    [
        # The captures beside it took longer, and so did their images.
        ("2026-12-02T19:59:50Z", "", 260),
        ("", "2026-12-02T20:04:00Z", 230),
        ("2026-12-02T19:59:50Z", "2026-12-02T20:04:00Z", 250),
        ("", "", 240),
        # Of an earlier restore.
        ("", "2026-12-01T20:04:00Z", 240),
    ],
)
def test_an_outage_is_the_workload_s_own(since: str, until: str, outage: int) -> None:
    node = {**HEARD["gpu-a"], "workloads": [record("bert", "restored", stopped_at=since, back_at=until)]}
    (found,) = window_report({"gpu-a": node}, "document", "w1")["nodes"][0]["workloads"]
    assert found["outage"] == outage
    assert found["stopped_at"] == (since or "2026-12-02T20:00:10Z")


def test_what_a_reboot_has_ended_was_not_stopped_by_its_capture() -> None:
    times = ["2026-12-02T20:00:10Z", "2026-12-02T20:04:10Z", "2026-12-02T21:00:00Z", "2026-12-02T21:01:00Z"]
    phases = ["captured", "restored", "captured", "restored"]
    history = [{"at": at, "phase": phase} for at, phase in zip(times, phases)]
    earlier = {"stopped_at": "2026-12-02T19:59:50Z", "back_at": "2026-12-02T20:04:00Z"}
    again = {**record("bert", "restored", **earlier), "history": history}
    node = {**HEARD["gpu-a"], "workloads": [again]}
    (found,) = window_report({"gpu-a": node}, "document", "w1")["nodes"][0]["workloads"]
    assert (found["stopped_at"], found["outage"]) == ("2026-12-02T21:00:00Z", 60)


def parked(*phases: str) -> dict[str, Any]:
    """A history, in which each phase takes ten seconds."""
    times = [f"2026-12-02T20:{second // 60:02}:{second % 60:02}Z" for second in range(0, 10 * len(phases), 10)]
    return {"history": [{"at": at, "phase": phase} for at, phase in zip(times, phases)], "proof": "It runs."}


def test_what_was_parked_has_its_times_and_is_back() -> None:
    node = {"phase": "done", "method": "park", "attempt": 1}
    seen = {"park": 7.2, "resume": 1.0}
    records = [
        record("bert", "resumed", **parked("planned", "parked", "resumed", "resumed"), seen=seen),
        # Noted twice, with a message; and of an earlier attempt.
        record("api", "parked", "No room.", **parked("parked", "resumed", "planned", "parked", "parked")),
    ]
    found = window_report({"gpu-a": {**HEARD["gpu-a"], "node": node, "workloads": records}}, "document", "w1")
    assert (found["method"], found["totals"]["resumed"], found["totals"]["parked"]) == ("park", 1, 1)
    assert (found["totals"]["back"], found["nodes"][0]["method"]) == (1, "park")
    bert, api = found["nodes"][0]["workloads"]
    assert (bert["stopped_at"], bert["back_at"], bert["outage"]) == (
        "2026-12-02T20:00:10Z",
        "2026-12-02T20:00:20Z",
        # It stood still while it was being parked, too.
        18,
    )
    assert (api["stopped_at"], api["back_at"], api["outage"]) == ("2026-12-02T20:00:30Z", "", None)
    heard = {"gpu-a": {**HEARD["gpu-a"], "node": {**node, "phase": "returned"}, "workloads": records}}
    page = Seen()
    page.feed(window_report(heard, "page", "w1"))
    for part in ("1 of 2", "in host memory", "stopped 2026-12-02T20:00:10Z, back 2026-12-02T20:00:20Z. It runs."):
        assert part in page.text
    assert "given up, what was parked is back" in window_report(heard, "lines", "w1")[0]
    assert "| 18 s | 2026-12-02T20:00:10Z | 2026-12-02T20:00:20Z |" in window_report(heard, "markdown", "w1")


def test_what_was_evacuated_has_where_it_runs_and_both_moves() -> None:
    out = {"from": "gpu-a", "to": "s1", "digest": DIGEST, "stopped_at": "2026-12-02T20:00:10Z", "outage": 9}
    out["back_at"] = "2026-12-02T20:00:19Z"
    home = {**out, "from": "s1", "to": "gpu-a", "stopped_at": "2026-12-02T21:00:00Z", "back_at": "2026-12-02T21:00:07Z"}
    more = {"checkpoint": "", "digest": "", "spare": "s1", "out": "x/bert:w1", "home": "x/bert:w1.back"}
    records = [
        record("bert", "restored", moves=[out, {**home, "outage": 7}], **more),
        record(
            "api", "stays", "stays on s1: it runs with NVIDIA's driver 1, and gpu-a has 2 now.", moves=[out], **more
        ),
        record("web", "stays", moves=[{**out, "outage": None}], **more),
        record("job", "away", moves=[], **more),
    ]
    heard = {
        "gpu-a": {"node": {"phase": "done", "mode": "evacuate"}, "workloads": records, "facts": {}, "problems": []}
    }
    found = window_report(heard, "document", "w1")
    bert, api, web, job = found["nodes"][0]["workloads"]
    assert (found["mode"], found["nodes"][0]["mode"], found["nodes"][0]["look"]) == ("evacuate", "evacuate", True)
    assert [found["totals"][key] for key in ("back", "away", "stays", "restored")] == [1, 1, 2, 1]
    assert (bert["where"], api["where"], job["where"]) == ("gpu-a", "s1", "s1")
    assert (bert["stopped_at"], bert["back_at"]) == ("2026-12-02T20:00:10Z", "2026-12-02T21:00:07Z")
    assert (bert["outage"], api["outage"], web["outage"]) == (16, 9, None)
    assert (bert["checkpoint"], api["checkpoint"]) == ("x/bert:w1.back", "x/bert:w1")
    lines = window_report(heard, "lines", "w1")
    assert "    bert: restored, outage 9 + 7 s" in lines
    assert any(line.startswith("    api: stays, runs on s1, outage 9 s: stays on s1") for line in lines)
    page = window_report(heard, "page", "w1")
    for part in ("on spare nodes", "From gpu-a to s1, stopped 2026-12-02T20:00:10Z", "Runs on s1. From gpu-a to s1"):
        assert part in page
    assert "| stays, runs on s1 |" in window_report(heard, "markdown", "w1")
    heard["gpu-a"]["node"]["phase"] = "evacuated"
    assert window_report(heard, "lines", "w1")[0] == "gpu-a: evacuated, the work is not done"
