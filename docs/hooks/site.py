"""mkdocs' hook: the site gets the reference pages, which stand in no file."""

import sys
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

sys.path[:0] = [str(Path(__file__).resolve().parent), str(Path(__file__).resolve().parents[2])]

import reference  # noqa: E402  # found by the path above


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the generated pages before links are checked."""
    for name, page in reference.PAGES.items():
        files.append(File.generated(config, f"reference/{name}.md", content=page()))
    return files
