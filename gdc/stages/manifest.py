"""Stage `manifest`: code, source and pretrained files -> hashes, so that a change is noticed."""

import sys
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path

from gdc.config import DpSgdArm, ListedArm, Params
from gdc.corpus import sources
from gdc.corpus.sources import unread
from gdc.curation.listed import read_listed
from gdc.environment import require_whole_models
from gdc.errors import ConfigError
from gdc.filesystem.json_values import JsonObject
from gdc.filesystem.table_files import checksum
from gdc.stages.runner import run
from gdc.workspace import files, outputs, paths
from gdc.workspace.code_digests import code_digests


def main() -> None:
    """Write ``data/code``, ``code.json``, ``manifest.json``, ``pretrained.json``, ``listed.json``.

    DVC runs this every time, so it must be quick.
    """
    found = contents()
    for path, content in found.items():
        files.write_json(path, content)
    tell(found)


def is_current() -> bool:
    """Whether the files are what ``main`` would write now; then it tells what ``main`` would.

    Raises:
        GdcError: As ``main``, or a file is missing or damaged.
    """
    found = contents()
    if any(files.read_json(path) != content for path, content in found.items()):
        return False
    tell(found)
    return True


def tell(found: Mapping[Path, JsonObject]) -> None:
    """Name the files that the source leaves out, in one line."""
    if sentence := unread.sentence(found[paths.MANIFEST].get("unread", {})):
        sys.stderr.write(f"{sentence}\n")


def contents() -> dict[Path, JsonObject]:
    """What this stage writes, by path.

    Each stage depends on a file of its own with the digest of its code. What trains depends on
    ``data/pretrained.json`` and not on the source: a change of it comes through the corpus. Files
    that the source leaves out are listed.
    """
    code = code_digests(cache_file=paths.CODE_CACHE)
    params = files.load_params()
    # The stages after this one would delete it.
    outputs.require_outside_outputs(params)
    _require_accountant(params)
    if params.train.self_influence:
        require_whole_models()
    ingest = params.ingest
    left_out = unread.summarize(sources.find_unread(ingest.source))
    more = {"unread": left_out} if left_out else {}
    return {
        paths.CODE: code,
        **{paths.code_path(stage): {"digest": digest} for stage, digest in code.items()},
        paths.MANIFEST: sources.fingerprint(ingest.source) | more,
        paths.PRETRAINED: sources.fingerprint_pretrained(ingest.tokenizer),
        paths.LISTED: _listed_files(params),
    }


def _require_accountant(params: Params) -> None:
    """Before anything is trained: it is an extra."""
    for name in params.retrain.arms:
        if isinstance(params.intervene.arms[name], DpSgdArm) and find_spec("opacus") is None:
            raise ConfigError(
                f"intervene.arms.{name}: dp-sgd needs the package opacus, which is not installed. "
                "Install it: pip install 'gendatacarto[privacy]'."
            )


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
