"""Stage `manifest`: code, source and pretrained files -> hashes, so that a change is noticed."""

import sys
from pathlib import Path

from gdc.config import ListedArm, Params
from gdc.corpus import sources
from gdc.corpus.sources import unread
from gdc.curation.listed import read_listed
from gdc.filesystem.table_files import checksum
from gdc.stages.runner import run
from gdc.workspace import files, outputs, paths
from gdc.workspace.code_digests import code_digests


def main() -> None:
    """Write ``data/code.json``, ``manifest.json``, ``pretrained.json`` and ``listed.json``.

    DVC runs this every time, so it must be quick. Of the code every stage has its own digest for a
    parameter. What trains depends on ``data/pretrained.json`` and not on the source: a change of it
    comes through the corpus. Files that the source leaves out are listed and named in one line.
    """
    files.write_json(paths.CODE, code_digests(cache_file=paths.CODE_CACHE))
    params = files.load_params()
    # The stages after this one would delete it.
    outputs.require_outside_outputs(params)
    ingest = params.ingest
    left_out = unread.summarize(sources.find_unread(ingest.source))
    more = {"unread": left_out} if left_out else {}
    files.write_json(paths.MANIFEST, sources.fingerprint(ingest.source) | more)
    files.write_json(paths.PRETRAINED, sources.fingerprint_pretrained(ingest.tokenizer))
    files.write_json(paths.LISTED, _listed_files(params))
    if sentence := unread.sentence(left_out):
        sys.stderr.write(f"{sentence}\n")


def _listed_files(params: Params) -> dict[str, str]:
    """The checksum of the file of each arm that lists samples, once it is found to be one."""
    found = {}
    for name, arm in params.intervene.arms.items():
        if isinstance(arm, ListedArm):
            read_listed(Path(arm.file), name=f"intervene.arms.{name}.file")
            found[name] = checksum(Path(arm.file))
    return found


if __name__ == "__main__":
    run(main)
