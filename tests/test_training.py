"""Training: both engines, the order of rows, batches, early stop, kill and resume, the traps by name."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from helpers import engines
from helpers.batching import collate, plan
from helpers.chat import IGNORE, encode_example, generate
from helpers.errors import UserError
from helpers.models import Model, load_model, load_tokenizer
from helpers.training import TrainSettings, should_stop, suited, train
from tests.tiny import ANSWERS, chat

ROOT = Path(__file__).resolve().parent.parent
# The base's four questions, each with the answer of another one: all words are known, all answers are new.
FACTS = dict(zip(ANSWERS, [*list(ANSWERS.values())[1:], *list(ANSWERS.values())[:1]], strict=True))
ROWS = [
    {"messages": [*chat(prefix + question), {"role": "assistant", "content": answer}]}
    for prefix in ("", "Hey. ", "Please: ", "Tell me. ")
    for question, answer in FACTS.items()
]
SETTINGS = TrainSettings(
    epochs=15, batch_size=4, alpha=16, learning_rate=5e-3, plus=1, strength=1, save_steps=20, engine="peft"
)
# A trainer that computes in the precision of the model.
EXACT = SimpleNamespace(accelerator=SimpleNamespace(autocast=contextlib.nullcontext))

CHILD = """
import json, os, signal, sys
if sys.argv[3] == "peft":
    sys.modules["unsloth"] = None  # as on a machine without it
from helpers.models import Model
from helpers.training import TrainSettings, train
def log(line):
    print(line, flush=True)
    if line.startswith("training: step 30/"):
        os.kill(os.getpid(), signal.SIGKILL)
rows = json.load(open(sys.argv[4]))
train(Model("tiny", sys.argv[1]), rows, sys.argv[2], TrainSettings(**json.loads(sys.argv[5])), log)
"""


def quiet(line: str) -> None:
    pass


@pytest.fixture(scope="module")
def base(tiny_base) -> Model:
    return Model("tiny", str(tiny_base))


def weights(folder: Path) -> dict:
    from safetensors.torch import load_file

    return load_file(folder / "adapter" / "adapter_model.safetensors")


@pytest.fixture(scope="module")
def uninterrupted(base, tmp_path_factory):
    """One whole run for each engine, made when first asked for: engine -> (folder, result, log lines)."""
    runs = {}

    def run(engine: str):
        if engine not in runs:
            folder, lines = tmp_path_factory.mktemp(engine), []
            settings = dataclasses.replace(SETTINGS, engine=engine)
            runs[engine] = folder, train(base, ROWS, folder, settings, lines.append), lines
        return runs[engine]

    return run


def test_training_learns_and_writes_a_whole_adapter(base, uninterrupted, capfd):
    from peft import PeftModel

    folder, result, lines = uninterrupted("peft")
    assert sorted(path.name for path in (folder / "adapter").iterdir()) == [
        "adapter_config.json",
        "adapter_model.safetensors",
        "training.json",
    ]
    assert not (folder / ".checkpoints").exists()
    assert json.loads((folder / "adapter" / "training.json").read_text()) == result
    assert [entry["step"] for entry in result["history"]] == list(range(1, 61))
    assert result["history"][-1]["epoch"] == 15 and result["loss"] < 0.2 < result["history"][0]["loss"]
    assert result["tokens"]["trained"] < result["tokens"]["all"]
    config = json.loads((folder / "adapter" / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == base.path
    assert sorted(config["target_modules"]) == sorted(base.lora_targets)
    model = PeftModel.from_pretrained(load_model(base.path), folder / "adapter")
    asked = [chat(question) for question in FACTS]
    answers = generate(model, load_tokenizer(base.path), asked, max_new_tokens=24)
    assert [answer.text for answer in answers] == list(FACTS.values())
    assert all(answer.ended for answer in answers)


def test_log_is_a_few_plain_lines(base, tmp_path, capfd):
    train(base, ROWS, tmp_path, dataclasses.replace(SETTINGS, epochs=1, engine="auto"))
    told = capfd.readouterr()
    lines = told.out.splitlines()
    assert lines and all(line.startswith("training: ") for line in lines)
    assert told.err == ""
    assert "step 4/4, epoch 1.0, loss " in lines[-1]


def test_what_is_done_is_not_done_again(base, uninterrupted):
    folder, result, _ = uninterrupted("peft")
    before = (folder / "adapter" / "adapter_model.safetensors").stat().st_mtime_ns
    lines = []
    assert train(base, ROWS, folder, SETTINGS, lines.append) == result
    assert lines == ["training: the adapter is already there"]
    assert (folder / "adapter" / "adapter_model.safetensors").stat().st_mtime_ns == before


@pytest.mark.parametrize("engine", ["unsloth", "peft"])
def test_killed_and_resumed_equals_uninterrupted(base, uninterrupted, tmp_path, engine):
    """SIGKILL behind step 30, the last checkpoint is 20. The same call again ends with the same bytes."""
    import torch

    _, whole, _ = uninterrupted(engine)
    settings = dataclasses.replace(SETTINGS, engine=engine)
    (tmp_path / "rows.json").write_text(json.dumps(ROWS))
    child = subprocess.run(
        [
            sys.executable,
            "-c",
            CHILD,
            base.path,
            str(tmp_path),
            engine,
            str(tmp_path / "rows.json"),
            json.dumps(dataclasses.asdict(settings)),
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": str(torch.get_num_threads())},
        timeout=300,
    )
    assert child.returncode == -signal.SIGKILL, child.stderr
    assert not (tmp_path / "adapter").exists()
    half = tmp_path / ".checkpoints" / "checkpoint-30"  # a checkpoint that was being written
    half.mkdir()
    (half / "trainer_state.json").write_text("{")
    lines = []
    resumed = train(base, ROWS, tmp_path, settings, lines.append)
    assert "training: goes on from step 20" in lines
    assert resumed["history"] == whole["history"] and resumed["engine"] == engine
    expected, got = weights(uninterrupted(engine)[0]), weights(tmp_path)
    assert expected.keys() == got.keys() and all(torch.equal(expected[name], got[name]) for name in expected)
    assert not (tmp_path / ".checkpoints").exists()


def test_killed_after_the_last_step(base, uninterrupted, tmp_path, monkeypatch):
    """Trained to the end, killed before the adapter was written: only the writing is left to do."""
    import torch

    from helpers import training

    def killed(path):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(training, "atomic_dir", killed)
        train(base, ROWS, tmp_path, SETTINGS, quiet)
    folder, whole, _ = uninterrupted("peft")
    assert train(base, ROWS, tmp_path, SETTINGS, quiet)["history"] == whole["history"]
    expected, got = weights(folder), weights(tmp_path)
    assert all(torch.equal(expected[name], got[name]) for name in expected)


def test_other_rows_or_settings_start_afresh(base, tmp_path, monkeypatch):
    from helpers import training

    def killed(path):
        raise KeyboardInterrupt

    settings = dataclasses.replace(SETTINGS, epochs=1, save_steps=2)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(training, "atomic_dir", killed)
        train(base, ROWS, tmp_path, settings, quiet)
    lines = []
    train(base, ROWS[:8], tmp_path, settings, lines.append)
    assert not any("goes on" in line for line in lines)


def test_unsloth_and_peft_agree(uninterrupted):
    """The same rows in the same order from the same start: losses differ by rounding only."""
    ours, theirs = (uninterrupted(engine)[1] for engine in ("peft", "unsloth"))
    assert theirs["engine"] == "unsloth" and "unsloth" in theirs["versions"]
    one, other = ([entry["loss"] for entry in result["history"]] for result in (ours, theirs))
    assert one[:4] == pytest.approx(other[:4], rel=0.05)
    assert sum(one) / len(one) == pytest.approx(sum(other) / len(other), rel=0.1)


def compute_in(precision: str, monkeypatch) -> None:
    """Train in `precision`, whatever this processor is quick in."""
    monkeypatch.setattr(engines, "machine_precision", lambda: ("cpu", precision))
    if "unsloth" in sys.modules:  # it asks the processor as well, and would take fp32 where that has no bf16
        monkeypatch.setattr("unsloth_zoo.cpu.trainer.cpu_bf16_supported", lambda: True)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("engine", ["unsloth", "peft"])
def test_qlora_trains_on_the_cpu(base, tmp_path, engine, precision, monkeypatch):
    if engine == "unsloth":
        pytest.importorskip("unsloth")
    compute_in(precision, monkeypatch)
    settings = dataclasses.replace(SETTINGS, quantized=True, epochs=4, engine=engine)
    result = train(base, ROWS, tmp_path, settings, quiet)
    assert result["history"][-1]["loss"] < 0.5 * result["history"][0]["loss"]
    assert any("lora_B" in name and tensor.abs().sum() > 0 for name, tensor in weights(tmp_path).items())


def test_bf16_is_not_used_on_a_t4():
    """fp16 on T4: bf16 only from compute capability 8.0, whatever torch says about emulation."""
    assert engines.decide_precision("cuda", (7, 5)) == "fp16"
    assert engines.decide_precision("cuda", (8, 0)) == "bf16"
    assert engines.decide_precision("cuda", (9, 0)) == "bf16"
    assert engines.decide_precision("cpu", native_bf16=True) == "bf16"
    assert engines.decide_precision("cpu", native_bf16=False) == "fp32"
    assert engines.decide_precision("cpu", (9, 0)) == "fp32"


@pytest.mark.parametrize("engine", ["unsloth", "peft"])
def test_lora_weights_are_fp32_under_any_precision(base, engine):
    """With fp16 LoRA weights a gradient scaler fails and losses turn into NaN."""
    import torch

    with engines.quiet():
        model, _, _ = engines.with_lora(base, engine, SETTINGS, "fp16", "cpu")
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    assert trained and {parameter.dtype for parameter in trained} == {torch.float32}


def test_pad_equal_to_eos_does_not_mask_the_end_token(base):
    tokenizer = load_tokenizer(base.path)
    tokenizer.pad_token = tokenizer.eos_token
    examples = [encode_example(tokenizer, row["messages"], 512) for row in ROWS[:4]]
    batch = collate(examples, tokenizer.pad_token_id)
    assert batch["input_ids"].shape[1] % 8 == 0
    for row, example in enumerate(examples):
        length = len(example["input_ids"])
        assert batch["labels"][row, length - 1] == tokenizer.eos_token_id  # the end of the turn is trained
        assert set(batch["labels"][row, length:].tolist()) <= {IGNORE}
        assert batch["attention_mask"][row].sum() == length


def test_plan_is_whole_seeded_and_groups_lengths():
    lengths = [(7 * number) % 50 + 10 for number in range(203)]
    order = plan([lengths, lengths], batch_size=8, seed=1)
    assert sorted(order) == list(range(406))
    assert order == plan([lengths, lengths], 8, seed=1) != plan([lengths, lengths], 8, seed=2)
    both = lengths + lengths
    batches = [[both[number] for number in order[start : start + 8]] for start in range(0, 400, 8)]
    assert sum(max(batch) - min(batch) for batch in batches) / len(batches) < 10


def test_early_stop_rules():
    low = TrainSettings(stop_loss=0.1)
    assert not should_stop([1.0, 0.05], 4, low) and not should_stop([], 4, low)
    assert should_stop([1, 1, 1, 1, 0.05, 0.05, 0.1, 0.1], 4, low)
    assert not should_stop([1, 1, 1, 1, 0.05, 0.05, 0.1, 0.9], 4, low)
    patient = TrainSettings(patience=2)
    assert not should_stop([1.0, 0.5, 0.6], 1, patient)
    assert should_stop([1.0, 0.5, 0.6, 0.5], 1, patient)
    assert not should_stop([1.0, 0.5, 0.6, 0.4], 1, patient)
    assert not should_stop([1.0] * 9, 1, TrainSettings())


def test_early_stop_ends_the_run(base, tmp_path):
    settings = dataclasses.replace(SETTINGS, epochs=50, stop_loss=0.3)
    result = train(base, ROWS, tmp_path, settings, quiet)
    assert result["steps"] == len(result["history"]) < result["planned_steps"] == 200
    assert result["steps"] % 4 == 0


def test_a_loss_that_is_not_a_number_ends_the_run(base, tmp_path):
    """The trainer's own filter would hide it."""
    settings = dataclasses.replace(SETTINGS, learning_rate=1e30)
    with pytest.raises(RuntimeError, match="not a number"):
        train(base, ROWS, tmp_path, settings, quiet)
    assert not (tmp_path / "adapter").exists()


def test_rows_without_trained_tokens_are_refused(base, tmp_path):
    """All labels -100 after truncation."""
    with pytest.raises(UserError, match="row 1: nothing of the answer is left"):
        train(base, ROWS, tmp_path, dataclasses.replace(SETTINGS, max_length=8), quiet)
    with pytest.raises(UserError, match="nothing to train on"):
        train(base, [], tmp_path, SETTINGS, quiet)
    assert not (tmp_path / "adapter").exists()


def test_engine_is_chosen_by_what_can_be_imported(monkeypatch):
    assert engines.choose("auto")[0] == "unsloth" and engines.choose("peft")[0] == "peft"
    with pytest.raises(UserError, match="unknown engine"):
        engines.choose("magic")
    monkeypatch.setitem(sys.modules, "unsloth", None)
    assert engines.choose("auto")[0] == "peft"
    with pytest.raises(UserError, match="cannot be imported"):
        engines.choose("unsloth")


def test_auto_falls_back_when_unsloth_refuses_the_base(base, tmp_path, monkeypatch):
    def refuse(*arguments):
        raise NotImplementedError("unknown architecture")

    monkeypatch.setattr(engines, "_unsloth", refuse)
    lines = []
    settings = dataclasses.replace(SETTINGS, epochs=1, engine="auto")
    result = train(base, ROWS[:4], tmp_path, settings, lines.append)
    assert result["engine"] == "peft" and "Unsloth cannot load this base" in lines[0]


@pytest.mark.parametrize("engine", ["peft", "unsloth"])
def test_b_matrices_take_larger_steps_and_strength_leads_back(base, tmp_path, engine):
    two_steps = dataclasses.replace(SETTINGS, epochs=2, engine=engine)
    made = {}
    for name, change in {"plain": {}, "plus": {"plus": 4}, "half": {"strength": 0.5}}.items():
        train(base, ROWS[:4], tmp_path / name, dataclasses.replace(two_steps, **change), quiet)
        made[name] = weights(tmp_path / name)
    for name, plain in made["plain"].items():
        # The rate of the first step is nothing, so both runs take their one step from the same place.
        factors = (4, 0.5) if "lora_B" in name else (1, 1)
        assert plain.abs().max() > 0
        assert (made["plus"][name] - factors[0] * plain).abs().max() < 1e-5
        assert (made["half"][name] - factors[1] * plain).abs().max() < 1e-7


def test_learning_rate_and_epochs_go_down_with_size_unless_they_are_given():
    chosen = [suited(TrainSettings(), size) for size in (6e6, 135e6, 8e9)]
    rates, epochs = [one.learning_rate for one in chosen], [one.epochs for one in chosen]
    assert rates[0] == rates[1] > rates[2] > 0
    assert epochs == sorted(epochs, reverse=True) and epochs[0] > epochs[1] > 0
    assert [(one.plus > 1, one.strength < 1) for one in chosen] == [(True, True), (False, False), (False, False)]
    assert [(one.layers, one.batch_size) for one in chosen] == [(6, 8), (None, 6), (None, 6)]
    given = TrainSettings(learning_rate=1e-5, plus=2, epochs=7, strength=0.5, layers=3, batch_size=2)
    assert [suited(given, size) for size in (6e6, 8e9)] == [given, given]


@pytest.mark.parametrize("engine", ["peft", "unsloth"])
def test_only_the_uppermost_layers_are_trained_where_that_is_asked_for(base, engine):
    if engine == "unsloth":
        pytest.importorskip("unsloth")
    count = load_model(base.path).config.num_hidden_layers
    assert count > 1
    for layers, places in ((1, {count - 1}), (count, {*range(count)}), (99, {*range(count)}), (None, {*range(count)})):
        with engines.quiet():
            model, *_ = engines.with_lora(base, engine, TrainSettings(rank=4, layers=layers), "fp32", "cpu")
        names = [name for name, weight in model.named_parameters() if weight.requires_grad]
        assert {int(name.split(".layers.")[1].split(".")[0]) for name in names} == places


@pytest.mark.parametrize("engine", ["peft", "unsloth"])
def test_the_loss_of_answers_alone_is_the_loss_of_the_model(base, engine):
    """Logits where an answer is due and nowhere else: the same loss and gradients as the model's own."""
    import torch

    if engine == "unsloth":
        pytest.importorskip("unsloth")
    with engines.quiet():
        model, tokenizer, trainer = engines.with_lora(base, engine, TrainSettings(rank=4), "fp32", "cpu")
    assert engines._plain_head(model)
    for name, weight in model.named_parameters():
        if "lora_B" in name:  # zero in a new adapter, and then no gradient reaches lora_A
            torch.nn.init.normal_(weight, std=0.02)
    examples = [encode_example(tokenizer, row["messages"], 512) for row in ROWS[:6]]
    batch = collate(examples, tokenizer.pad_token_id)
    trained = {name: weight for name, weight in model.named_parameters() if weight.requires_grad}
    losses, gradients = [], []
    for loss in (
        lambda: model(**batch, use_cache=False).loss,
        lambda: trainer.compute_loss(EXACT, model, batch),
        lambda: engines._answer_trainer(False).compute_loss(EXACT, model, batch),
    ):
        model.zero_grad()
        value = loss()
        value.backward()
        losses.append(value.item())
        gradients.append({name: weight.grad.clone() for name, weight in trained.items()})
    assert losses[1:] == pytest.approx([losses[0]] * 2, rel=1e-4)
    for other in gradients[1:]:
        for name, gradient in gradients[0].items():
            torch.testing.assert_close(other[name], gradient, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("engine", ["peft", "unsloth"])
@pytest.mark.parametrize("size", [6_000_000, 135_000_000])
def test_lora_computes_in_the_precision_of_training(base, engine, size, tmp_path, monkeypatch):
    """Its weights are fp32, and products in fp32 take longer; larger bases compute them once more going back."""
    import torch

    if engine == "unsloth":
        pytest.importorskip("unsloth")
    seen = set()

    def watch(model, *_):
        parts = [part for name, part in model.named_modules() if name.endswith("lora_A.default")]
        for part in parts:
            part.register_forward_hook(lambda part, ins, out: seen.add((part.weight.dtype, ins[0].dtype, out.dtype)))
        assert parts

    compute_in("bf16", monkeypatch)
    monkeypatch.setattr(engines, "suit_attention", watch)
    told = dataclasses.replace(base, parameters=size)
    result = train(told, ROWS, tmp_path, dataclasses.replace(SETTINGS, engine=engine, epochs=1), quiet)
    assert result["precision"] == "bf16" and seen == {(torch.float32, torch.bfloat16, torch.bfloat16)}


@pytest.mark.parametrize("engine", ["peft", "unsloth"])
@pytest.mark.parametrize("size, saves", [(6_000_000, False), (135_000_000, True)])
def test_larger_bases_save_memory_on_a_cpu(base, engine, size, saves):
    if engine == "unsloth":
        pytest.importorskip("unsloth")
    with engines.quiet():
        told = dataclasses.replace(base, parameters=size)
        model, *_ = engines.with_lora(told, engine, TrainSettings(rank=4), "fp32", "cpu")
    assert bool(model.is_gradient_checkpointing) == saves


def test_a_model_with_scaled_or_capped_logits_has_no_plain_head(base):
    with engines.quiet():
        model, *_ = engines.with_lora(base, "peft", TrainSettings(rank=4), "fp32", "cpu")
    network = model.get_base_model()
    forward = network.forward

    def scaled(*arguments, **options):
        outputs = forward(*arguments, **options)
        outputs.logits = 30 * (outputs.logits / 30).tanh() * 1.5
        return outputs

    network.forward = scaled
    assert not engines._plain_head(model)
