"""Stage `manifest`: code, source and pretrained files -> hashes, so that a change is noticed."""

import sys

from gdc.corpus import sources
from gdc.corpus.sources import unread
from gdc.stages.runner import run
from gdc.workspace import files, outputs, paths
from gdc.workspace.code_digests import code_digests


def main() -> None:
    """Write ``data/code.json``, ``data/manifest.json`` and ``data/pretrained.json``.

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
    if sentence := unread.sentence(left_out):
        sys.stderr.write(f"{sentence}\n")


if __name__ == "__main__":
    run(main)
