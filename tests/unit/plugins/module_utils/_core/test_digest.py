# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import pytest

from ansible_collections.gpuops.restore.plugins.module_utils._core.digest import check_digest
from ansible_collections.gpuops.restore.plugins.module_utils._core.errors import InputError


@pytest.mark.parametrize("bad", ["", "sha256:", "md5:" + "0" * 64, "sha256:" + "A" * 64, "sha256:" + "0" * 64 + "\n"])
def test_digests_are_checked(bad: str) -> None:
    with pytest.raises(InputError) as error:
        check_digest(bad, "it")
    assert error.value.code == "digest_invalid"
