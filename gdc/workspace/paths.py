"""A name of ours -> the path where it lies in a workspace."""

from pathlib import Path
from typing import Final

PARAMS: Final = Path("params.yaml")
CODE: Final = Path("data/code.json")
CODE_CACHE: Final = Path("work/code_digests.json")
# Here while MLflow lacks the end of a run: the next one records it, though no stage has to run.
UNRECORDED: Final = Path("work/unrecorded")
MANIFEST: Final = Path("data/manifest.json")
PRETRAINED: Final = Path("data/pretrained.json")
LISTED: Final = Path("data/listed.json")
TOKENIZER: Final = Path("data/tokenizer")
CORPUS_SUMMARY: Final = Path("data/corpus.json")
SCORES_SUMMARY: Final = Path("data/scores.json")
CALIBRATION: Final = Path("data/calibration.json")
QUADRANTS_SUMMARY: Final = Path("data/quadrants.json")
SPANS_SUMMARY: Final = Path("data/spans.json")
CHOICE: Final = Path("data/choice.json")
CURATED_FOLDER: Final = Path("data/curated")
ABOUT_CURATED: Final = CURATED_FOLDER / "about.json"
SAMPLES: Final = Path("data/samples.parquet")
TEXTS_INDEX: Final = Path("work/texts-index")
REPORT: Final = Path("reports/report.json")
PAGE: Final = Path("reports/report.html")
ARM_NUMBERS: Final = Path("reports/arms")
LOSS_CURVES: Final = Path("reports/loss_curves.csv")
LOSSES: Final = Path("reports/losses.png")
PICTURE: Final = Path("reports/data_map.png")
ROC: Final = Path("reports/roc.png")
GROUPS: Final = Path("reports/leakage.png")
FRONT: Final = Path("reports/front.png")
REFERENCE_FOLDER: Final = Path("data/reference")


def code_path(stage: str) -> Path:
    """Where the digest of a stage's code lies, alone: what the stage depends on."""
    return Path(f"data/code/{stage}.json")


def reference_tokens_path(number: int | str) -> Path:
    """Where the token losses under one reference model lie."""
    return REFERENCE_FOLDER / f"tokens-{number}.parquet"


def plan_path(arm: str) -> Path:
    """Where an arm's plan lies."""
    return Path(f"data/plans/{arm}.parquet")


def model_path(arm: str, seed: int) -> Path:
    """Where a trained model lies; the tracked run's arm is ``tracked``.

    Tracked models lie apart: the stage that reads all of them must not wait for retrained ones.
    """
    folder = "data/tracked" if arm == "tracked" else "data/models"
    return Path(folder) / f"{arm}-{seed}"


def weights_path(arm: str, seed: int) -> Path:
    """Where the weights that a run chose itself lie, beside its model."""
    return model_path(arm, seed) / "weights.parquet"


def trace_path(seed: int) -> Path:
    """Where the trace of a tracked run lies."""
    return Path(f"data/trace/{seed}")


def audit_path(arm: str, seed: int) -> Path:
    """Where the audit of one model lies."""
    return Path(f"data/audits/{arm}-{seed}.parquet")


def membership_path(arm: str, seed: int) -> Path:
    """Where the membership table of one model lies."""
    return Path(f"data/membership/{arm}-{seed}.parquet")


def metrics_path(arm: str, seed: int) -> Path:
    """Where the metrics of one model lie."""
    return Path(f"metrics/{arm}-{seed}.json")


def lineage_path(stage: str, cell: str | None) -> Path:
    """Where a stage says which MLflow run and model it made."""
    return Path(f"lineage/{stage}-{cell}.json" if cell else f"lineage/{stage}.json")
