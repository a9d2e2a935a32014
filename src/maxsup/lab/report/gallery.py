"""A picture of a report as it stands in a page beside others."""

from __future__ import annotations

import re

from maxsup.lab.report.figures import Picture


def embedded(picture: Picture) -> str:
    """The SVG for a page that holds several: its ids get the picture's name as a prefix, the element its title."""
    ids = set(re.findall(r'\bid="([^"]+)"', picture.svg))
    svg = re.sub(
        r'(\bid="|href="#|url\(#)([^")]+)',
        lambda found: f"{found[1]}{picture.name}-{found[2]}" if found[2] in ids else found[0],
        picture.svg,
    )
    return svg.replace("<svg", f'<svg role="img" aria-labelledby="figure-{picture.name}-title"', 1)
