"""Judge every score on several corpora and two models, each in a workspace of its own.

python benchmarks/score_corpora.py train code-lstm docs-gpt2 --novels novels.jsonl
python benchmarks/score_corpora.py page --novels novels.jsonl

``train`` trains the models of some worlds, or of all where none is named; what is done is not
trained again. ``page`` scores them, compares the scores with the ground truth and writes the page.
"""

import argparse
import gzip
import json
import os
import re
import sys
import sysconfig
from collections.abc import Callable, Iterable, Iterator, Mapping
from hashlib import blake2b
from importlib import resources
from itertools import product
from pathlib import Path
from typing import Any, Final

from ruamel.yaml import YAML

FOLDER: Final = Path("work/score-corpora")
NUM_MODELS: Final = 8
"""Half-models of the ground truth."""
NUM_TEXTS, MIN_CHARS, MAX_CHARS = 400, 80, 280
MODELS: Final[Mapping[str, Mapping[str, Any]]] = {
    "lstm": {
        "model": {"kind": "lstm", "hidden_size": 96, "num_layers": 1},
        "training": {"epochs": 10, "learning_rate": 1e-2},
    },
    "gpt2": {
        "model": {"kind": "gpt2", "hidden_size": 64, "num_layers": 2, "num_heads": 4},
        "training": {"epochs": 12, "learning_rate": 3e-3},
    },
}
_BLANK_LINES: Final = re.compile(r"\n\s*\n")
_REQUEST: Final = re.compile(r"^[.'].*$", re.MULTILINE)
_FONT: Final = re.compile(r"\\f(?:\[.*?\]|\(..|.)|\\&|\\s[-+]?\d")


def main() -> None:
    """Train the worlds that are named, or write the page."""
    parser = argparse.ArgumentParser()
    parser.add_argument("action", choices=("train", "page"))
    parser.add_argument("worlds", nargs="*")
    parser.add_argument("--novels", type=Path, help="JSON lines with a field text: the prose")
    arguments = parser.parse_args()
    worlds = arguments.worlds or [f"{c}-{m}" for c, m in product(CORPORA, MODELS)]
    novels = None if arguments.novels is None else arguments.novels.resolve()
    if arguments.action == "train":
        for world in worlds:
            train_world(world, novels)


# ---- corpora


def docs(_novels: Path | None) -> Iterator[str]:
    """CPython's documentation: help topics and docstrings."""
    from gdc.corpus.sources import python_docs  # noqa: PLC0415  # as all of gdc: takes seconds

    return (row.text for row in python_docs.read_rows())


def code(_novels: Path | None) -> Iterator[str]:
    """Source code of CPython's library."""
    for path in sorted(Path(sysconfig.get_path("stdlib")).glob("*.py")):
        yield path.read_text(encoding="utf-8")


def man(_novels: Path | None) -> Iterator[str]:
    """English manual pages of this machine, without the requests of their markup."""
    for path in sorted(Path("/usr/share/man/man1").glob("*.gz")):
        with gzip.open(path, "rt", encoding="utf-8", errors="replace") as file:
            text = _FONT.sub("", _REQUEST.sub("", file.read()))
        yield text.replace(r"\-", "-").replace(r"\(aq", "'").replace(r"\e", "\\")


def prose(novels: Path | None) -> Iterator[str]:
    """Paragraphs of novels, from the file that ``--novels`` names."""
    if novels is None:
        sys.exit("prose: expected --novels FILE, got none. Give JSON lines with a field text.")
    for line in novels.read_text(encoding="utf-8").splitlines():
        yield json.loads(line)["text"]


CORPORA: Final[Mapping[str, Callable[[Path | None], Iterable[str]]]] = {
    "docs": docs,
    "code": code,
    "man": man,
    "prose": prose,
}


def passages(texts: Iterable[str]) -> list[str]:
    """``NUM_TEXTS`` paragraphs of the texts, cut to ``MAX_CHARS``, chosen by their hash."""
    found = {
        paragraph.strip("\n")[:MAX_CHARS]
        for text in texts
        for paragraph in _BLANK_LINES.split(text)
        if len(paragraph.strip()) >= MIN_CHARS
    }
    return sorted(found, key=lambda text: blake2b(text.encode()).digest())[:NUM_TEXTS]


# ---- one world: a corpus and a model


def train_world(world: str, novels: Path | None) -> None:
    """Train the tracked run, the reference models and the half-models of a world."""
    folder = FOLDER / world
    folder.mkdir(parents=True, exist_ok=True)
    corpus, model = world.split("-")
    before = Path.cwd()
    os.chdir(folder)
    try:
        write_world(corpus, model, novels)
        run_stages()
    finally:
        os.chdir(before)


def write_world(corpus: str, model: str, novels: Path | None) -> None:
    """Write texts and params.yaml."""
    texts = Path("texts.jsonl")
    if not texts.exists():
        lines = [json.dumps({"text": text}) + "\n" for text in passages(CORPORA[corpus](novels))]
        texts.write_text("".join(lines), encoding="utf-8")
    yaml = YAML(typ="safe")
    preset = resources.files("gdc") / "presets" / "leaderboard.yaml"
    params = yaml.load(preset.read_text(encoding="utf-8"))
    params["ingest"] |= {
        "source": {"kind": "jsonl", "path": texts.name, "text_field": "text", "key_field": None},
        "max_samples": None,
        "validation_fraction": 0.25,
    }
    for family in params["ingest"]["canaries"].values():
        family |= {"repeats": [1, 12], "per_level": 5, "num_twins": 20}
    common = {"block_size": 256, "precision": "float32", "dropout": 0.0}
    params["model"] = {**common, **MODELS[model]["model"]}
    params["training"] |= MODELS[model]["training"]
    params["train"] |= {"seeds": [0], "self_influence": False}
    params["score"]["enabled"].remove("self_influence")
    with Path("params.yaml").open("w", encoding="utf-8") as file:
        yaml.dump(params, file)


def run_stages() -> None:
    """Run the stages that train and those before them, in this process."""
    from gdc.stages import ground_truth, halves, ingest, manifest, reference, train  # noqa: PLC0415

    done = Path("data/trained")
    if not done.exists():
        for stage in (manifest, ingest, halves):
            _call(stage.main)
        _call(train.main, "--seed", "0")
        for number in range(4):
            _call(reference.main, "--model", str(number))
        done.touch()
    for number in range(NUM_MODELS):
        _call(ground_truth.main, "--model", str(number), "--num-models", str(NUM_MODELS))


def _call(stage: Callable[[], None], *arguments: str) -> None:
    sys.argv = ["stage", *arguments]
    stage()


if __name__ == "__main__":
    main()
