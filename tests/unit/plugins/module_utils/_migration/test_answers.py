# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""From registered results to verdicts, by the filters: whatever is no good answer means that nothing is known."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from ansible_collections.gpuops.restore.plugins.filter.migration_copies import migration_copies
from ansible_collections.gpuops.restore.plugins.filter.migration_plan import migration_plan
from ansible_collections.gpuops.restore.plugins.filter.migration_verdicts import migration_verdicts
from ansible_collections.gpuops.restore.plugins.module_utils._migration.decisions import Seen

DIGEST = "sha256:" + "a" * 64
NAME = "example.test/job:moved"
RECORD = {
    "id": "0a1b2c3d4e5f",
    "source": "as-it-was-called",
    "target": "gpu-b",
    "source_name": "job",
    "name": "moved",
    "checkpoint": NAME,
    "digest": DIGEST,
    "state": "captured",
    "directory": "/var/tmp",
    "reference": "",
}
MIGRATION = {
    "id": "ffffffffffff",
    "source": "gpu-a",
    "target": "gpu-b",
    "directory": "/var/tmp",
    "registry": "",
    "workloads": [{"name": "moved", "source_name": "job", "checkpoint": NAME, "probe": {}}],
}
HELD = Seen(exists=True, task="PAUSED", capture="held", captured_as=NAME, captured_digest=DIGEST).to_json()
PROVED = Seen(exists=True, checkpoint=DIGEST, task="RUNNING", receipt=DIGEST).to_json()
UNPROVED = {**PROVED, "receipt": ""}
ABSENT = Seen().to_json()

#: What a task may leave in a registered variable, and none of it an answer.
SILENT: list[dict[str, Any]] = [
    {},
    {"unreachable": True, "msg": "Failed to connect to the host"},
    {"skipped": True, "skip_reason": "Conditional result was False"},
    {"failed": True, "msg": "MODULE FAILURE"},
    # failed_when: false hides that it failed.
    {"failed": False, "failed_when_result": False, "msg": "MODULE FAILURE", "rc": 1},
    {"failed": False, "msg": "no", "failure": {"code": "socket_absent"}, "containers": {"moved": PROVED, "job": HELD}},
    {"unreachable": True, "containers": {"moved": PROVED, "job": HELD}, "records": []},
]


def looked(**containers: Any) -> dict[str, Any]:
    return {
        "changed": False,
        "records": [copy.deepcopy(RECORD)],
        "unreadable": [],
        "places": [],
        "containers": containers,
    }


SOURCE = looked(job=HELD)


def done(**result: Any) -> dict[str, Any]:
    """A result of a loop over copies or verdicts."""
    item = {"record": copy.deepcopy(RECORD)}
    return {
        "changed": True,
        "failed": False,
        "ansible_loop_var": "gpuops_settle_item",
        "gpuops_settle_item": item,
        **result,
    }


ENDED = [done(actions=["end it"]), done(actions=[]), done(directory="", staged=False), done(actions=[], image={})]


def verdict(answer: Any = SOURCE, look: Any = None, ended: Any = (), **more: Any) -> dict[str, Any]:
    (found,) = migration_verdicts(answer, "gpu-a", {"gpu-b": {"look": look, "ended": list(ended)}}, **more)
    return found


def test_proved_ends_and_what_is_gone_goes_on() -> None:
    found = verdict(look=looked(moved=PROVED))
    assert (found["where"], found["leave"], found["open"]) == ("target", "stopped", False)
    assert found["record"]["source"] == "gpu-a"
    assert (found["place"], found["hosts"]) == ("/var/tmp/gpuops-migrate-0a1b2c3d4e5f", ["gpu-a", "gpu-b"])
    assert (found["cleared"]["directory"], found["uncleared"]["directory"]) == ("", "/var/tmp")
    found = verdict(look=looked(moved=ABSENT), ended=ENDED)
    assert (found["where"], found["leave"], found["dropped"], found["forget"]) == ("source", "running", True, True)
    assert found["message"] == "job: goes on on gpu-a"


@pytest.mark.parametrize("look", [*SILENT, None, "text", looked()])
def test_a_target_that_gives_no_answer_is_unknown(look: Any) -> None:
    found = verdict(look=look, ended=ENDED)
    assert (found["where"], found["leave"], found["open"]) == ("paused", "", True)
    assert "gpu-b cannot be asked" in found["message"]


@pytest.mark.parametrize("targets", [{}, {"gpu-b": {}}, {"gpu-b": None}, {"gpu-c": {"look": looked(moved=PROVED)}}])
def test_a_target_that_was_not_asked_is_unknown(targets: dict[str, Any]) -> None:
    (found,) = migration_verdicts(SOURCE, "gpu-a", targets)
    assert found["where"] == "paused"


@pytest.mark.parametrize("bad", SILENT)
def test_a_copy_is_ended_only_if_all_that_ends_it_succeeded(bad: dict[str, Any]) -> None:
    for ended in ([done(**bad), done(actions=[])], [done(actions=["end it"]), done(**bad)], [done(**bad)]):
        found = verdict(look=looked(moved=ABSENT), ended=ended)
        assert (found["where"], found["leave"]) == ("paused", "")
    other = done(actions=[])
    other["gpuops_settle_item"]["record"]["name"] = "another"
    assert verdict(look=looked(moved=ABSENT), ended=[other])["where"] == "paused"


@pytest.mark.parametrize("code", ["image_other_digest", "image_not_ours"])
def test_an_image_of_somebody_else_does_not_matter(code: str) -> None:
    ended = [*ENDED, done(msg="It is another.", failure={"code": code})]
    assert verdict(look=looked(moved=ABSENT), ended=ended)["where"] == "source"
    ended = [*ENDED, done(msg="Another run is at it.", failure={"code": "busy"})]
    assert "Another run is at it" in verdict(look=looked(moved=ABSENT), ended=ended)["message"]


def test_templates_find_the_values_not_methods_of_a_dictionary() -> None:
    assert [key for key in verdict(look=looked(moved=PROVED)) if hasattr({}, key)] == []


@pytest.mark.parametrize("answer", SILENT)
def test_a_source_that_gives_no_answer_is_known_by_this_run_alone(answer: dict[str, Any]) -> None:
    assert migration_verdicts(answer, "gpu-a", {}) == []
    known = [{**RECORD, "place": "/var/tmp/gpuops-migrate-0a1b2c3d4e5f", "path": "job.0a1b2c3d4e5f.json"}]
    found = verdict(answer, looked(moved=PROVED), known=known)
    assert (found["where"], found["leave"]) == ("paused", "")
    assert "It runs on gpu-b." in found["message"]


def test_what_came_of_it() -> None:
    good = verdict(look=looked(moved=PROVED), settled=[done(actions=["end job"])])
    assert good["where"] == "target"
    for settled in ([], [done(failed=True, msg="Another run is at it.")], [{"unreachable": True}]):
        kept = verdict(look=looked(moved=PROVED), settled=settled)
        assert (kept["where"], kept["state"], kept["clears"]) == ("paused", "captured", False)
    assert (
        "Another run is at it"
        in verdict(look=looked(moved=PROVED), settled=[done(failed=True, msg="Another run is at it.")])["message"]
    )


def test_copies_to_end() -> None:
    for container, wanted in (
        (UNPROVED, ["moved"]),
        (ABSENT, ["moved"]),
        (PROVED, []),
        ({**PROVED, "checkpoint": ""}, []),
    ):
        found = migration_copies({"gpu-a": SOURCE}, "gpu-b", looked(moved=container))
        assert [item["record"]["name"] for item in found] == wanted
    assert migration_copies({"gpu-a": SOURCE}, "gpu-c", looked(moved=UNPROVED)) == []
    # A migration that goes on from the capture wants the copy.
    assert migration_copies({"gpu-a": SOURCE}, "gpu-b", looked(moved=UNPROVED), MIGRATION) == []
    for silent in SILENT:
        assert migration_copies({"gpu-a": silent}, "gpu-b", looked(moved=UNPROVED)) == []
        assert migration_copies({"gpu-a": SOURCE}, "gpu-b", silent) == []


def test_a_plan() -> None:
    targets = {"gpu-b": {"look": looked(moved=ABSENT), "ended": []}}
    plan = migration_plan(MIGRATION, SOURCE, looked(moved=ABSENT), targets)
    assert [(record["id"], record["path"]) for record in plan["going"]] == [("0a1b2c3d4e5f", "job.0a1b2c3d4e5f.json")]
    fresh = {**looked(job=Seen(exists=True, task="RUNNING").to_json()), "records": []}
    plan = migration_plan(MIGRATION, fresh, looked(moved=ABSENT), targets)
    assert [(record["id"], record["digest"]) for record in plan["going"]] == [("ffffffffffff", "")]
    assert plan["problems"] == []


@pytest.mark.parametrize("silent", SILENT)
def test_hosts_that_give_no_answer_keep_a_migration_from_beginning(silent: dict[str, Any]) -> None:
    plan = migration_plan(MIGRATION, SOURCE, silent, {"gpu-b": {"look": silent}})
    assert any(problem.startswith("gpu-b gave no answer") for problem in plan["problems"])
    assert any(problem.startswith("job: stays paused on gpu-a") for problem in plan["problems"])
    plan = migration_plan(MIGRATION, silent, looked(moved=ABSENT), {})
    assert any(problem.startswith("gpu-a gave no answer") for problem in plan["problems"])


def test_a_record_that_cannot_be_read_keeps_a_migration_from_beginning() -> None:
    source = {**SOURCE, "unreadable": ["/var/lib/gpuops-restore/migrations/k8s.io/half.json"]}
    plan = migration_plan(MIGRATION, source, looked(moved=ABSENT), {"gpu-b": {"look": looked(moved=ABSENT)}})
    assert ["half.json" in problem for problem in plan["problems"]] == [True]
