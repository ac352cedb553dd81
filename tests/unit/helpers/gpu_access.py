# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Parameters with another access to the GPUs."""

from __future__ import annotations

import dataclasses
from typing import Any, TypeVar

#: A dataclass with a field ``access``.
Params = TypeVar("Params", bound=Any)


def changed(params: Params, **changes: Any) -> Params:
    """As dataclasses.replace; what the parameters do not have themselves is changed in their access."""
    own = {field.name for field in dataclasses.fields(params)}
    access = {name: value for name, value in changes.items() if name not in own}
    others = {name: value for name, value in changes.items() if name in own}
    found: Params = dataclasses.replace(params, access=dataclasses.replace(params.access, **access), **others)
    return found
