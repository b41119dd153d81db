"""The documentation site: Sphinx reads the Markdown of this folder. ``make docs-site`` builds it, without a network."""

from __future__ import annotations

import importlib.util
import sys
from importlib.metadata import version as version_of
from pathlib import Path

from sphinx.application import Sphinx

DOCS = Path(__file__).parent
spec = importlib.util.spec_from_file_location(
    "docs_pages", DOCS / "pages" / "__init__.py", submodule_search_locations=[str(DOCS / "pages")]
)
assert spec is not None
sys.modules["docs_pages"] = importlib.util.module_from_spec(spec)

from docs_pages import brought, build  # noqa: E402

build.write(DOCS)

project = "invariscope"
author = copyright = "The contributors of invariscope"
version = release = version_of("invariscope")
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.mathjax"]
myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3
exclude_patterns = list(brought.ASIDE)
suppress_warnings = ["myst.xref_ambiguous"]
autodoc_typehints = "none"
autodoc_member_order = "bysource"
napoleon_use_ivar = True
napoleon_use_rtype = False
python_display_short_literal_types = True
smartquotes = False
html_theme = "furo"
html_title = "invariscope"
html_static_path = ["site"]
html_css_files = ["site.css"]
html_show_sphinx = False
html_copy_source = False


def setup(app: Sphinx) -> None:
    """Links of the pages to files that are no pages of the site become text; whoever reads the repository has them."""

    def read(app: Sphinx, name: str, source: list[str]) -> None:
        file = DOCS / f"{name}.md"
        source[0] = brought.turned(source[0], file, DOCS.parent, file.parent)

    app.connect("source-read", read)
