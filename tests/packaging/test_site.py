"""The site of the documents: every page is reached, nothing leads nowhere, and nothing comes from elsewhere."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import dr3_ray
from dr3_ray.algorithms.registry import ALGORITHMS

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site as `make docs` builds it, in which a dead link or anchor is an error."""
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--quiet", "--strict", "--site-dir", str(folder)]
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, env=os.environ | {"NO_MKDOCS_2_WARNING": "1"}
    )
    assert done.returncode == 0 and not done.stderr, done.stderr
    return folder


@pytest.mark.slow
def test_it_asks_nobody_else(site: Path) -> None:
    pages = list(site.rglob("*.html"))
    assert len(pages) > 25
    for page in pages:
        text = page.read_text()
        assert not re.search(r'<(?:script|img|iframe|source)\b[^>]*src="?(?:https?:)?//', text), page
        assert not re.search(r'<link\b[^>]*rel="?stylesheet"?[^>]*href="?(?:https?:)?//', text), page
        assert 'class="mermaid"' not in text, page  # the theme would load Mermaid from elsewhere


@pytest.mark.slow
def test_pictures_are_there(site: Path) -> None:
    """`--strict` does not look into HTML."""
    found = set()
    for page in site.rglob("*.html"):
        named = re.findall(r'<(?:img|source)\b[^>]*?\bsrc(?:set)?="?([^"\s>]+)', page.read_text())
        found |= {(page.parent / name).resolve() for name in named if not name.startswith("data:")}
    assert {"report-light.png", "report-dark.png", "serve.png", "compared.png"} <= {path.name for path in found}
    assert [path for path in found if not path.is_file()] == []


@pytest.mark.slow
def test_every_page_is_in_the_navigation(site: Path) -> None:
    """`--strict` says nothing of pages that no menu names."""
    front = (site / "index.html").read_text()
    for page in site.rglob("*.html"):
        name = page.relative_to(site).as_posix()
        assert name == "404.html" or f'href="{name}"' in front, name


@pytest.mark.slow
def test_every_public_name_is_explained(site: Path) -> None:
    text = (site / "api.html").read_text()
    for name in dr3_ray.__all__:
        assert f'id="dr3_ray.{name}"' in text or f"<code>{name}</code>" in text, name


@pytest.mark.slow
def test_every_option_of_every_algorithm_is_there(site: Path) -> None:
    text = (site / "options.html").read_text()
    for name in ALGORITHMS:
        assert f'<h2 id="{name.lower()}">' in text
    for option in ("critic_lr", "expectile", "dr3_coeff", "srank_coeff"):
        assert f"<code>{option}</code>" in text
