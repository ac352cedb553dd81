# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from ansible_collections.gpuops.restore.plugins.filter.itemized import itemized


def test_a_line_for_each_stands_below_their_number() -> None:
    assert itemized(["a", "b"], "{count} problem(s); nothing was changed.") == (
        "2 problem(s); nothing was changed.\n- a\n- b\n"
    )
    assert itemized(["a"], "{count} of 2 did not move.", ["The source was lost."]) == (
        "1 of 2 did not move.\n- a\nThe source was lost.\n"
    )
    assert itemized(iter(()), "one lacks {count} thing(s).") == "one lacks 0 thing(s).\n"
