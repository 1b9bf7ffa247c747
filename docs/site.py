"""What ``mkdocs build`` does beyond the pages here: two pages that exist elsewhere, and links out.

README.md     ──▶ index.md        the start page and the repository's front are one text
CHANGELOG.md  ──▶ changelog.md
](../examples/…)             ──▶ the file in the repository
](https://…/blob/main/docs/…) ──▶ the page here; the README's links are read on PyPI, too
"""

from __future__ import annotations

import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[1]
PAGES = {"index.md": "README.md", "changelog.md": "CHANGELOG.md"}
LINK = re.compile(r"\]\((?!\w+:|#)([^)#]+)(#[^)]*)?\)")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages whose text is a file of the repository's root."""
    for page, source in PAGES.items():
        text = (ROOT / source).read_text("utf-8")
        files.append(File.generated(config, page, content=text))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Links as they are in the repository become links of the site, or to the repository."""
    folder = ROOT if page.file.src_uri in PAGES else ROOT / "docs"
    markdown = markdown.replace(f"]({config.repo_url}/blob/main/docs/", f"]({ROOT}/docs/")

    def target(found: re.Match[str]) -> str:
        path = (folder / found[1]).resolve()
        anchor = found[2] or ""
        if path.is_relative_to(ROOT / "docs"):
            return f"]({path.relative_to(ROOT / 'docs').as_posix()}{anchor})"
        return f"]({config.repo_url}/blob/main/{path.relative_to(ROOT).as_posix()}{anchor})"

    return LINK.sub(target, markdown)
