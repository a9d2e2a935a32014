"""The documentation's settings; `make docs` builds it, and a warning fails the build."""

from __future__ import annotations

import html
import re
from pathlib import Path
from typing import TYPE_CHECKING

from latex2mathml.converter import convert

from maxsup import __version__

if TYPE_CHECKING:
    from docutils import nodes
    from sphinx.application import Sphinx
    from sphinx.writers.html5 import HTML5Translator

project = "maxsup"
author = "The maxsup developers"
version = release = __version__
language = "en"

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["_build"]
nitpicky = False

myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 3
# A block of shell has comments and options that no lexer knows; a link may lead to a file of the repository.
suppress_warnings = ["misc.highlighting_failure"]

autodoc_member_order = "bysource"
autodoc_typehints = "none"  # docstrings give shapes and units, which say more
autodoc_default_options = {"members": True}
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_rtype = False
default_role = "code"  # one backtick is code in docstrings, as in Markdown

html_theme = "furo"
html_title = f"maxsup {version}"
html_math_renderer = "mathml"
html_copy_source = False
html_show_sourcelink = False


def _inline(writer: HTML5Translator, node: nodes.math) -> None:
    writer.body.append(convert(node.astext()))


def _block(writer: HTML5Translator, node: nodes.math_block) -> None:
    writer.body.append(convert(html.unescape(node.astext()), display="block"))


def _skip(writer: HTML5Translator, node: nodes.Element) -> None:
    """Leaves out what a visitor has written already."""
    from docutils.nodes import SkipNode

    raise SkipNode


def _inline_whole(writer: HTML5Translator, node: nodes.math) -> None:
    _inline(writer, node)
    _skip(writer, node)


def _block_whole(writer: HTML5Translator, node: nodes.math_block) -> None:
    _block(writer, node)
    _skip(writer, node)


def _plain_bars(app: Sphinx, what: str, name: str, of: object, options: object, lines: list[str]) -> None:
    """A bar outside of code is an absolute value in our docstrings, and no substitution."""
    for place, line in enumerate(lines):
        if not line.lstrip().startswith((">>>", "...")):
            parts = re.split(r"(`+[^`]*`+)", line)
            lines[place] = "".join(part if part.startswith("`") else part.replace("|", r"\|") for part in parts)


def _links_out(app: Sphinx, page: str, content: list[str]) -> None:
    """Links from a page to what is no page of the site: measured tables to theirs, other files to their names."""
    here = Path(app.srcdir, page).parent

    def inside(found: re.Match[str]) -> str:
        text, target = found[1], found[2]
        path = (here / target).resolve()
        if path.is_relative_to(app.srcdir):
            return found[0]
        if path.parent.name == "results" and path.suffix == ".md":
            up = "../" * page.count("/")
            return f"[{text}]({up}performance.md)"
        return text if text.startswith("`") else f"`{text}`"

    content[0] = re.sub(r"\[([^\]\n]+)\]\((\.\.?/[^)#\s]+)\)", inside, content[0])


def setup(app: Sphinx) -> None:
    """Formulas as MathML, which browsers draw themselves: the pages load no script from elsewhere."""
    app.connect("autodoc-process-docstring", _plain_bars)
    app.connect("source-read", _links_out)
    app.add_html_math_renderer("mathml", (_inline_whole, None), (_block_whole, None))
