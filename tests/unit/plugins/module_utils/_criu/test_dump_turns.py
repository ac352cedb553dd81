# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Which dumps go side by side."""

from __future__ import annotations

import threading

import pytest

from ansible_collections.gpuops.restore.plugins.module_utils._criu.dump_turns import Turn, Turns


class Watched(Turns):
    """Says when somebody waits."""

    def __init__(self) -> None:
        super().__init__()
        self.waits = threading.Event()
        wait = self._changed.wait

        def told(timeout: float | None = None) -> bool:
            self.waits.set()
            return wait(timeout)

        self._changed.wait = told  # type: ignore[method-assign]


@pytest.mark.parametrize("lines", [(), ("file-locks",)])
def test_the_same_lines_go_side_by_side(lines: tuple[str, ...]) -> None:
    turns = Turns()
    first, second = Turn(turns), Turn(turns)
    first.take(lines)
    second.take(list(lines))
    first.end()
    first.end()
    second.end()


@pytest.mark.parametrize(("held", "wanted"), [((), ("a",)), (("a",), ()), (("a",), ("b",))])
def test_others_wait(held: tuple[str, ...], wanted: tuple[str, ...]) -> None:
    turns = Watched()
    first, second = Turn(turns), Turn(turns)
    order: list[str] = []
    first.take(held)

    def other() -> None:
        second.take(wanted)
        order.append("second")
        second.end()

    waiting = threading.Thread(target=other)
    waiting.start()
    assert turns.waits.wait(60)
    order.append("first")
    first.end()
    waiting.join(60)
    assert order == ["first", "second"]


def test_one_whose_lines_change_lets_others_go_first() -> None:
    turns = Watched()
    first, second = Turn(turns), Turn(turns)
    first.take(())

    def other() -> None:
        with second.held(("a",)):
            pass

    waiting = threading.Thread(target=other)
    waiting.start()
    assert turns.waits.wait(60)
    first.take(("b",))
    first.end()
    waiting.join(60)
    assert not waiting.is_alive()
