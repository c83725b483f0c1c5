"""Stage `manifest`: the configured source -> a hash of its content, so a change is noticed."""

from gdc import sources, store
from gdc.stages.runner import run


def main() -> None:
    """Write ``data/manifest.json``; DVC runs this every time, so it must be quick."""
    params = store.load_params()
    store.write_json(store.MANIFEST, sources.fingerprint(params.ingest.source))


if __name__ == "__main__":
    run(main)
