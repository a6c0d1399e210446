"""Pages of the site that do not lie in docs/ as Markdown; mkdocs calls `on_files` and `on_page_markdown`."""

import posixpath
import re
from pathlib import Path
from typing import Any

import nbformat
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page
from nbconvert import MarkdownExporter

ROOT = Path(__file__).parents[1]
PAGES = {  # file in the repository -> page of the site
    "README.md": "index.md",
    "CONTRIBUTING.md": "development/contributing.md",
    "CHANGELOG.md": "development/changes.md",
    "benchmarks/README.md": "results/benchmarks.md",
}
SOURCES = {page: source for source, page in PAGES.items()}
LINK = re.compile(r"""(?<=\]\()(?!https?:|#)[^)\s#]+|(?<=\ssrc=")[^":]+(?=")|(?<=\ssrcset=")[^":]+(?=")""")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the files of `PAGES`, and put a page in the place of every notebook."""
    for source, page in PAGES.items():
        files.append(File.generated(config, page, content=(ROOT / source).read_text()))
    for notebook in [file for file in files if file.src_uri.endswith(".ipynb")]:
        files.remove(notebook)
        page = notebook.src_uri.removesuffix(".ipynb") + ".md"
        files.append(File.generated(config, page, content=as_markdown(notebook.content_string)))
    return files


def as_markdown(notebook: str) -> str:
    """Return a notebook's text, code and outputs as Markdown."""
    text, _ = MarkdownExporter().from_notebook_node(nbformat.reads(notebook, as_version=4))
    return text


def on_page_markdown(markdown: str, page: Page, **_: Any) -> str:
    """Let links between files of the repository lead to pages of the site."""
    here = page.file.src_uri
    source = SOURCES.get(here, f"docs/{here}")

    def moved(link: re.Match[str]) -> str:
        target = posixpath.normpath(posixpath.join(posixpath.dirname(source), link[0]))
        if not (ROOT / target).is_file():
            return link[0]
        return posixpath.relpath(PAGES.get(target, target.removeprefix("docs/")), posixpath.dirname(here) or ".")

    return LINK.sub(moved, markdown)
