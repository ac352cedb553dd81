# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import threading
from pathlib import Path

from ansible_collections.gpuops.restore.plugins.module_utils._core.errors import NodeError
from ansible_collections.gpuops.restore.plugins.module_utils._host import mountinfo
from ansible_collections.gpuops.restore.plugins.module_utils._window import journal, node
from ansible_collections.gpuops.restore.plugins.module_utils._window.node import NodeParams
from ansible_collections.gpuops.restore.tests.unit.helpers import ansible_modules
from ansible_collections.gpuops.restore.tests.unit.helpers.ansible_modules import Call


def test_what_is_noted_is_told_by_the_next_call(call: Call, tmp_path: Path) -> None:
    root = str(tmp_path / "state")
    options = {"window": "w1", "staging_dir": root}
    note = {"node": {"phase": "planned", "attempt": 1}, "workloads": [{"id": "box", "phase": "planned"}]}
    assert call("containerd_window", True, **options, **note)["changed"] is True
    assert not Path(root).exists()
    assert call("containerd_window", **options, **note)["changed"] is True
    assert call("containerd_window", **options, **note)["changed"] is False
    found = call("containerd_window", True, **options)
    assert ansible_modules.undocumented("containerd_window", found) == []
    assert (found["changed"], found["node"]["phase"], found["others"]) == (False, "planned", [])
    assert [one["id"] for one in found["workloads"]] == ["box"]
    assert found["facts"]["boot"] and found["facts"]["time"] > 0
    assert found["facts"]["state"] == {
        "path": root,
        "file_system": mountinfo.file_system(str(tmp_path), mountinfo.parse(mountinfo.read())),
    }


def test_another_window_hears_of_one_that_is_not_over(call: Call, tmp_path: Path) -> None:
    place = {"staging_dir": str(tmp_path / "state")}
    call("containerd_window", window="w1", node={"phase": "captured"}, **place)
    call("containerd_window", window="w0", node={"phase": "done"}, **place)
    assert call("containerd_window", window="w2", **place)["others"] == [{"window": "w1", "phase": "captured"}]


def test_only_one_of_two_runs_that_found_the_node_free_gets_it(call: Call, tmp_path: Path) -> None:
    place = {"staging_dir": str(tmp_path / "state")}
    mine, other = ({"window": name, "controller": f"{name} b/7/2", **place} for name in ("w1", "w2"))
    seen = call("containerd_window", window="w1", **place)
    assert (seen["claim"], Path(tmp_path / "state").exists()) == ({}, False)
    take = {"claim": "take", "revision": seen["revision"]}
    assert call("containerd_window", True, **mine, **take)["claim"] == {}
    taken = call("containerd_window", **mine, **take, workloads=[{"id": "box", "phase": "planned"}])
    assert (taken["claim"]["window"], taken["claim"]["controller"]) == ("w1", "w1 b/7/2")
    assert ansible_modules.undocumented("containerd_window", taken) == []
    # The same run again, whatever it has noted since.
    assert call("containerd_window", **mine, **take)["claim"] == taken["claim"]
    for more in (take, {"node": {"phase": "planned"}}):
        late = call("containerd_window", **other, **more)
        assert (late["failure"]["code"], late["failure"]["outcome"]) == ("window_busy", "retryable")
        assert f"a run on the controller w1, pid 7, since {taken['claim']['since']}" in late["msg"]
        assert late["failure"]["details"] == taken["claim"]
    assert call("containerd_window", **other, claim="release")["claim"] == taken["claim"]
    assert call("containerd_window", **mine, claim="release", node={"phase": "done"})["claim"] == {}
    # It has ended, and what the other one has seen is not true any more.
    late = call("containerd_window", **other, **take)
    assert "Another run, which has ended already, has begun since" in late["msg"]
    take["revision"] = call("containerd_window", window="w2", **place)["revision"]
    assert call("containerd_window", **other, **take)["claim"]["window"] == "w2"
    # Nobody has it after a release, the one that had it included.
    lost = call("containerd_window", **mine, node={"phase": "done"})
    assert lost["failure"]["code"] == "window_busy"
    # This one may have done something before.
    assert "has taken the node over from this run" in lost["msg"] and "Nothing was done" not in lost["msg"]


def test_a_claim_of_a_run_that_was_killed_goes_to_the_next_that_has_seen_it(call: Call, tmp_path: Path) -> None:
    place = {"staging_dir": str(tmp_path / "state")}
    for controller in ("a b/7/2", "a b/8/3"):
        seen = call("containerd_window", window="w1", **place)
        options = {"claim": "take", "revision": seen["revision"], "controller": controller}
        assert call("containerd_window", window="w1", **options, **place)["claim"]["controller"] == controller


def test_of_runs_that_claim_at_the_same_moment_one_wins(tmp_path: Path) -> None:
    root, won, busy = str(tmp_path / "state"), [], []
    seen = journal.revision(root, "k8s.io")
    together = threading.Barrier(8)

    def run(number: int) -> None:
        params = NodeParams("k8s.io", "w1", claim="take", controller=f"c b/{number}/1", revision=seen, staging_dir=root)
        together.wait()
        try:
            node.gather(params, False)
            won.append(number)
        except NodeError as error:
            busy.append(error.code)

    threads = [threading.Thread(target=run, args=[number]) for number in range(8)]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    assert (len(won), busy) == (1, ["window_busy"] * 7)


def test_it_asks_no_containerd(call: Call, tmp_path: Path) -> None:
    assert "failure" not in call("containerd_window", window="w1", staging_dir=str(tmp_path), address="/nonexistent")
    assert call("containerd_window", window="../x")["failure"]["code"] == "window_name_invalid"
