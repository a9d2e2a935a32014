"""The documentation's settings; `make docs` builds it, and a warning fails the build."""

from __future__ import annotations

import html
import re
from pathlib import Path
from typing import TYPE_CHECKING

import ziamath
from docutils.nodes import SkipNode

from maxsup import __version__

if TYPE_CHECKING:
    from docutils import nodes
    from sphinx.application import Sphinx
    from sphinx.writers.html5 import HTML5Translator

ziamath.config.svg2 = False  # outlines alone, without ids that repeat on a page
_SIZE = 16
_COLON = "\N{RATIO}"

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
html_math_renderer = "outlines"
html_static_path = ["_static"]
html_css_files = ["tables.css"]
html_show_copyright = False
html_copy_source = False
html_show_sourcelink = False


def _picture(latex: str, display: bool) -> str:
    """A formula as an SVG of outlines, as high as the text around it; its LaTeX is what a screen reader reads."""
    drawn = ziamath.Latex(latex, size=_SIZE, color="currentColor", inline=not display).svg()
    found = re.search(r'width="([\d.]+)" height="([\d.]+)" viewBox="\S+ (\S+) ', drawn)
    assert found is not None
    width, height, top = (float(number) for number in found.groups())
    below = 0.0 if display else height + top
    style = f"width:{width / _SIZE:.3f}em;height:{height / _SIZE:.3f}em;vertical-align:{-below / _SIZE:.3f}em"
    label = html.escape(latex, quote=True)
    return drawn.replace("<svg", f'<svg class="formula" role="img" aria-label="{label}" style="{style}"', 1)


def _inline(writer: HTML5Translator, node: nodes.math) -> None:
    writer.body.append(_picture(node.astext(), display=False))
    raise SkipNode


def _block(writer: HTML5Translator, node: nodes.math_block) -> None:
    writer.body.append(f'<div class="formula">{_picture(node.astext(), display=True)}</div>')
    raise SkipNode


def _without_aliases(app: Sphinx, what: str, name: str, of: object, skip: bool, options: object) -> bool | None:
    """The fields of named tuples are documented in the class; what Python says of each is its number."""
    return True if (getattr(of, "__doc__", None) or "").startswith("Alias for field number") else None


def _untyped(app: Sphinx, what: str, name: str, of: object, options: object, lines: list[str]) -> None:
    """A field's documentation has no type before its first colon: no colon, so that none is looked for."""
    if what == "attribute":
        lines[:] = [line.replace(":", _COLON) for line in lines]


def _plain_bars(app: Sphinx, what: str, name: str, of: object, options: object, lines: list[str]) -> None:
    """A bar outside of code is an absolute value in our docstrings, and no substitution; "K." begins no list."""
    for place, line in enumerate(lines):
        line = re.sub(r"(:param \w+: )([A-Z]\.)$", r"\1\\\2", line)
        if not line.lstrip().startswith((">>>", "...")):
            parts = re.split(r"(`+[^`]*`+)", line)
            line = "".join(part if part.startswith("`") else part.replace("|", r"\|") for part in parts)
        lines[place] = line.replace(_COLON, ":")


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

    if page.endswith(("/summary", "/tuned")):  # written by the lab; the page of results leads to them
        content[0] = "---\norphan: true\n---\n" + content[0]
    content[0] = re.sub(r"\[([^\]\n]+)\]\((\.\.?/[^)#\s]+)\)", inside, content[0])


def setup(app: Sphinx) -> None:
    """Formulas as pictures: the pages load no script and no font from elsewhere."""
    app.connect("autodoc-skip-member", _without_aliases)
    app.connect("autodoc-process-docstring", _untyped, priority=400)  # before napoleon
    app.connect("autodoc-process-docstring", _plain_bars, priority=600)  # after it
    app.connect("source-read", _links_out)
    app.add_html_math_renderer("outlines", (_inline, None), (_block, None))
