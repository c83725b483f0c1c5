"""mkdocs' hook: the site gets the reference pages, which stand in no file."""

import sys
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from docs.hooks import reference  # found by the path above


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the generated pages before links are checked."""
    for name, page in reference.PAGES.items():
        files.append(File.generated(config, f"reference/{name}.md", content=page()))
    return files
