"""Every script of benchmarks/ that trains models, started with tiny ones."""

import shutil
from importlib import import_module
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from gdc.config import Gpt2Model, LstmModel
from gdc.scores import REGISTRY
from gdc.training.batches import TokenizedTexts
from tests.benchmarks.conftest import BENCHMARKS, Start
from tests.builders import REPOSITORY, rows_of

pytestmark = pytest.mark.slow

COMMON: dict[str, Any] = {
    "block_size": 32, "precision": "float32", "hidden_size": 8, "num_layers": 1, "dropout": 0.0,
}  # fmt: skip
GPT2 = Gpt2Model(kind="gpt2", num_heads=2, **COMMON)
LSTM = LstmModel(kind="lstm", **COMMON)
WORDS = [f"{a}{b}" for a in "bdfgklmnprst" for b in ("arkwood", "elmgrove", "isleton", "oakland")]


def passages(count: int) -> list[str]:
    """Texts of random words, each of more than 100 characters."""
    rng = np.random.default_rng(0)
    return [" ".join(rng.choice(WORDS, size=15)) for _ in range(count)]


def random_texts(num_samples: int = 12, vocab_size: int = 64) -> TokenizedTexts:
    rng = np.random.default_rng(0)
    ids = [rng.integers(1, vocab_size, size=n).tolist() for n in rng.integers(5, 40, num_samples)]
    return TokenizedTexts.from_ids(ids, 0)


@pytest.fixture
def training(page: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:  # noqa: ARG001 - its path
    """Module ``training``, with tiny models and texts."""
    module = import_module("training")
    sizes = {
        "GPT2": GPT2, "LSTM": LSTM, "BLOCK_SIZE": 32, "VOCAB_SIZE": 64, "LARGE_VOCABULARY": 512,
        "NUM_RUNS": 1, "NUM_TURNS": 1, "NUM_THREADS": 1, "PRODUCT_SIZE": 8, "texts": random_texts,
        "CONFIG": module.CONFIG.model_copy(update={"batch_tokens": 128, "num_threads": 1}),
    }  # fmt: skip
    for name, value in sizes.items():
        monkeypatch.setattr(module, name, value)
    return module


def test_training(start: Start, training: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    # What it puts in the place of these for a comparison stays in its process else.
    losses = import_module("gdc.training.losses")
    monkeypatch.setattr(losses, "MAX_LOGITS", losses.MAX_LOGITS)

    def measured(name: str) -> list[float]:
        return training.turns() if name == training.TURNS else list(training._measured(name))

    printed = start("training", _in_a_process=measured)
    # Trainer prints as well.
    rows = [line for line in printed.splitlines() if line.startswith("|")]
    assert len(rows) == 2 + 3 + 4 + 2 * training.has_bfloat16() + 2
    assert rows[-1].startswith("| GB at the peak with 512 ids, lstm, plain logits |")


@pytest.mark.usefixtures("training")
def test_operators(start: Start, page: Path) -> None:
    printed = start("operators", "--write", NUM_TURNS=1, NUM_SAMPLES=6)
    assert "| products of matrices |" in printed
    assert printed in page.read_text(encoding="utf-8")


def test_shapes(start: Start, page: Path, training: ModuleType) -> None:
    sizes = {name: (config, 128, 64, 12) for name, config in (("LSTM", LSTM), ("GPT-2", GPT2))}
    printed = start("shapes", "--write", NUM_TURNS=1, MODELS=sizes)
    precisions = 1 + training.has_bfloat16()
    assert printed.count("| planned |") == printed.count("| filled |") == 2 * precisions
    assert printed in page.read_text(encoding="utf-8")


def test_audits(start: Start, tmp_path: Path) -> None:
    shutil.copy(REPOSITORY / "params.yaml", tmp_path)
    source = SimpleNamespace(rows=rows_of(passages(100)))
    printed = start("audits", read_source=lambda *_, **__: source, NUM_RUNS=1)
    assert "| all audits of a GPT-2 of 4 x 256 on " in printed


def test_recording(start: Start) -> None:
    sizes = {"VOCABULARY": 64, "LENGTH": 16, "WIDTH": 8, "NUM_LAYERS": 1, "NUM_STEPS": 2}
    lines = start("recording", "0", LEAST_PAIRS=2, NUM_PROBED=16, **sizes).splitlines()
    assert lines[0].startswith("2 pairs in ")
    assert [line.split(",")[0] for line in lines[1:]] == [
        "tracked Trainer over untracked", "tracked Trainer over untracked",
        "probe over a forward pass", "probe over a forward pass",
    ]  # fmt: skip


def test_membership(start: Start, page: Path) -> None:
    sizes = {"NUM_BASE": 10, "NUM_TEXTS": 12, "VOCAB_SIZE": 280, "SEEDS": (0, 1)}
    start(
        "membership",
        code=lambda _: passages(10),
        docs=lambda _: passages(36),
        MODEL=GPT2,
        BLOCK_SIZE=32,
        **sizes,
    )
    written = page.read_text(encoding="utf-8")
    assert "## 1 pass over the members" in written
    assert "## 3 passes over the members" in written
    assert "Code: `today`.\n" in written


@pytest.fixture
def corpora(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:  # noqa: ARG001
    """Module ``score_corpora``, with tiny models of random texts."""
    module = import_module("score_corpora")
    _, config = module.MODELS["lstm"]
    short = config.model_copy(update={"epochs": 3})
    sizes = {
        "FOLDER": tmp_path / "worlds", "RESULTS": tmp_path / "docs/results", "VOCAB_SIZE": 280,
        "NUM_RUNS": 2, "NUM_MODELS": 4,
        "CORPORA": {"docs": lambda _: passages(120)},
    }  # fmt: skip
    (tmp_path / "docs/pictures").mkdir(parents=True)
    for name, value in sizes.items():
        monkeypatch.setattr(module, name, value)
    for name, model in (("lstm", LSTM), ("gpt2", GPT2)):
        monkeypatch.setitem(module.MODELS, name, (model, short))
    return module


def test_score_corpora(start: Start, page: Path, tmp_path: Path, corpora: ModuleType) -> None:
    assert REGISTRY.keys() >= set(corpora.SCORES)
    # Of each kind of what scores read one.
    scores = ("zlib", "std", "influence_contrast", "worst_window_drop", "reference_gap")
    start("score_corpora", "train", "docs-lstm")
    start("score_corpora", "page", SCORES=scores)
    written = page.read_text(encoding="utf-8")
    assert "| docs-lstm* |" in written
    assert all(f"| `{score}` |" in written for score in scores)
    assert "Code: `today`.\n" in written
    assert (tmp_path / "docs/pictures/corpora.png").exists()
    assert corpora.is_trained("docs-lstm")


@pytest.mark.usefixtures("corpora")
def test_theorems(start: Start, page: Path, tmp_path: Path) -> None:
    sizes = {"FOLDER": tmp_path / "theorems", "NUM_MODELS": 4, "SEEDS": (1, 2)}
    start("theorems", docs=lambda _: passages(60), **sizes)
    written = page.read_text(encoding="utf-8")
    assert written.count("**Verdict: ") == 2
    assert "Code: `today`.\n" in written


@pytest.mark.parametrize("part", ["train", "llama", "audit", "memory"])
def test_a_part_of_the_gpu_benchmark_runs_on_a_processor(
    part: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(BENCHMARKS)
    monkeypatch.chdir(tmp_path)
    gpu, bench = import_module("gpu"), import_module("gpu_bench")
    assert gpu.PARTS[part](bench.Bench(bench.TINY, torch.device("cpu")))
