"""What the models of a run cost."""

from pathlib import Path

import pytest

from flows import dry_run
from gdc.commands import estimate
from gdc.config import InterveneConfig, Params, TextSource
from gdc.corpus import sources
from gdc.workspace import files, paths
from tasks.graph import Graph
from tests.builders import preset_text


@pytest.fixture
def params(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Params:
    monkeypatch.chdir(tmp_path)
    Path("params.yaml").write_text(preset_text("docs"))
    return files.load_params()


def with_source(params: Params, *, num_rows: int, max_samples: int) -> Params:
    """The parameters with a source of short texts in the current folder."""
    text = "one short text of several words, and then some more of them"
    Path("a.txt").write_text("\n\n".join([text] * num_rows))
    source = TextSource(kind="text", path="a.txt", unit="paragraph")
    ingest = params.ingest.model_copy(update={"source": source, "max_samples": max_samples})
    return params.model_copy(update={"ingest": ingest})


def test_passes_count_each_model_and_a_third_for_a_frozen_one(params: Params) -> None:
    epochs, probes = 6, 2
    few = params.model_copy(
        update={
            "training": params.training.model_copy(update={"epochs": epochs}),
            "train": params.train.model_copy(
                update={"seeds": (0,), "probes_per_epoch": probes, "self_influence": False}
            ),
            "reference": params.reference.model_copy(update={"models": (0, 1)}),
            "retrain": params.retrain.model_copy(update={"arms": ("none",), "seeds": (1, 2, 3)}),
        }
    )
    # The tracked run with its 12 frozen passes, two half-models, three retrained ones.
    assert estimate.passes(few) == pytest.approx(6 + 12 / 3 + 2 * (3 + 1 / 3) + 3 * 6)
    taught = few.model_copy(update={"train": few.train.model_copy(update={"self_influence": True})})
    assert estimate.passes(taught) - estimate.passes(few) == pytest.approx(6 / 3)
    # Texts of a private arm pass the model alone; what follows a run looks at all texts each pass.
    arms = {
        "none": {"rule": "none"},
        "live": {"rule": "live", "fraction": 0.1, "weight": 0},
        "chance": {"rule": "shuffled", "of": "live"},
        "dp": {
            "rule": "dp-sgd", "clip_norm": 1, "noise_multiplier": 1,
            "target_epsilon": None, "delta": 1e-5,
        },
    }  # fmt: skip
    intervene = InterveneConfig.model_validate(
        {"curated_arm": "auto", "recommend": None, "arms": arms}
    )
    retrain = few.retrain.model_copy(update={"arms": tuple(arms)})
    all_arms = few.model_copy(update={"intervene": intervene, "retrain": retrain})
    more = estimate.passes(all_arms) - estimate.passes(few)
    assert more == pytest.approx(3 * 6 * (4 / 3 + 4 / 3 + 5))
    # The pretrained model is asked once.
    models = params.reference.model_copy(update={"models": ("base", 0, 1)})
    more = estimate.passes(few.model_copy(update={"reference": models})) - estimate.passes(few)
    assert more == pytest.approx(1 / 3)


def test_tokens_are_those_that_the_last_run_counted(params: Params) -> None:
    params = with_source(params, num_rows=400, max_samples=300)
    tokens, samples = estimate.count_tokens(params)
    assert samples == 300
    assert 10 * samples < tokens < 1000 * samples
    files.write_json(paths.CORPUS_SUMMARY, {"num_train_tokens": 700, "num_samples": 7})
    assert estimate.count_tokens(params) == (700, 7)
    # Of another corpus than that of the params.
    assert estimate.count_tokens(params, is_counted=False) == (tokens, samples)


def test_the_measured_speed_makes_minutes(params: Params, monkeypatch: pytest.MonkeyPatch) -> None:
    files.write_json(paths.CORPUS_SUMMARY, {"num_train_tokens": 6000, "num_samples": 7})
    speed, num_weights = estimate.measure(params, seconds=0.1)
    assert speed > 0
    assert num_weights > params.ingest.tokenizer.vocab_size  # type: ignore[union-attr]  # bpe
    monkeypatch.setattr(estimate, "measure", lambda _params: (100.0, 1000))
    found = estimate.estimate(params, num_workers=2)
    assert found.minutes == pytest.approx(estimate.passes(params) * 6000 / 100 / 2 / 60)
    assert found.gigabytes >= found.num_models * 4000 / 1e9


def test_a_dry_run_names_what_follows_from_a_change(
    params: Params, monkeypatch: pytest.MonkeyPatch
) -> None:
    upstream = {
        "manifest": frozenset[str](), "ingest": frozenset({"manifest"}),
        "train@0": frozenset({"ingest"}), "score": frozenset({"train@0"}),
        "report": frozenset({"score"}),
    }  # fmt: skip
    monkeypatch.setattr(dry_run, "load_graph", lambda _folder: Graph(upstream))
    monkeypatch.setattr(dry_run, "edited_stages", set[str])
    monkeypatch.setattr(dry_run, "changed_targets", lambda: frozenset({"score"}))
    monkeypatch.setattr(dry_run, "_source_changed", lambda _params: False)
    monkeypatch.setattr(dry_run, "read_seconds", lambda: {"score": 5.0, "report": 3.0})
    found = dry_run.dry_run(params, max_workers=1)
    assert (found.targets, found.usual_seconds, found.cost) == (["score", "report"], 8.0, None)
    assert found.sentences()[1] == "time: about 8 s, as when they last ran"
    monkeypatch.setattr(dry_run, "_source_changed", lambda _params: True)
    cost = estimate.Estimate(3, 7000, 100.0, 2.0, 0.25)
    is_counted: list[bool] = []

    def fixed_cost(*_: object, **named: bool) -> estimate.Estimate:
        is_counted.append(named["is_counted"])
        return cost

    monkeypatch.setattr(dry_run, "estimate", fixed_cost)
    found = dry_run.dry_run(params, max_workers=1)
    assert found.targets == ["ingest", "train@0", "score", "report"]
    assert is_counted == [False]
    assert found.sentences()[-1] == "models and traces fill about 0.25 GB"
    assert "2 min 0 s; audits and other stages come on top" in found.sentences()[-2]
    monkeypatch.setattr(dry_run, "changed_targets", frozenset[str])
    monkeypatch.setattr(dry_run, "_source_changed", lambda _params: False)
    assert dry_run.dry_run(params).sentences()[0].startswith("Nothing changed since the last run")


def test_a_source_other_than_that_of_params_is_a_changed_one(params: Params) -> None:
    known = sources.fingerprint(params.ingest.source)
    files.write_json(paths.MANIFEST, known)
    assert not dry_run._source_changed(params)
    other = with_source(params, num_rows=3, max_samples=3)
    # Though its content were the same.
    files.write_json(paths.MANIFEST, sources.fingerprint(other.ingest.source))
    assert dry_run._source_changed(other)
