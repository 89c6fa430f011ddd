"""The registry of base models: one entry switches the whole series."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from helpers.errors import UserError
from helpers.settings import setting

ROOT = Path(__file__).resolve().parent.parent
LLAMA_TARGETS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


@dataclass(frozen=True)
class Shape:
    """The numbers of a model's config.json that decide its size, memory and speed."""

    architecture: str  # model_type: llama, or qwen2 (biases in attention)
    layers: int
    hidden: int
    feed_forward: int
    heads: int
    kv_heads: int
    vocabulary: int
    context: int  # tokens
    rope_theta: float
    norm_eps: float = 1e-5
    tied: bool = True  # the output layer is the embedding matrix
    rope_factor: float | None = None  # Llama 3.1 and 3.2 stretch their positions by it

    @property
    def head(self) -> int:
        """Width of an attention head."""
        return self.hidden // self.heads


@dataclass(frozen=True)
class Model:
    """A base model. The sizes of its GGUF files follow from the shape: see `gguf_sizes`."""

    key: str
    path: str  # hub id or local folder, as from_pretrained takes it
    licence: str = "unknown"
    parameters: int = 0  # tied embeddings counted once
    template: str = "chatml"  # family of the chat template
    stop_tokens: tuple[str, ...] = ("<|im_end|>",)
    lora_targets: tuple[str, ...] = LLAMA_TARGETS
    min_ram_gb: float = 2.0  # to fine-tune it
    shape: Shape | None = None  # None for a folder: its own config.json says it

    @property
    def local(self) -> bool:
        return Path(self.path).is_dir()


# Shape(architecture, layers, hidden, feed_forward, heads, kv_heads, vocabulary, context, rope_theta, …): what the
# config.json of the folder, or of the repository on the hub, says.
_ENTRIES = (
    Model(
        "pocket",
        str(ROOT / "data" / "base"),
        "Apache-2.0",
        7_344_384,
        min_ram_gb=2.0,
        shape=Shape("llama", 8, 256, 768, 4, 2, 4096, 2048, 1e4),
    ),
    Model(
        "smollm2-135m",
        "HuggingFaceTB/SmolLM2-135M-Instruct",
        "Apache-2.0",
        134_515_008,
        min_ram_gb=3.0,
        shape=Shape("llama", 30, 576, 1536, 9, 3, 49152, 8192, 1e5),
    ),
    Model(
        "smollm2-360m",
        "HuggingFaceTB/SmolLM2-360M-Instruct",
        "Apache-2.0",
        361_821_120,
        min_ram_gb=4.0,
        shape=Shape("llama", 32, 960, 2560, 15, 5, 49152, 8192, 1e5),
    ),
    Model(
        "qwen2.5-0.5b",
        "Qwen/Qwen2.5-0.5B-Instruct",
        "Apache-2.0",
        494_032_768,
        min_ram_gb=6.0,
        shape=Shape("qwen2", 24, 896, 4864, 14, 2, 151936, 32768, 1e6, 1e-6),
    ),
    Model(
        "llama-3.2-1b",
        "unsloth/Llama-3.2-1B-Instruct",
        "Llama 3.2 Community",
        1_235_814_400,
        "llama3",
        ("<|eot_id|>", "<|eom_id|>"),
        min_ram_gb=8.0,
        shape=Shape("llama", 16, 2048, 8192, 32, 8, 128256, 131072, 5e5, rope_factor=32.0),
    ),
    Model(
        "llama-3.1-8b",
        "unsloth/Meta-Llama-3.1-8B-Instruct",
        "Llama 3.1 Community",
        8_030_261_248,
        "llama3",
        ("<|eot_id|>", "<|eom_id|>"),
        min_ram_gb=24.0,
        shape=Shape("llama", 32, 4096, 14336, 32, 8, 128256, 131072, 5e5, tied=False, rope_factor=8.0),
    ),
    Model(
        "qwen2.5-7b",
        "Qwen/Qwen2.5-7B-Instruct",
        "Apache-2.0",
        7_615_616_512,
        min_ram_gb=24.0,
        shape=Shape("qwen2", 28, 3584, 18944, 28, 4, 152064, 32768, 1e6, 1e-6, tied=False),
    ),
)
MODELS: dict[str, Model] = {entry.key: entry for entry in _ENTRIES}
DEFAULT = "pocket"


def resolve(base: str | None = None) -> Model:
    """The model that `base` names: a registry key, `auto`, or a folder with a transformers model.

    Without `base`, and for `auto`, the setting PERSONAL_LLM_BASE counts where there is one; then `auto` goes
    by the machine, and nothing means the shipped default. Raises UserError otherwise.
    """
    if base in (None, "", "auto"):
        base = setting("PERSONAL_LLM_BASE") or base or DEFAULT
    if base == "auto":
        import torch

        base = "smollm2-360m" if torch.cuda.is_available() else DEFAULT
    if base in MODELS:
        return MODELS[base]
    folder = Path(base)
    if not folder.is_dir():
        raise UserError(
            f"unknown base model {base!r}", "--base", f"Use one of {', '.join(MODELS)} or a folder with config.json."
        )
    if not (folder / "config.json").is_file():
        raise UserError("no config.json in the folder", folder, "Point --base at a saved transformers model.")
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (ValueError, OSError) as error:
        raise UserError("config.json is not valid JSON", folder, "Save the model again.") from error
    if not isinstance(config, dict):
        raise UserError("config.json holds no settings", folder, "Save the model again.")
    size = sum(f.stat().st_size for f in folder.glob("*.safetensors"))
    if not size:
        raise UserError("no *.safetensors weights in the folder", folder, "Save the model again.")
    # A folder is loaded as it is; training needs roughly four times the 16-bit weights and a fixed 1.5 GB.
    known = MODELS[DEFAULT]
    return dataclasses.replace(
        known,
        key=config.get("_name_or_path") or folder.name,
        path=str(folder),
        licence="unknown",
        parameters=0,
        shape=None,
        min_ram_gb=round(1.5 + 4 * size / 1e9, 1),
    )


@contextlib.contextmanager
def no_bars() -> Iterator[None]:
    """No progress bars of transformers inside: local files are quick to read, and bars fill notebooks."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="IProgress not found")  # bars as widgets: not wanted anyway
        from transformers.utils import logging
    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()


def load_tokenizer(path: str):
    """The tokenizer of a folder or hub id. Raises UserError when it has no chat template."""
    with no_bars():
        from transformers import AutoTokenizer

        tokenizer = AutoTokenizer.from_pretrained(path)
    if not tokenizer.chat_template:
        raise UserError("the tokenizer has no chat template", path, "Choose an instruct (chat) model.")
    return tokenizer


def load_model(path: str, dtype="auto"):
    """The causal language model of a folder or hub id, in evaluation mode on the best device at hand."""
    import torch

    # A download of hundreds of megabytes may show how far it is.
    with no_bars() if Path(path).is_dir() else contextlib.nullcontext():
        from transformers import AutoModelForCausalLM

        model = AutoModelForCausalLM.from_pretrained(path, dtype=dtype)
    return model.to("cuda" if torch.cuda.is_available() else "cpu").eval()
