"""Two ways to put LoRA weights on a base model: Unsloth's FastLanguageModel, and plain PEFT + TRL."""

from __future__ import annotations

import contextlib
import importlib.util
import io
import logging
import os
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

from helpers.chat import IGNORE
from helpers.errors import UserError
from helpers.models import Model, load_tokenizer

# Parameters from which activations are computed twice, which takes longer and less memory. On a CPU far fewer: the
# computers of those who train there have 4 to 8 GB.
BIG = {"cuda": 1_000_000_000, "cpu": 100_000_000}


def choose(wanted: str) -> tuple[str, str]:
    """(engine, why): "unsloth" or "peft" for `wanted`, which may also be "auto".

    Raises UserError for an unknown name, or when Unsloth is asked for by name and cannot be imported.
    """
    if wanted not in ("auto", "unsloth", "peft"):
        raise UserError(f"unknown engine {wanted!r}", "engine", "Use auto, unsloth or peft.")
    if wanted == "peft":
        return "peft", "asked for"
    reason = "not installed"
    if importlib.util.find_spec("unsloth") and importlib.util.find_spec("unsloth_zoo"):
        try:
            with quiet():
                import unsloth  # noqa: F401  before TRL and PEFT, which it patches
            return "unsloth", "asked for" if wanted == "unsloth" else "installed"
        except Exception as error:  # on machines it does not support it raises errors of many kinds
            reason = first_line(error)
    if wanted == "unsloth":
        raise UserError(f"Unsloth cannot be imported ({reason})", "engine", "Use engine auto or peft.")
    return "peft", f"Unsloth cannot be imported: {reason}"


def first_line(error: Exception) -> str:
    return f"{type(error).__name__} {next(iter(str(error).splitlines()), '')[:150]}".strip()


def decide_precision(device: str, capability: tuple[int, int] | None = None, native_bf16: bool = False) -> str:
    """Numbers to compute with: "bf16", "fp16" or "fp32".

    `capability` is CUDA's compute capability. Below 8.0 (a T4 has 7.5) bf16 is only emulated, even where
    torch calls it supported: base and products are fp16 there, LoRA weights fp32 behind a gradient scaler.
    On a CPU bf16 pays where the processor has instructions for it (`native_bf16`).
    """
    if device == "cuda":
        return "bf16" if capability and capability >= (8, 0) else "fp16"
    return "bf16" if native_bf16 else "fp32"


def machine_precision() -> tuple[str, str]:
    """(device, precision) of this machine; device is "cuda" or "cpu"."""
    import torch

    if torch.cuda.is_available():
        return "cuda", decide_precision("cuda", torch.cuda.get_device_capability())
    native = getattr(torch.cpu, "_is_avx512_bf16_supported", bool)()  # processors with AMX have it too
    return "cpu", decide_precision("cpu", native_bf16=native)


def size_of(base: Model) -> int:
    """Number of parameters: the registry's, or what the folder's 16-bit weight files come to."""
    files = Path(base.path).glob("*.safetensors") if base.local else ()
    return base.parameters or sum(file.stat().st_size for file in files) // 2


def with_lora(base: Model, engine: str, settings, precision: str, device: str):
    """`base` with new LoRA weights as `settings` (TrainSettings) says: PEFT model, tokenizer, trainer class.

    With settings.quantized the base is held in 4 bits (NF4): QLoRA. Raises UserError where that cannot be.
    """
    tokenizer = load_tokenizer(base.path)
    if settings.quantized and not importlib.util.find_spec("bitsandbytes"):
        raise UserError("a 4-bit base needs bitsandbytes", "quantized", "Install it or use quantized=False.")
    with _no_bars():
        load = _unsloth if engine == "unsloth" else _peft
        model = load(base, settings, _dtype(precision), device)
        trainer = _answer_trainer(_plain_head(model)) if keeps_turns_apart(engine, device) else _unsloth_trainer()
    if settings.quantized and not any(type(part).__name__ == "Linear4bit" for part in model.modules()):
        raise UserError(
            "bitsandbytes cannot hold this model in 4 bits on this machine", "quantized", "Train with quantized=False."
        )
    for config in model.peft_config.values():
        config.base_model_name_or_path = base.path
    return model, tokenizer, trainer


def keeps_turns_apart(engine: str, device: str) -> bool:
    """Whether the trainer is ours, which can hide the turns of a chat from each other; Unsloth's on a GPU cannot."""
    return engine == "peft" or device == "cpu"


def suit_attention(model, device: str, longest: int) -> None:
    """On a CPU, plain attention trains short rows 5 to 20 per cent faster than the fused kernel (measured).

    Its memory grows with the square of the length, so chats over 512 tokens keep the model's own choice.
    """
    if device == "cpu" and longest <= 512:
        model.get_base_model().set_attn_implementation("eager")


def _dtype(precision: str):
    import torch

    return {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}[precision]


def _uppermost(model, settings) -> list[int] | None:
    """Numbers of the layers that are trained; None for all."""
    count = model.config.num_hidden_layers
    return list(range(count - settings.layers, count)) if settings.layers and settings.layers < count else None


def _unsloth(base: Model, settings, dtype, device: str):
    from unsloth import FastLanguageModel

    checkpointing = "unsloth" if size_of(base) > BIG[device] else False
    model, _ = FastLanguageModel.from_pretrained(
        base.path,
        max_seq_length=settings.max_length,
        dtype=dtype,
        load_in_4bit=settings.quantized,
        use_gradient_checkpointing=checkpointing,
    )
    model = FastLanguageModel.get_peft_model(
        model,
        r=settings.rank,
        lora_alpha=settings.alpha,
        lora_dropout=0.0,
        bias="none",
        target_modules=list(base.lora_targets),
        layers_to_transform=_uppermost(model, settings),
        use_gradient_checkpointing=checkpointing,
        random_state=settings.seed,
    )
    return model


def _unsloth_trainer():
    """TRL's SFTTrainer as Unsloth patches it: on a GPU its own kernels compute the loss."""
    from trl import SFTTrainer

    return SFTTrainer


def _peft(base: Model, settings, dtype, device: str):
    import transformers
    from peft import LoraConfig, get_peft_model, prepare_model_for_kbit_training

    checkpointing = size_of(base) > BIG[device]
    four_bits = (
        transformers.BitsAndBytesConfig(
            load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True, bnb_4bit_compute_dtype=dtype
        )
        if settings.quantized
        else None
    )
    model = transformers.AutoModelForCausalLM.from_pretrained(
        base.path, dtype=dtype, device_map=device, quantization_config=four_bits
    )
    model.config.use_cache = False
    if settings.quantized:
        model = prepare_model_for_kbit_training(model, use_gradient_checkpointing=checkpointing)
    elif checkpointing:
        model.gradient_checkpointing_enable()
        model.enable_input_require_grads()
    transformers.set_seed(settings.seed)
    model = get_peft_model(
        model,
        LoraConfig(
            r=settings.rank,
            lora_alpha=settings.alpha,
            lora_dropout=0.0,
            bias="none",
            task_type="CAUSAL_LM",
            target_modules=list(base.lora_targets),
            layers_to_transform=_uppermost(model, settings),
        ),
    )
    return model


def _answer_trainer(plain_head: bool):
    """TRL's SFTTrainer with the same loss in plain torch: TRL's kernel is Triton and does not run on CPUs.

    With a `plain_head`, logits are computed where an answer's token is due and nowhere else: those of all the other
    tokens, which the loss leaves out, would take a third of the time (measured).
    """
    import torch
    from trl import SFTTrainer

    class AnswerTrainer(SFTTrainer):
        def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
            # Accelerate sets the precision in the forward of the whole model, which is not called here.
            with self.accelerator.autocast():
                targets = inputs["labels"][:, 1:]
                due = targets != IGNORE
                network = model.get_base_model()
                part = network.get_decoder() if plain_head else network
                attention = {name: inputs[name] for name in ("attention_mask", "position_ids") if name in inputs}
                if attention["attention_mask"].is_floating_point():
                    attention["attention_mask"] = attention["attention_mask"].to(network.dtype)
                outputs = part(input_ids=inputs["input_ids"], use_cache=False, **attention)
                if plain_head:
                    logits = network.get_output_embeddings()(outputs.last_hidden_state[:, :-1][due])
                else:
                    logits = outputs.logits[:, :-1][due]
                count = due.sum() if num_items_in_batch is None else num_items_in_batch
                loss = torch.nn.functional.cross_entropy(logits.float(), targets[due], reduction="sum") / count
            return (loss, outputs) if return_outputs else loss

    return AnswerTrainer


def _plain_head(model) -> bool:
    """Whether a model's logits are its output matrix times the last hidden state, neither scaled nor capped."""
    import torch

    network = model.train().get_base_model()  # in eval mode bitsandbytes would lay out 4-bit weights for inference
    ids = torch.arange(4, device=model.device)[None]
    with torch.no_grad():
        hidden = network.get_decoder()(input_ids=ids, use_cache=False).last_hidden_state
        return torch.allclose(
            network.get_output_embeddings()(hidden), network(input_ids=ids).logits, rtol=1e-2, atol=1e-2
        )


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """No banners, warnings or telemetry of the training libraries inside the block."""
    os.environ.setdefault("UNSLOTH_DISABLE_STATISTICS", "1")
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    compiled = Path(tempfile.gettempdir(), "unsloth_compiled_cache")  # else in the working folder
    os.environ.setdefault("UNSLOTH_COMPILE_LOCATION", str(compiled))
    import huggingface_hub.constants

    huggingface_hub.constants.HF_HUB_DISABLE_TELEMETRY = True  # once imported it ignores the variable
    disabled = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(disabled)


@contextlib.contextmanager
def _no_bars() -> Iterator[None]:
    from transformers.utils import logging as hf

    shown = hf.is_progress_bar_enabled()
    hf.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            hf.enable_progress_bar()


def aloud(log: Callable[[str], None]) -> Callable[[str], None]:
    """`log`, heard inside quiet() too: it prints where sys.stdout points to now."""
    out = sys.stdout

    def tell(line: str) -> None:
        with contextlib.redirect_stdout(out):
            log(line)

    return tell
