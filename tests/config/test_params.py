"""params.yaml: what the repository ships is accepted; every rule refuses and says both values."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from scipy.stats import binom

from gdc.config import parse_params
from gdc.config.section import least_num_perm
from gdc.errors import ConfigError
from gdc.workspace import files, paths
from tests.builders import REPOSITORY, params_with
from tests.config.builders import PRETRAINED, SIZES, changed, values_of

PRESETS = sorted((REPOSITORY / "gdc/presets").glob("*.yaml"))
SHIPPED = [REPOSITORY / paths.PARAMS, *PRESETS]

KEEP = {"rule": "none"}
MASK = {"rule": "mask-spans"}
PRIVATE = {
    "rule": "dp-sgd", "clip_norm": 1, "noise_multiplier": None, "target_epsilon": 8, "delta": 1e-5,
}  # fmt: skip
LIVE = {"rule": "live", "fraction": 0.1, "weight": 0}
ORDER = {"rule": "order", "score": "memorization", "tie_break": "difficulty", "fraction": 0.1}
WORDS = {"prefix_words": 2, "secret_words": 2, "repeats": [1], "per_level": 1, "num_twins": 0}
GPT2 = {"kind": "gpt2", **SIZES, "hidden_size": 8, "num_layers": 1, "num_heads": 2, "dropout": 0}


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.name)
def test_what_the_repository_ships_is_accepted(path: Path) -> None:
    parse_params(values_of(path), name=path.name)


def test_an_axis_may_be_left_to_the_calibration() -> None:
    assert parse_params(changed({"partition.axis": "auto"}), name="test").partition.axis == "auto"


def test_the_repository_runs_the_docs_preset() -> None:
    docs = REPOSITORY / "gdc/presets/docs.yaml"
    assert (REPOSITORY / paths.PARAMS).read_bytes() == docs.read_bytes()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        pytest.param(
            {"ingest.canaries.words": {**WORDS, "repeats": [1, 4, 1]}},
            r"ingest\.canaries\.words: .*repeats: expected distinct levels, got \[1, 4, 1\]",
            id="a repeat level stands twice",
        ),
        pytest.param(
            {"ingest.source": {"kind": "text", "path": "my\0.txt", "unit": "line"}},
            r"ingest\.source\.text\.path: .*expected text without NUL characters",
            id="a path that no file can have",
        ),
        pytest.param(
            {"model": {**GPT2, "hidden_size": 130, "num_heads": 4}},
            r"model\.hidden_size \(130\) must be a multiple of model\.num_heads \(4\)",
            id="heads do not divide the width",
        ),
        pytest.param(
            {"score.epsilon": {"kind": "quantile", "value": 1.5}},
            r"score\.epsilon: .*a quantile must be in \[0, 1\], got 1\.5",
            id="a quantile above one",
        ),
        pytest.param(
            {"partition.difficulty": {"kind": "quantile", "value": -0.1}},
            r"partition\.difficulty: .*a quantile must be in \[0, 1\], got -0\.1",
            id="a quantile below zero",
        ),
        pytest.param(
            {"intervene": {"curated_arm": "paper", "recommend": None, "arms": {"none": KEEP}}},
            r"intervene: .*curated_arm: expected one of \['none'\] or auto, got 'paper'",
            id="the curated arm is not defined",
        ),
        pytest.param(
            {"intervene": {"curated_arm": "tracked", "recommend": None, "arms": {"tracked": KEEP}}},
            r"intervene\.arms: 'tracked' names the models of stage train",
            id="an arm takes the tracked run's name",
        ),
        pytest.param(
            {
                "intervene": {
                    "curated_arm": "a",
                    "recommend": None,
                    "arms": {"b": KEEP, "a": KEEP},
                },
                "retrain.arms": ["a", "oracle"],
            },
            r"retrain\.arms: \['oracle'\] not defined; .* intervene\.arms: \['a', 'b'\]",
            id="a retrained arm is not defined",
        ),
        pytest.param(
            {"train.token_losses": False, "intervene.arms.paper": MASK},
            r"intervene\.arms\.paper: mask-spans needs train\.token_losses: true, got false",
            id="spans are masked but not found",
        ),
        pytest.param(
            {"training.epochs": 2, "score.num_early": 1, "intervene.arms.live": LIVE},
            r"intervene\.arms\.live: live revises .* training\.epochs of at least 3, got 2",
            id="weights are revised when training is over",
        ),
        pytest.param(
            {"intervene.arms.live": {**LIVE, "weight": 1}},
            r"intervene\.arms\.live\.live\.weight: .*less than 1, got 1",
            id="revised weights are those that all have",
        ),
        pytest.param(
            {"intervene.arms.first": {**ORDER, "score": "zlip"}},
            r"intervene\.arms\.first\.score: expected one of .*, got 'zlip'",
            id="an order by a score that is not written",
        ),
        pytest.param(
            {"intervene.arms.live": LIVE, "intervene.curated_arm": "live"},
            r"curated_arm: live changes how a model is trained, which no data set shows",
            id="curated data by weights that follow a run",
        ),
        pytest.param(
            {
                "intervene.arms.first": ORDER,
                "intervene.arms.chance": {"rule": "shuffled", "of": "first"},
                "intervene.curated_arm": "chance",
            },
            r"curated_arm: chance changes how a model is trained, which no data set shows",
            id="curated data by an order of chance",
        ),
        pytest.param(
            {
                "intervene.arms.live": LIVE,
                "intervene.curated_arm": "auto",
                "retrain.arms": ["live"],
            },
            r"retrain\.arms: \['live'\] change how a model is trained, .*data/curated",
            id="no arm to make the curated data",
        ),
        pytest.param(
            {"intervene.arms.dp": {**PRIVATE, "noise_multiplier": 1}},
            r"intervene\.arms\.dp\.dp-sgd: .*either noise_multiplier or .*got 1.0 and 8.0",
            id="noise that is given twice",
        ),
        pytest.param(
            {"intervene.arms.dp": {**PRIVATE, "target_epsilon": None}},
            r"either noise_multiplier or target_epsilon, .*got None and None",
            id="noise that is not given",
        ),
        pytest.param(
            {
                "intervene.arms.dp": PRIVATE,
                "intervene.arms.chance": {"rule": "shuffled", "of": "dp"},
            },
            r"intervene\.arms\.chance\.of: expected one of .*, got 'dp'",
            id="privacy dealt out by chance",
        ),
        pytest.param(
            {"intervene.arms.dp": PRIVATE, "intervene.curated_arm": "dp"},
            r"curated_arm: dp changes how a model is trained, which no data set shows",
            id="curated data by privacy",
        ),
        pytest.param(
            {"train.seeds": [0, 2], "retrain.seeds": [1, 2]},
            r"retrain\.seeds: \[2\] also in train\.seeds",
            id="a plan would be judged on its own run",
        ),
        pytest.param(
            {"score.mode": "probe", "train.probes_per_epoch": 0},
            r"score\.mode is 'probe' but train\.probes_per_epoch is 0",
            id="probes are read but not recorded",
        ),
        pytest.param(
            {
                "score.enabled": ["final_loss", "random", "hard_token_drop"],
                "train.token_losses": False,
            },
            r"score\.enabled: hard_token_drop needs train\.token_losses: true, got false",
            id="tokens are read but not recorded",
        ),
        pytest.param(
            {
                "score.enabled": ["self_influence", "final_loss", "random"],
                "train.self_influence": False,
            },
            r"score\.enabled: self_influence needs train\.self_influence: true, got false",
            id="gains are read but not recorded",
        ),
        pytest.param(
            {"score.enabled": ["base_gap", "final_loss", "random"]},
            r"score\.enabled: base_gap needs model\.kind: pretrained, got \w+",
            id="there is no base model",
        ),
        pytest.param(
            {
                "score.enabled": ["distilled_gap", "final_loss", "random"],
                "reference.models": [0, 1],
            },
            r"distilled_gap needs 4 or more reference models of halves, .*models: \[0, 1\]",
            id="a score lacks reference models",
        ),
        pytest.param(
            {"reference.models": ["base", 0, 1]},
            r"reference\.models: base needs model\.kind: pretrained, got \w+",
            id="there is no base model to refer to",
        ),
        pytest.param(
            {"reference.models": ["other"]},
            r"reference\.models\.0\S+: Input should be 'base', got 'other'",
            id="a reference model of another name",
        ),
        pytest.param(
            {
                "score.mode": "online",
                "score.enabled": ["online_probe_gap", "final_loss", "random"],
                "train.probes_per_epoch": 0,
            },
            r"online_probe_gap: expected .* train\.probes_per_epoch of at least 1, got \d+ and 0",
            id="both modes are read but not recorded",
        ),
        pytest.param(
            {
                "score.enabled": ["online_late_contrast", "memorization", "final_loss", "random"],
                "training.epochs": 1,
            },
            r"online_late_contrast.*: expected training\.epochs of at least 2 .*, got 1 and \d+",
            id="a single pass has no middle passes",
        ),
        pytest.param(
            {"model": PRETRAINED, "ingest.tokenizer": {"kind": "bpe", "vocab_size": 300}},
            r"needs its own tokenizer, expected \{kind: pretrained, name: some/model\}",
            id="a pretrained model with a trained tokenizer",
        ),
        pytest.param(
            {
                "model": PRETRAINED,
                "ingest.tokenizer": {"kind": "pretrained", "name": "other", "revision": None},
            },
            r"needs its own tokenizer, expected \{kind: pretrained, name: some/model\}",
            id="a pretrained model with another's tokenizer",
        ),
        pytest.param(
            {
                "training.epochs": 1,
                "score.mode": "online",
                "score.num_early": 1,
                "score.enabled": ["random"],
                "intervene.arms.top.score": "random",
            },
            r"scores need 2 checkpoints, got 1",
            id="one checkpoint has no step",
        ),
        pytest.param(
            {"training.epochs": 2, "score.mode": "online", "score.num_early": 3},
            r"score\.num_early \(3\) exceeds the number of online checkpoints \(2\)",
            id="more early checkpoints than checkpoints",
        ),
        pytest.param(
            {
                "training.epochs": 2,
                "train.probes_per_epoch": 2,
                "score.mode": "probe",
                "score.num_early": 5,
            },
            r"score\.num_early \(5\) exceeds the number of probe checkpoints \(4\)",
            id="more early probes than probes",
        ),
        pytest.param(
            {"retrain.seeds": [1, 1]},
            r"retrain\.seeds: expected distinct entries, got \[1, 1\]",
            id="a cell stands twice",
        ),
        pytest.param(
            {
                "ingest.canaries.natural": {
                    "min_words": 50,
                    "max_words": 40,
                    "repeats": [1],
                    "per_level": 1,
                    "num_twins": 9,
                }
            },
            r"min_words \(50\) exceeds max_words \(40\)",
            id="no natural text has a length that is allowed",
        ),
        pytest.param(
            {"partition.axis": "mean_los"},
            r"partition\.axis: expected one of \[.*'mean_loss'.*\], got 'mean_los'",
            id="an axis that is not written",
        ),
        pytest.param(
            {
                "partition.axis": "auto",
                "ingest.canaries.natural": None,
                "ingest.canaries.digits.num_twins": 8,
            },
            r"partition\.axis: auto .*expected at least 2 .* num_twins of at least 9, got "
            r"\['words'\]\. Plant a second family, or name a score",
            id="an axis is to be chosen by one family",
        ),
        pytest.param(
            {"partition.axis": "auto", "partition.memorization": {"kind": "absolute", "value": 2}},
            r"axis: auto may take any; expected kind: quantile, got 2\.0 of kind: absolute",
            id="a value for a score that is not chosen yet",
        ),
        pytest.param(
            {"intervene.arms.top.score": "zlib"},
            r"intervene\.arms\.top\.score: expected one of \[.*\], got 'zlib'",
            id="an arm ranks by a score that is not written",
        ),
        pytest.param(
            {"intervene.arms.weight": {"rule": "weight-by-score", "score": "std_of_loss"}},
            r"intervene\.arms\.weight\.score: expected one of \[.*\], got 'std_of_loss'",
            id="an arm weighs by a score that is not written",
        ),
    ],
)
def test_every_rule_across_fields_refuses_and_says_both_values(
    changes: dict[str, object], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        parse_params(changed(changes), name="params.yaml")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        pytest.param(
            {"training.epoch": 3},
            r"training\.epoch: Extra inputs are not permitted, got 3",
            id="misspelt",
        ),
        pytest.param(
            {"training.epochs": "ten"},
            r"training\.epochs: Input should be a valid integer.*, got 'ten'",
            id="a word for a number",
        ),
        pytest.param(
            {"training.learning_rate": 0},
            r"training\.learning_rate: Input should be greater than 0, got 0",
            id="out of bounds",
        ),
        pytest.param(
            {"ingest.source.kind": "csv"},
            r"ingest\.source: Input tag 'csv' .*'python-docs', 'python-library'",
            id="a source that does not exist",
        ),
        pytest.param(
            {"intervene.arms.UPPER": KEEP},
            r"intervene\.arms\.UPPER.*: String should match pattern .*, got 'UPPER'",
            id="an arm that is no file name",
        ),
        pytest.param(
            {"intervene.arms.control": {"rule": "random", "fraction": 1, "weight": 0}},
            r"intervene\.arms\.control\.random\.fraction: Input should be less than 1, got 1",
            id="an arm that drops everything",
        ),
        pytest.param(
            {"intervene.recommend": {"max_extraction": 10, "max_perplexity_increase": 5}},
            r"intervene\.recommend\.max_extraction: Input should be less .* to 1, got 10",
            id="a percentage for a share",
        ),
        pytest.param(
            {"score": None}, r"score: Input should be .*, got None", id="an empty section"
        ),
    ],
)
def test_a_wrong_value_is_named_with_what_stands_there(
    changes: dict[str, object], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        parse_params(changed(changes), name="params.yaml")


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("train.seeds", [False]), ("retrain.seeds", [True]), ("retrain.seeds", [1.0]),
        ("retrain.seeds", ["\n0"]), ("retrain.seeds", ["1_0"]), ("retrain.seeds", ["$(touch X)1"]),
        ("retrain.seeds", [{"$(touch X)": 1}]), ("reference.models", [0.0, 1.0]),
        ("reference.models", [False, True]), ("train.seeds", [2**63]), ("retrain.seeds", [-1]),
        ("seed", 2**64), ("seed", True), ("train.token_losses", 1), ("train.token_losses", "yes"),
        ("training.num_threads", 10**9), ("evaluate.num_threads", 2**31),
        ("ingest.tokenizer.vocab_size", 10**9), ("model.hidden_size", 10**9),
        ("model.num_layers", 10**6), ("model.block_size", 10**9), ("training.epochs", 2.0),
        ("ingest.canaries.words.secret_words", 2**63), ("ingest.canaries.words.repeats", [2**31]),
        ("report.num_hotspots", 2**65), ("report.max_points", "20"), ("reference.num_perm", 10**9),
        ("intervene.arms.paper.hard_copies", 10**6), ("training.learning_rate", "0.01"),
        ("ingest.max_samples", 2**63), ("ingest.max_chars", 2**40),
    ],
)  # fmt: skip
def test_what_another_type_or_an_absurd_number_would_break_later_is_refused(
    path: str, value: object
) -> None:
    last = path.rpartition(".")[2]
    one = rf"params\.yaml: \d wrong value\(s\):(\n  [\w.]*\b{last}\b[^\n]*)+"
    with pytest.raises(ConfigError) as error:
        parse_params(changed({path: value}), name="params.yaml")
    assert re.fullmatch(one, str(error.value))
    assert "at least 1 item" not in str(error.value)


@pytest.mark.parametrize("threshold", [0.02, 0.1, 0.3, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 1.0])
def test_few_unrelated_texts_are_compared_with_the_fewest_hash_values_that_are_accepted(
    threshold: float,
) -> None:
    """By the exact binomial: pairs a quarter as similar that share what all near copies do."""
    num_perm = max(16, least_num_perm(threshold))
    shared = binom.ppf(1e-9, num_perm, threshold)
    assert binom.sf(shared - 1, num_perm, threshold / 4) < 0.08


def test_too_few_hash_values_for_a_threshold_are_refused() -> None:
    message = r"reference.*at least 56 for threshold 0\.7, got 55.*Set num_perm: 128"
    with pytest.raises(ConfigError, match=message):
        parse_params(changed({"reference.num_perm": 55}), name="params.yaml")
    parse_params(changed({"reference.num_perm": 56}), name="params.yaml")


def test_the_largest_seed_and_a_whole_number_for_a_share_are_accepted() -> None:
    values = changed({"seed": 2**63 - 1, "train.seeds": [2**63 - 1], "training.learning_rate": 1})
    params = parse_params(values, name="params.yaml")
    assert params.train.seeds == (2**63 - 1,)
    torch.manual_seed(params.train.seeds[0])
    np.random.default_rng(params.seed)


def test_an_arm_has_a_name_that_fits_into_file_names() -> None:
    arms = {"none": KEEP, "paper": KEEP, "a" * 65: KEEP}
    message = r"intervene\.arms\.a{65}.*at most 64 characters"
    with pytest.raises(ConfigError, match=message):
        parse_params(changed({"intervene.arms": arms}), name="params.yaml")


def test_a_message_does_not_quote_all_that_stands_there() -> None:
    laughs: object = "lol"
    for _ in range(8):
        laughs = [laughs] * 9
    with pytest.raises(ConfigError) as error:
        parse_params(changed({"training.epochs": laughs, "seed": "x" * 10**6}), name="params.yaml")
    assert len(str(error.value)) < 2000


@pytest.mark.parametrize("text", ["seed: " + "9" * 5000, "{a: " * 5000], ids=["digits", "levels"])
def test_yaml_that_cannot_be_read_is_refused_in_words(text: str) -> None:
    with pytest.raises(ConfigError, match=r"params\.yaml: not (valid )?YAML"):
        files.parse_yaml(text, paths.PARAMS)


def test_every_wrong_value_gets_its_line() -> None:
    wrong = {"training.epochs": 0, "training.batch_tokens": "many", "evaluate.num_thread": 1}
    with pytest.raises(ConfigError) as error:
        parse_params(changed(wrong), name="my.yaml")
    head, *lines = str(error.value).splitlines()
    assert head == "my.yaml: 3 wrong value(s):"
    assert [line.split(":")[0].strip() for line in lines] == [
        "training.epochs",
        "training.batch_tokens",
        "evaluate.num_thread",
    ]


def test_every_key_of_every_section_is_required() -> None:
    for section, value in values_of().items():
        for key in value if isinstance(value, dict) else ():
            lacking = {**values_of(), section: {k: v for k, v in value.items() if k != key}}
            # A union is told by its tag, so without `kind` its message names the tag.
            with pytest.raises(
                ConfigError, match=rf"{section}.*(Field required|is new|discriminator)"
            ):
                parse_params(lacking, name="params.yaml")


def test_params_cannot_be_changed() -> None:
    params = params_with(seed=3)
    with pytest.raises(ValidationError, match="frozen"):
        params.seed = 4  # type: ignore[misc]  # what is tested
    with pytest.raises(ValidationError, match="frozen"):
        params.training.epochs = 4  # type: ignore[misc]  # what is tested
