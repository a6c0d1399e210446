"""What pages are made of: templates, and scripts that they contain whole."""

import base64
import hashlib
from collections.abc import Sequence
from importlib import resources
from typing import NamedTuple

import jinja2
from markupsafe import Markup

PLOTLY = "plotly-basic.min.js"  # of the package plotly.js-basic-dist-min, 4.1.1; a test knows its digest
PAGE, LIVE = "page.js", "live.js"  # the page's own scripts; the second is of `dr3-ray serve`


class Scripts(NamedTuple):
    """The scripts of a page in their order, and the policy (`Content-Security-Policy`) under which they run."""

    texts: list[Markup]
    policy: Markup
    """Nothing else on the page can run, and nothing is loaded; a live page asks its own server."""


def scripts(names: Sequence[str] = (PLOTLY, PAGE)) -> Scripts:
    """Return these scripts; `LIVE` among them lets the page ask its server."""
    folder = resources.files("dr3_ray.report") / "scripts"
    texts = [(folder / name).read_text("utf-8") for name in names]
    digests = [base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in texts]
    may = {
        "default-src": "'none'",
        "style-src": "'unsafe-inline'",
        "script-src": " ".join(f"'sha256-{digest}'" for digest in digests),
        "img-src": "data: blob:",
    } | ({"connect-src": "'self'"} if LIVE in names else {})
    policy = "; ".join(f"{what} {sources}" for what, sources in may.items())
    return Scripts([Markup(text) for text in texts], Markup(policy))


def template(name: str) -> jinja2.Template:
    """Return a page's template, which escapes what it is given and demands all of it."""
    loader = jinja2.PackageLoader("dr3_ray.report")
    environment = jinja2.Environment(
        loader=loader, autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    return environment.get_template(name)
