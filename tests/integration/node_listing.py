# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What there is in a node, as gpuops_lab.listing has it, at a tenth of its price (quick_listing.py)."""

from __future__ import annotations

import functools

import in_node
from gpuops_lab import listing as by_ctr
from gpuops_lab.config import Node
from gpuops_lab.listing import Listing, difference

__all__ = ["Listing", "difference", "listing", "settled_difference"]


def listing(node: Node) -> Listing:
    """From within the node's warm interpreter, where the node has one. Raises AssertionError, LabError."""
    if not node.inside(in_node.LIBRARY).exists():
        return by_ctr.listing(node)
    return dict(in_node.ask(node, ".quick_listing", {}).result)


settled_difference = functools.partial(by_ctr.settled_difference, look=listing)
