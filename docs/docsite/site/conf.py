# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Sphinx's settings for ``make docs``: the guides in Markdown, and what antsibull-docs makes of the plugins."""

from __future__ import annotations

project = title = html_short_title = "gpuops.restore"
project_copyright = "the gpuops.restore contributors"

extensions = ["sphinx_antsibull_ext", "myst_parser"]
source_suffix = {".rst": "restructuredtext", ".md": "markdown"}
# So that a link to a heading is the same here and where the repository is read.
myst_heading_anchors = 4
myst_links_external_new_tab = False

html_theme = "sphinx_ansible_theme"
html_theme_options = {"vcs_pageview_mode": "blob", "documentation_home_url": "index.html"}
html_static_path = ["_static"]
html_css_files = ["tables.css"]
pygments_style = "ansible"
highlight_language = "YAML+Jinja"
html_show_sphinx = html_use_modindex = html_use_index = html_copy_source = False
default_role = "any"
nitpicky = True
