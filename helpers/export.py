"""From an adapter to a verified GGUF file: merge in 16 bit, convert, quantise, pass the gate."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

from helpers.errors import UserError
from helpers.files import atomic_dir
from helpers.gate import GateError, verify
from helpers.llama_cpu import MB, load_library
from helpers.models import Model, load_model, load_tokenizer, no_bars
from helpers.pretokenizer import pretokenizer_name
from helpers.toolchain import converter_dir

# Quantisations, best first: name -> (llama.cpp file type, token embedding type; None: llama.cpp's choice).
# q4_0_all also puts the embeddings in 4 bit: the smallest, for vocabularies that are large beside the model.
QUANTS = {
    "q8_0": ("LLAMA_FTYPE_MOSTLY_Q8_0", None),
    "q6_k": ("LLAMA_FTYPE_MOSTLY_Q6_K", None),
    "q5_k_m": ("LLAMA_FTYPE_MOSTLY_Q5_K_M", None),
    "q4_k_m": ("LLAMA_FTYPE_MOSTLY_Q4_K_M", None),
    "q4_0": ("LLAMA_FTYPE_MOSTLY_Q4_0", None),
    "q4_0_all": ("LLAMA_FTYPE_MOSTLY_Q4_0", "GGML_TYPE_Q4_0"),
}


def merge(base: Model, adapter_dir: Path | str, out_dir: Path | str) -> Path:
    """Add the LoRA `adapter_dir` to the weights of `base` and save a whole 16-bit model with its tokenizer.

    The sum is made in float32 and rounded once. Raises UserError for a 4-bit base and for adapters that
    cannot be merged without harm.
    """
    import torch
    from peft import PeftConfig, PeftModel
    from transformers import AutoConfig

    adapter_dir, out_dir = Path(adapter_dir), Path(out_dir)
    if not (adapter_dir / "adapter_config.json").is_file():
        raise UserError("no adapter in the folder", adapter_dir, "Train first: python -m helpers personalize.")
    config = AutoConfig.from_pretrained(base.path)
    if getattr(config, "quantization_config", None):
        # Rounding the sum to 4 bits rounds the adapter away: its changes are smaller than a 4-bit step.
        raise UserError(
            "the base is quantised; an adapter is merged into the 16-bit weights",
            base.path,
            "Name the 16-bit base it was quantised from.",
        )
    adapter = PeftConfig.from_pretrained(str(adapter_dir))
    touched = {*(adapter.target_modules or ()), *(adapter.modules_to_save or ())}
    tied = bool(getattr(config, "tie_word_embeddings", False))
    if tied and touched & {"lm_head", "embed_tokens"}:
        raise UserError(
            "the adapter changes lm_head or embed_tokens, which are one matrix in this base",
            adapter_dir,
            "Train it on the attention and MLP layers.",
        )
    # float16 and bfloat16 bases keep their type; a float32 base is saved in bfloat16.
    dtype = config.dtype if config.dtype in (torch.float16, torch.bfloat16) else torch.bfloat16
    model = load_model(base.path, dtype=torch.float32).to("cpu")
    merged = PeftModel.from_pretrained(model, str(adapter_dir)).merge_and_unload(safe_merge=True).to(dtype)
    merged.tie_weights()
    same = merged.get_output_embeddings().weight is merged.get_input_embeddings().weight
    if same != tied:
        raise GateError(f"{out_dir}: tied embeddings were {'lost' if tied else 'made'} by the merge")
    with atomic_dir(out_dir) as folder, no_bars():
        merged.save_pretrained(folder)  # the generation config with its end tokens goes along
        load_tokenizer(base.path).save_pretrained(folder)  # so does the chat template
    return out_dir


def to_gguf(merged_dir: Path | str, out_file: Path | str) -> Path:
    """Convert a transformers folder to a 16-bit GGUF file with llama.cpp's own converter."""
    merged_dir, out_file = Path(merged_dir), Path(out_file)
    _convert(
        out_file,
        "convert_hf_to_gguf.py",
        pretokenizer_name(merged_dir) or "-",
        ["--outtype", "f16", str(merged_dir)],
        merged_dir,
    )
    return out_file


def adapter_to_gguf(base: Model, adapter_dir: Path | str, out_file: Path | str) -> Path:
    """Convert a PEFT adapter to a GGUF adapter, which llama.cpp puts on top of the base's GGUF file."""
    arguments = ["--outtype", "f16", str(adapter_dir)]
    arguments[:0] = ["--base", base.path] if base.local else ["--base-model-id", base.path]
    _convert(Path(out_file), "convert_lora_to_gguf.py", "-", arguments, adapter_dir)
    return Path(out_file)


def _convert(out_file: Path, script: str, pre: str, arguments: list[str], source: object) -> None:
    with _temporary(out_file) as temporary:
        command = [
            sys.executable,
            "-m",
            "helpers.convert",
            str(converter_dir()),
            script,
            pre,
            "--outfile",
            str(temporary),
            *arguments,
        ]
        root = str(Path(__file__).resolve().parent.parent)
        # An installed gguf package of another version must not win over the converter's own.
        env = {k: v for k, v in os.environ.items() if k != "NO_LOCAL_GGUF"} | {"PYTHONPATH": root}
        done = subprocess.run(command, env=env, capture_output=True, text=True, errors="replace")
        if done.returncode and "BPE pre-tokenizer was not recognized" in done.stderr:
            raise UserError(
                "llama.cpp does not know this tokenizer's way of splitting text",
                source,
                "Use a base with the pre-tokenizer of SmolLM2, GPT-2, Llama 3 or Qwen2.",
            )
        if done.returncode or not temporary.stat().st_size:
            raise RuntimeError(f"{script} failed: {' | '.join(done.stderr.strip().splitlines()[-3:])}")
        os.replace(temporary, out_file)


def quantize(f16: Path | str, out_file: Path | str, quant: str) -> Path:
    """Write `out_file` with the weights of the 16-bit GGUF `f16` quantised as QUANTS names it."""
    if quant not in QUANTS:
        raise UserError(f"unknown quantisation {quant!r}", "--quant", f"Use one of {', '.join(QUANTS)}.")
    f16, out_file = Path(f16), Path(out_file)
    lib = load_library()
    params = lib.llama_model_quantize_default_params()
    kind, embedding = QUANTS[quant]
    params.ftype = getattr(lib, kind)
    if embedding:
        params.token_embedding_type = getattr(lib, embedding)
    with _temporary(out_file) as temporary:
        if lib.llama_model_quantize(os.fsencode(f16), os.fsencode(temporary), params) != 0:
            raise RuntimeError(f"{f16}: llama.cpp cannot quantise this file to {quant}")
        os.replace(temporary, out_file)
    return out_file


def export_gguf(
    merged_dir: Path | str,
    gguf_dir: Path | str,
    quant: str,
    probes: list[list[dict]],
    budget_mb: float | None = None,
    log=print,
) -> dict:
    """Make gguf_dir/model-f16.gguf and model-QUANT.gguf, each verified before it gets that name.

    With `budget_mb` (10^6 bytes) the best quantisation that fits is taken instead of `quant`. `probes` are
    conversations to compare on. Returns {"path", "quant", "mb", "report"}.
    """
    merged_dir, gguf_dir = Path(merged_dir), Path(gguf_dir)
    gguf_dir.mkdir(parents=True, exist_ok=True)
    if quant not in QUANTS:
        raise UserError(f"unknown quantisation {quant!r}", "--quant", f"Use one of {', '.join(QUANTS)}.")
    f16 = gguf_dir / "model-f16.gguf"
    if not f16.is_file() or f16.stat().st_mtime < (merged_dir / "config.json").stat().st_mtime:
        log("converting to GGUF (f16)")
        _verified(f16, lambda path: to_gguf(merged_dir, path), merged_dir, probes)
    if budget_mb is not None:
        quant = _best_within(f16, gguf_dir, budget_mb, log)
    out = gguf_dir / f"model-{quant}.gguf"
    log(f"quantising to {quant} and checking it against the merged model")
    report = _verified(out, lambda path: quantize(f16, path, quant), merged_dir, probes)
    return {"path": out, "quant": quant, "mb": round(out.stat().st_size / MB, 1), "report": report}


def _verified(out: Path, make, merged_dir: Path, probes: list[list[dict]]) -> dict:
    with _temporary(out) as temporary:
        make(temporary)
        report = verify(merged_dir, temporary, probes)
        os.replace(temporary, out)
    return report


def _best_within(f16: Path, folder: Path, budget_mb: float, log) -> str:
    """The best quantisation whose file is at most `budget_mb`; UserError names all sizes when none is."""
    sizes = {}
    for quant in QUANTS:
        with _temporary(folder / "budget.gguf") as temporary:
            sizes[quant] = quantize(f16, temporary, quant).stat().st_size / MB
        log(f"{quant}: {sizes[quant]:.1f} MB")
        if sizes[quant] <= budget_mb:
            return quant
    listed = ", ".join(f"{name} {size:.1f} MB" for name, size in sizes.items())
    raise UserError(
        f"no quantisation fits in {budget_mb:g} MB ({listed})",
        "--budget-mb",
        "Raise the budget or choose a smaller base model.",
    )


class _temporary:
    """A file name beside `out` that is removed at the end unless it was moved away."""

    def __init__(self, out: Path):
        out.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=out.parent, prefix=".new-", suffix=".gguf")
        os.close(handle)
        os.chmod(name, 0o644)
        self.path = Path(name)

    def __enter__(self) -> Path:
        return self.path

    def __exit__(self, *exception) -> None:
        self.path.unlink(missing_ok=True)
