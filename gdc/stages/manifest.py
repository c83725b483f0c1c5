"""Stage `manifest`: code, source and pretrained files -> hashes, so that a change is noticed."""

from gdc import sources, store
from gdc.code_digests import code_digests
from gdc.stages.runner import run


def main() -> None:
    """Write ``data/code.json``, ``data/manifest.json`` and ``data/pretrained.json``.

    DVC runs this every time, so it must be quick. Of the code every stage has its own digest for a
    parameter. What trains depends on ``data/pretrained.json`` and not on the source: a change of it
    comes through the corpus.
    """
    store.write_json(store.CODE, code_digests())
    ingest = store.load_params().ingest
    store.write_json(store.MANIFEST, sources.fingerprint(ingest.source))
    store.write_json(store.PRETRAINED, sources.fingerprint_pretrained(ingest.tokenizer))


if __name__ == "__main__":
    run(main)
