# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The server's own life, on every Python that a node has; what it serves: the tests of containerd_checkpoint_serve."""

from __future__ import annotations

import base64
import os
import pathlib
import time
import urllib.request
from collections.abc import Iterator
from typing import Any

import pytest

from ansible_collections.gpuops.restore.plugins.module_utils._core.errors import InputError
from ansible_collections.gpuops.restore.plugins.module_utils._registry.http import pinned
from ansible_collections.gpuops.restore.plugins.module_utils._transfer import certificate, servers


@pytest.mark.every_python
def test_from_start_to_stop(tmp_path: pathlib.Path) -> None:
    place = str(tmp_path / "serve")
    (tmp_path / "blob").write_bytes(b"memory")
    made, key = certificate.make(["127.0.0.1"], os.environ["PATH"])
    contents = {
        "/document": {"data": base64.b64encode(b"document").decode(), "type": "text/plain"},
        "/blob": {"path": str(tmp_path / "blob"), "size": 6},
    }
    wish = {"contents": contents, "clients": [], "listen": "127.0.0.1", "port": 0, "token": "t"}
    wish.update(idle=60, limit=60)
    running = servers.start(place, "one", {**wish, "certificate": made, "key": key}, "known")
    try:
        assert servers.find(place, "one") == running
        for path, expected in (("document", b"document"), ("blob", b"memory")):
            url = f"https://127.0.0.1:{running.port}/{path}"
            request = urllib.request.Request(url, headers={"Authorization": "Bearer t"})
            with urllib.request.urlopen(request, context=pinned(made), timeout=30) as answer:
                assert answer.read() == expected
    finally:
        assert servers.stop(place, "one")
    assert not servers.stop(place, "one") and servers.find(place, "one") is None


def test_records_of_servers_that_ended_go(tmp_path: pathlib.Path) -> None:
    (tmp_path / "half.json").write_text('{"process":')
    (tmp_path / "ended.json").write_text('{"process": "boot/1/1", "port": 1, "certificate": "", "wish": ""}')
    (tmp_path / "notes.txt").write_text("of somebody else")
    servers.tidy(str(tmp_path))
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]
    servers.tidy(str(tmp_path / "none"))


@pytest.fixture
def place(tmp_path: pathlib.Path) -> Iterator[pathlib.Path]:
    """Where records lie; no server outlives the test."""
    made = tmp_path / "serve"
    yield made
    for record in made.glob("*.json"):
        servers.stop(str(made), record.stem)


def started(place: pathlib.Path, name: str, **more: Any) -> servers.Running:
    made, key = certificate.make(["127.0.0.1"], os.environ["PATH"])
    wish = {"contents": {"/v2/": {"data": ""}}, "clients": [], "listen": "127.0.0.1", "port": 0, "token": "t"}
    wish.update(idle=60, limit=60, certificate=made, key=key)
    return servers.start(str(place), name, wish, "known", **more)


def test_servers_that_are_left(place: pathlib.Path) -> None:
    used, unused = started(place, "used"), started(place, "unused")
    for path in place.iterdir():
        os.utime(path, (0, 0))
    (place / "ended.json").write_text('{"process": "boot/1/1", "port": 1, "certificate": "", "wish": ""}')
    (place / "half.json.4194305").write_text("{")
    (place / f"being-written.json.{os.getpid()}").write_text("{")
    request = urllib.request.Request(f"https://127.0.0.1:{used.port}/v2/", headers={"Authorization": "Bearer t"})
    with urllib.request.urlopen(request, context=pinned(used.certificate), timeout=30) as answer:
        assert answer.status == 200
    give_up = time.monotonic() + 30
    while (place / "used.json").stat().st_mtime == 0:
        assert time.monotonic() < give_up, "its use is not noted"
        time.sleep(0.05)
    dead = [str(place / "ended.json"), str(place / "half.json.4194305")]
    assert servers.leftovers(str(place), None, True) == dead
    both = sorted([*dead, str(place / "unused.json")])
    assert servers.leftovers(str(place), 60.0, True) == both
    assert servers.find(str(place), "unused") == unused
    assert servers.leftovers(str(place), None, False) == dead
    assert servers.leftovers(str(place), 60.0, False) == [str(place / "unused.json")]
    assert servers.find(str(place), "unused") is None and servers.find(str(place), "used") == used
    assert servers.leftovers(str(place), 60.0, False) == []
    assert servers.leftovers(str(place / "none"), 60.0, False) == []


def test_who_offers_something_keeps_its_port(place: pathlib.Path) -> None:
    asked, offering = started(place, "asked", offers=False), started(place, "offering")
    servers.give_way(str(place), offering.port)
    servers.give_way(str(place), asked.port)
    assert servers.find(str(place), "asked") is None and servers.find(str(place), "offering") == offering


@pytest.mark.parametrize("name", ["", "../one", "a/b", "a" * 65])
def test_what_is_no_id(tmp_path: pathlib.Path, name: str) -> None:
    with pytest.raises(InputError) as caught:
        servers.find(str(tmp_path), name)
    assert caught.value.code == "serve_id_invalid"
