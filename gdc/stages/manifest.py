"""Stage `manifest`: the source and pretrained files -> hashes, so that a change is noticed."""

from gdc import sources, store
from gdc.stages.runner import run


def main() -> None:
    """Write ``data/manifest.json`` and, apart from it, ``data/pretrained.json``.

    DVC runs this every time, so it must be quick. What trains depends on the second file alone: a
    changed source reaches it through the corpus.
    """
    ingest = store.load_params().ingest
    store.write_json(store.MANIFEST, sources.fingerprint(ingest.source))
    store.write_json(store.PRETRAINED, sources.fingerprint_pretrained(ingest.tokenizer))


if __name__ == "__main__":
    run(main)
