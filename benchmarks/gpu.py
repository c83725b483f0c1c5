"""One command for one CUDA GPU: speed, memory, resume and the paper's experiment at its model size.

    python benchmarks/gpu.py --write                # eight minutes at most; docs/results/gpu.md
    python benchmarks/gpu.py --tiny --device cpu    # every line of it with small models, for tests

Without a CUDA GPU it says so and ends with 0. Each part runs in a process of its own, so that one
that fails or runs out of memory is a line of the table and not the end. ``gpu.json`` (``--out``)
has all numbers. Models have random weights: speed and memory do not depend on them.
"""

import argparse
import json
import os
import signal
import statistics
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any, Final

import numpy as np
import result_pages
import torch
from numpy.typing import NDArray
from torch import nn
from training import _padded_rows

from gdc.config import Gpt2Model, Lora, PretrainedModel, TrainingConfig
from gdc.corpus.tokenizer import train_tokenizer
from gdc.statistics import markdown
from gdc.training import loop, losses
from gdc.training.batches import (
    PADDING,
    TokenizedTexts,
    Windows,
    cut_windows,
    pad_windows,
    plan_batches,
)
from gdc.training.distributed import SINGLE_PROCESS
from gdc.training.models import build_model, target_states
from gdc.training.recipe import Recipe, TrainingData
from gdc.workspace import files

COMMAND: Final = "benchmarks/gpu.py"
MINUTES: Final = 8.0
# Seconds that a part may take; the pipeline has all that is left.
LIMITS: Final = {"train": 150.0, "llama": 70.0, "audit": 60.0, "memory": 60.0, "resume": 60.0}
NO_TEXTS: Final = TokenizedTexts.from_ids([], 0)
# Dense bfloat16 operations a second, as the vendor says.
PEAKS: Final = {"H100": 989e12, "H200": 989e12, "A100": 312e12, "L40S": 362e12, "L4": 121e12}
PRODUCT_SIZE: Final = {"cuda": 8192, "cpu": 512}
VARIANTS: Final[Mapping[str, Mapping[str, Any]]] = {
    "Trainer": {},
    "Trainer, compiled": {"torch_compile": True},
    "Trainer, length groups": {"train_sampling_strategy": "group_by_length"},
    "Trainer, length groups, compiled": {
        "train_sampling_strategy": "group_by_length", "torch_compile": True,
    },
}  # fmt: skip


@dataclass(frozen=True)
class Size:
    """Sizes of everything, for a GPU or for a test of this script."""

    gpt2: Gpt2Model
    llama: Mapping[str, Any]
    batch_rows: int
    vocab_sizes: tuple[int, int]
    num_steps: int  # measured, after as many that warm up
    num_files: int  # of CPython's library
    max_chars: int  # of each
    max_samples: int  # of the pipeline
    pipeline_epochs: int


FULL: Final = Size(
    gpt2=Gpt2Model(
        kind="gpt2", block_size=1024, precision="bfloat16", hidden_size=768, num_layers=12,
        num_heads=12, dropout=0.0,
    ),
    llama={
        "hidden_size": 2048, "intermediate_size": 8192, "num_hidden_layers": 16,
        "num_attention_heads": 32, "num_key_value_heads": 8, "vocab_size": 32_000,
    },
    batch_rows=32, vocab_sizes=(50_257, 128_256), num_steps=10, num_files=400, max_chars=10**6,
    max_samples=20_000, pipeline_epochs=3,
)  # fmt: skip
TINY: Final = Size(
    gpt2=Gpt2Model(
        kind="gpt2", block_size=64, precision="float32", hidden_size=32, num_layers=2,
        num_heads=2, dropout=0.0,
    ),
    llama={
        "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2,
        "num_attention_heads": 2, "num_key_value_heads": 1, "vocab_size": 512,
    },
    batch_rows=4, vocab_sizes=(512, 1024), num_steps=2, num_files=20, max_chars=500,
    max_samples=80, pipeline_epochs=2,
)  # fmt: skip


def main() -> int:
    """Run all parts, or the one that is named, on the device."""
    options = _options()
    if options.device == "cuda" and not torch.cuda.is_available():
        sys.stdout.write("benchmarks/gpu.py: no CUDA GPU on this machine, so nothing was run.\n")
        return 0
    if options.part is not None:
        bench = Bench(TINY if options.tiny else FULL, torch.device(options.device))
        if options.device == "cpu":
            torch.set_num_threads(1)
        sys.stdout.write("\n" + json.dumps(PARTS[options.part](bench)) + "\n")
        return 0
    found = run_parts(options)
    options.out.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    text = page(found)
    sys.stdout.write(text)
    if options.write:
        result_pages.put(COMMAND, text)
    return 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--tiny", action="store_true", help="small models, to test this script")
    parser.add_argument("--write", action="store_true", help="write the table to the docs")
    parser.add_argument("--out", type=Path, default=Path("gpu.json"), help="all numbers")
    parser.add_argument("--part", help="only this part, as JSON on the last line")
    parser.add_argument("--minutes", type=float, default=MINUTES, help="of all parts at most")
    return parser.parse_args()


def run_parts(options: argparse.Namespace) -> dict[str, Any]:
    """What each part gives, or why it gave nothing."""
    deadline = time.monotonic() + 60 * options.minutes
    found: dict[str, Any] = {"device": _device_name(options.device), "torch": torch.__version__}
    for part in PUBLIC:
        left = deadline - time.monotonic()
        begun = time.monotonic()
        found[part] = run_part(part, options, min(left, LIMITS.get(part, left)))
        seconds = time.monotonic() - begun
        sys.stderr.write(f"{part}: {seconds:.0f} s: {json.dumps(found[part])}\n")
    return found


def run_part(part: str, options: argparse.Namespace, limit: float) -> dict[str, Any]:
    """A part in a process of its own; what it started ends with it."""
    command = [sys.executable, __file__, "--part", part, "--device", options.device]
    process = subprocess.Popen(
        [*command, *(["--tiny"] if options.tiny else [])],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip
    try:
        output, errors = process.communicate(timeout=max(limit, 1.0))
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        return {"failed": f"not done in {limit:.0f} seconds"}
    if process.returncode != 0:
        lines = errors.strip().splitlines()
        return {"failed": lines[-1] if lines else f"ended with {process.returncode}"}
    result: dict[str, Any] = json.loads(output.splitlines()[-1])
    return result


def _device_name(device: str) -> str:
    return torch.cuda.get_device_name() if device == "cuda" else "cpu"


# ---- what is trained, and clocks


@dataclass(frozen=True)
class Bench:
    """Sizes and the device."""

    size: Size
    device: torch.device

    @property
    def config(self) -> TrainingConfig:
        """The loop's parameters."""
        return TrainingConfig(
            epochs=1, batch_tokens=self.size.batch_rows * self.size.gpt2.block_size,
            learning_rate=1e-4, schedule="constant", warmup_steps=0, weight_decay=0.01,
            clip_norm=1.0, num_threads=1,
        )  # fmt: skip

    def model(self, vocab_size: int | None = None) -> nn.Module:
        """A GPT-2 with random weights."""
        size = vocab_size or self.size.vocab_sizes[0]
        return build_model(self.size.gpt2, vocab_size=size, end_of_text=0, seed=0).to(self.device)

    def texts(self) -> TokenizedTexts:
        """Files of CPython's library; a small vocabulary, as their ids only stand for any."""
        folder = Path(sysconfig.get_paths()["stdlib"])
        files = [f for f in sorted(folder.rglob("*.py")) if "site-packages" not in f.parts]
        step = max(1, len(files) // self.size.num_files)
        read = (f.read_text(encoding="utf-8", errors="replace") for f in files[::step])
        texts = [text[: self.size.max_chars] for text in read if text.strip()]
        tokenizer = train_tokenizer(texts[:50], 400)
        return TokenizedTexts.from_ids(tokenizer.encode(texts), tokenizer.end_of_text)

    def synchronize(self) -> None:
        """Wait for what runs on a GPU."""
        if self.device.type == "cuda":
            torch.cuda.synchronize()

    @contextmanager
    def autocast(self) -> Iterator[None]:
        """As the loop computes."""
        is_half = self.size.gpt2.precision == "bfloat16"
        with torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=is_half):
            yield

    def seconds_of(self, work: Callable[[], object]) -> float:
        """Seconds that some work takes, on the device too."""
        self.synchronize()
        begun = time.perf_counter()
        work()
        self.synchronize()
        return time.perf_counter() - begun

    def rate(self, step: Callable[[], int]) -> float:
        """Tokens a second of a step that returns its tokens: median of steps after warm-up."""
        for _ in range(self.size.num_steps):
            step()
        rates = []
        for _ in range(self.size.num_steps):
            self.synchronize()
            begun = time.perf_counter()
            num_tokens = step()
            self.synchronize()
            rates.append(num_tokens / (time.perf_counter() - begun))
        return statistics.median(rates)

    def peak_gigabytes(self, step: Callable[[], int]) -> float | str | None:
        """Memory of the device at the peak of a few steps; None: it has none of its own.

        A string where it did not suffice.
        """
        is_gpu = self.device.type == "cuda"
        if is_gpu:
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
        try:
            for _ in range(self.size.num_steps):
                step()
        except torch.OutOfMemoryError:
            return "out of memory"
        if not is_gpu:
            return None
        return torch.cuda.max_memory_allocated() / 1e9


def flops_a_token(model: nn.Module, config: Gpt2Model) -> float:
    """Operations of training on one token of a full window.

    Source: Chowdhery et al. 2022, arXiv:2204.02311, appendix B.
    """
    num_weights = sum(p.numel() for p in model.parameters())
    num_weights -= config.block_size * config.hidden_size
    return 6 * num_weights + 12 * config.num_layers * config.hidden_size * config.block_size


# ---- (a), (b): training


def train(bench: Bench) -> dict[str, Any]:
    """GPT-2 Small: our loop with and without records, and ``transformers.Trainer``."""
    texts = bench.texts()
    rates = {
        "untracked": bench.rate(_untracked_step(bench, texts)),
        "tracked": bench.rate(_tracked_step(bench, bench.model(), texts)),
    }
    if bench.device.type == "cuda":
        model = bench.model()
        model.get_submodule("transformer").compile(dynamic=True)
        rates["tracked, compiled"] = bench.rate(_tracked_step(bench, model, texts))
    with_losses = {}
    for name, options in VARIANTS.items():
        if bench.device.type == "cuda" or "torch_compile" not in options:
            rates[name], seconds_of_token = _trainer_rate(bench, texts, options)
            with_losses[name] = 1 / (1 / rates[name] + seconds_of_token)
    flops = flops_a_token(bench.model(), bench.size.gpt2)
    device = _device_name(bench.device.type)
    peak = next((peak for name, peak in PEAKS.items() if name in device), None)
    found = {
        "tokens_per_second": rates,
        "with_a_loss_pass_an_epoch": with_losses,
        "product_flops": _product_flops(bench),
        "flops_a_token": flops,
    }
    if peak is not None:
        found["mfu"] = {name: rate * flops / peak for name, rate in rates.items()}
    return found


def llama(bench: Bench) -> dict[str, Any]:
    """A Llama of 1 B parameters with LoRA, with and without records."""
    from transformers import LlamaConfig, LlamaForCausalLM  # noqa: PLC0415 - takes seconds

    from gdc.training.transformer_models import for_fine_tuning  # noqa: PLC0415 - as that

    texts, block_size = bench.texts(), bench.size.gpt2.block_size
    settings = LlamaConfig(**bench.size.llama, max_position_embeddings=block_size)
    lora = PretrainedModel(
        kind="pretrained", block_size=block_size, precision=bench.size.gpt2.precision, name="-",
        revision=None, gradient_checkpointing=True,
        lora=Lora(rank=8, alpha=16, dropout=0.0, target_modules=None),
    )  # fmt: skip
    with bench.device:
        model = for_fine_tuning(LlamaForCausalLM(settings), lora).train()
    num_weights = sum(p.numel() for p in model.parameters())
    return {
        "parameters": num_weights,
        "tokens_per_second": {
            "untracked": bench.rate(_untracked_step(bench, texts, model)),
            "tracked": bench.rate(_tracked_step(bench, model, texts)),
        },
    }


def _tracked_step(bench: Bench, model: nn.Module, texts: TokenizedTexts) -> Callable[[], int]:
    recipe = Recipe(bench.config, bench.size.gpt2.block_size, bench.size.gpt2.precision, seed=0)
    data = TrainingData.unweighted(texts, NO_TEXTS)
    return loop.Trainer(model, data, recipe, None, SINGLE_PROCESS).train_step


def _untracked_step(
    bench: Bench, texts: TokenizedTexts, model: nn.Module | None = None
) -> Callable[[], int]:
    """The same batches and updates, and nothing recorded."""
    model = bench.model() if model is None else model
    optimizer = torch.optim.AdamW(
        [p for p in model.parameters() if p.requires_grad], lr=1e-4, fused=True
    )
    windows, batches = _batches(bench, texts)

    def step() -> int:
        arrays = pad_windows(texts, windows, next(batches))
        inputs, targets = (torch.from_numpy(a).to(bench.device) for a in arrays)
        is_target = targets != PADDING
        with bench.autocast():
            nll = losses.target_nll(target_states(model, inputs, is_target), targets[is_target])
        loss = nll.mean()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]  # torch leaves it so
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        float(loss.detach())
        return len(nll)

    return step


def _batches(bench: Bench, texts: TokenizedTexts) -> tuple[Windows, Iterator[NDArray[np.int64]]]:
    windows = cut_windows(texts, bench.size.gpt2.block_size)

    def endless() -> Iterator[NDArray[np.int64]]:
        rng = np.random.default_rng([0, 0])
        while True:
            yield from plan_batches(windows.length, bench.config.batch_tokens, rng)

    return windows, endless()


def _trainer_rate(
    bench: Bench, texts: TokenizedTexts, options: Mapping[str, Any]
) -> tuple[float, float]:
    """Tokens a second of Trainer's training, and seconds a token of a pass for the losses."""
    import transformers  # noqa: PLC0415 - takes seconds

    windows = cut_windows(texts, bench.size.gpt2.block_size - 1)
    rows = [
        {"input_ids": torch.from_numpy(texts.ids[start : start + length + 1]).long()}
        for start, length in zip(windows.start, windows.length, strict=True)
    ]
    num_tokens: list[int] = []
    ends: list[float] = []

    def collate(batch: list[dict[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
        num_tokens.append(sum(len(row["input_ids"]) - 1 for row in batch))
        return _padded_rows(batch)

    class Clock(transformers.TrainerCallback):
        def on_step_end(self, *_: object, **__: object) -> None:
            bench.synchronize()
            ends.append(time.perf_counter())

    first, last = bench.size.num_steps - 1, 2 * bench.size.num_steps - 1
    with tempfile.TemporaryDirectory() as folder:
        arguments = transformers.TrainingArguments(
            output_dir=folder, max_steps=last + 1, max_grad_norm=1.0, learning_rate=1e-4,
            per_device_train_batch_size=bench.size.batch_rows,
            per_device_eval_batch_size=bench.size.batch_rows, lr_scheduler_type="constant",
            bf16=bench.size.gpt2.precision == "bfloat16", use_cpu=bench.device.type == "cpu",
            seed=0, report_to=[], logging_strategy="no", save_strategy="no", disable_tqdm=True,
            prediction_loss_only=True, **options,
        )  # fmt: skip
        part = rows[: bench.size.num_steps * bench.size.batch_rows]
        run = transformers.Trainer(
            model=bench.model(), args=arguments, data_collator=collate, train_dataset=rows,
            eval_dataset=part, callbacks=[Clock()],
        )  # fmt: skip
        run.train()
        rate = sum(num_tokens[first + 1 : last + 1]) / (ends[last] - ends[first])
        run.evaluate()
        seconds = bench.seconds_of(run.evaluate)
    return rate, seconds / sum(len(row["input_ids"]) - 1 for row in part)


def _product_flops(bench: Bench) -> float:
    """Operations a second of large matrix products in the precision of training."""
    n = PRODUCT_SIZE[bench.device.type]
    dtype = torch.bfloat16 if bench.size.gpt2.precision == "bfloat16" else torch.float32
    one, other = (torch.randn(n, n, device=bench.device, dtype=dtype) for _ in range(2))
    _ = one @ other
    return 2 * n**3 * 10 / bench.seconds_of(lambda: [one @ other for _ in range(10)])


# ---- (c): audits; (d): memory; (e): resume; (f): the pipeline


def audit(bench: Bench) -> dict[str, Any]:
    """The pass that all audits are computed from, and greedy continuations by ``generate``."""
    model, texts, size = bench.model().eval(), bench.texts(), bench.size

    def one_pass() -> None:
        with bench.autocast():
            losses.token_records(
                model, texts, block_size=size.gpt2.block_size,
                batch_tokens=bench.config.batch_tokens,
            )  # fmt: skip

    length = size.gpt2.block_size // 2
    prompts = torch.from_numpy(texts.ids[: size.batch_rows * length].astype(np.int64))
    prompts = prompts.reshape(-1, length).to(bench.device)

    def generate() -> None:
        with torch.no_grad(), bench.autocast():
            model.generate(
                prompts, attention_mask=torch.ones_like(prompts), do_sample=False, pad_token_id=0,
                min_new_tokens=length, max_new_tokens=length, cache_implementation="static",
            )  # type: ignore[operator]  # a model of transformers  # fmt: skip

    one_pass()
    generate()
    num_tokens = int(texts.num_tokens.sum())
    return {
        "tokens_per_second": {
            "audit pass": num_tokens / bench.seconds_of(one_pass),
            "greedy, static cache": prompts.numel() / bench.seconds_of(generate),
        }
    }


def memory(bench: Bench) -> dict[str, Any]:
    """Peak memory of training steps by vocabulary, ours and with all logits at once."""
    texts, limit, found = bench.texts(), losses.MAX_LOGITS, {}
    for vocab_size in bench.size.vocab_sizes:
        for name, max_logits in (("ours", limit), ("plain logits", sys.maxsize)):
            losses.MAX_LOGITS = max_logits  # type: ignore[misc]  # of the comparison alone
            step = _tracked_step(bench, bench.model(vocab_size), texts)
            found[f"{vocab_size:,} ids, {name}"] = bench.peak_gigabytes(step)
    return {"gigabytes": found}


def resume(bench: Bench) -> dict[str, Any]:
    """Weights of a run that was killed and resumed against those of one that was not."""
    with tempfile.TemporaryDirectory() as folder:
        for name, kills in (("whole", ()), ("again", ()), ("killed", (True, False))):
            for is_killed in kills or (False,):
                _train_once(bench, Path(folder, name), is_killed=is_killed)
        whole, again, killed = (
            torch.load(Path(folder, name, "weights.pt")) for name in ("whole", "again", "killed")
        )
    return {
        "largest_difference_after_a_kill": float((whole - killed).abs().max()),
        "largest_difference_of_two_whole_runs": float((whole - again).abs().max()),
        "largest_weight": float(whole.abs().max()),
    }


def _train_once(bench: Bench, folder: Path, *, is_killed: bool) -> None:
    """Train a few steps in a process of its own, which may kill itself on the way."""
    variables = {**os.environ, "GDC_CHECKPOINT_SECONDS": "0", "GPU_FOLDER": str(folder)}
    variables["GPU_DIES"] = "1" if is_killed else ""
    command = [sys.executable, __file__, "--part", "resumed", "--device", bench.device.type]
    command += ["--tiny"] if bench.size is TINY else []
    done = subprocess.run(command, env=variables, capture_output=True, text=True, check=False)
    expected = -signal.SIGKILL if is_killed else 0
    if done.returncode != expected:
        raise SystemExit(f"expected exit code {expected}, got {done.returncode}: {done.stderr}")


def _resumed(bench: Bench) -> dict[str, Any]:
    """One of the runs of ``resume``."""
    folder, num_steps = Path(os.environ["GPU_FOLDER"]), 2 * bench.size.num_steps
    size, model = bench.size.gpt2, bench.model()
    recipe = Recipe(bench.config, size.block_size, size.precision, seed=0, num_steps=num_steps)

    def die(recording: Any) -> None:  # noqa: ANN401 - Recording
        if os.environ["GPU_DIES"] and recording.curve[-1][0] > num_steps // 2:
            os.kill(os.getpid(), signal.SIGKILL)

    data = TrainingData.unweighted(bench.texts(), NO_TEXTS)
    loop.train(model, data, recipe, checkpoints=folder / "checkpoints", name="gpu", watch=die)
    weights = torch.cat([p.detach().flatten().cpu() for p in model.parameters()])
    folder.mkdir(exist_ok=True)
    torch.save(weights, folder / "weights.pt")
    return {}


def pipeline(bench: Bench) -> dict[str, Any]:
    """Preset `gpt2-wikitext` on CPython's documentation: arms, seeds, leakage and perplexity."""
    with tempfile.TemporaryDirectory() as folder:
        preset = resources.files("gdc") / "presets" / "gpt2-wikitext.yaml"
        values = files.parse_yaml(preset.read_text(encoding="utf-8"), Path("gpt2-wikitext.yaml"))
        adapt(values, bench.size)
        subprocess.run(["git", "init", "--quiet"], cwd=folder, check=True)
        _gdc(folder, bench, "init", "docs", "--force")
        # JSON is YAML.
        Path(folder, "params.yaml").write_text(json.dumps(values), encoding="utf-8")
        seconds = bench.seconds_of(lambda: _gdc(folder, bench, "run"))
        report = json.loads(Path(folder, "reports/report.json").read_text(encoding="utf-8"))
        summary = json.loads(Path(folder, "data/corpus.json").read_text(encoding="utf-8"))
    arms = {
        arm["arm"]: {
            "perplexity": arm["perplexity"]["mean"],
            "extraction_rate": arm["extraction_rate"]["mean"],
        }
        for arm in report["arms"]
    }
    return {"seconds": seconds, "train_tokens": summary["num_train_tokens"], "arms": arms}


def adapt(values: dict[str, Any], size: Size) -> None:
    """Make the preset's run fit the time: another source, fewer arms and no reference models."""
    values["ingest"] |= {
        "source": {"kind": "python-library"}, "max_samples": size.max_samples,
        "validation_fraction": 0.1,
    }  # fmt: skip
    is_tiny = size is TINY
    if is_tiny:
        # Texts of the library are longer than its windows.
        values["ingest"]["canaries"]["natural"] = None
    values["ingest"]["tokenizer"]["vocab_size"] = 400 if is_tiny else 8192
    for family in filter(None, values["ingest"]["canaries"].values()):
        family |= {"per_level": 2 if is_tiny else 10, "num_twins": 9 if is_tiny else 50}
    values["model"] = size.gpt2.model_dump(mode="json")
    values["training"] |= {"epochs": size.pipeline_epochs, "warmup_steps": 2, "num_threads": 1}
    values["training"]["batch_tokens"] = size.batch_rows * size.gpt2.block_size
    values["evaluate"] |= {"num_threads": 1}
    values["train"] |= {"probes_per_epoch": 2}
    values["reference"]["models"] = []
    values["score"]["enabled"].remove("reference_gap")
    values["retrain"] |= {"arms": ["none", "paper", "random"], "seeds": [1] if is_tiny else [1, 2]}


def _gdc(folder: str, bench: Bench, *arguments: str) -> None:
    variables = {**os.environ, "GDC_DEVICE": bench.device.type, "MLFLOW_TRACKING_URI": ""}
    done = subprocess.run(
        [sys.executable, "-P", "-m", "gdc", *arguments],
        cwd=folder, env=variables, capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode != 0:
        raise SystemExit(" ".join(done.stdout.split()[-60:]) + done.stderr[-500:])


# ---- the table


def page(found: Mapping[str, Any]) -> str:
    """All numbers as Markdown."""
    rows: list[list[str]] = []
    for part in PUBLIC:
        result = found[part]
        if "failed" in result:
            rows.append([part, "failed", result["failed"]])
            continue
        rows += [[part, *row] for row in _flat(result)]
    text = markdown.table(("part", "what", "measured"), rows)
    return f"{found['device']}, torch {found['torch']}.\n\n{text}"


def _flat(values: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, str]]:
    for name, value in values.items():
        label = f"{before}{name.replace('_', ' ')}"
        if isinstance(value, Mapping):
            yield from _flat(value, f"{label}: ")
        else:
            is_number = isinstance(value, float | int)
            yield label, f"{value:,.4g}" if is_number else value or "not measured"


PUBLIC: Final = ("train", "llama", "audit", "memory", "resume", "pipeline")
PARTS: Final[dict[str, Callable[[Bench], dict[str, Any]]]] = {
    "train": train, "llama": llama, "audit": audit, "memory": memory, "resume": resume,
    "pipeline": pipeline, "resumed": _resumed,
}  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
