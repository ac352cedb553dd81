# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import datetime

import pytest

from ansible_collections.gpuops.restore.plugins.module_utils._core import text
from ansible_collections.gpuops.restore.plugins.module_utils._core.errors import InputError
from ansible_collections.gpuops.restore.plugins.module_utils._core.text import check_digest

pytestmark = pytest.mark.every_python


def test_now_is_in_utc_to_the_second() -> None:
    before = datetime.datetime.now(datetime.timezone.utc).replace(microsecond=0)
    found = datetime.datetime.strptime(text.utc_now(), "%Y-%m-%dT%H:%M:%SZ")
    after = datetime.datetime.now(datetime.timezone.utc)
    assert before <= found.replace(tzinfo=datetime.timezone.utc) <= after


@pytest.mark.parametrize("bad", ["", "sha256:", "md5:" + "0" * 64, "sha256:" + "A" * 64, "sha256:" + "0" * 64 + "\n"])
def test_digests_are_checked(bad: str) -> None:
    with pytest.raises(InputError) as error:
        check_digest(bad, "it")
    assert error.value.code == "digest_invalid"
