"""The gate between a merged model and its GGUF file: same prompt tokens, same answers up to rounding."""

from __future__ import annotations

from pathlib import Path

from helpers.local_llm import LocalLLM

# How far apart, in the merged model's own probability, its choice and the file's may be at a difference.
# Rounding flips choices that are nearly equal; a bigger gap means that the file is wrong.
TIE = {
    "f32": 0.02,
    "f16": 0.02,
    "bf16": 0.02,
    "q8_0": 0.1,
    "q6_k": 0.2,
    "q5_k_m": 0.2,
    "q4_k_m": 0.35,
    "q4_0": 0.35,
}
# Least cosine between the two models' next-token scores. It sees damage even in a model that is never sure.
COSINE = {
    "f32": 0.99,
    "f16": 0.99,
    "bf16": 0.99,
    "q8_0": 0.98,
    "q6_k": 0.95,
    "q5_k_m": 0.9,
    "q4_k_m": 0.8,
    "q4_0": 0.8,
}
PLAIN = "Café, 12 345 naïve words:\n\tcan't & won't… 👍"


class GateError(RuntimeError):
    """A file that does not behave like the model it was made from; it must not be used."""


def verify(merged_dir: Path | str, gguf: Path | str, message_lists: list[list[dict]], max_tokens: int = 40) -> dict:
    """Compare `gguf` with the merged transformers model on the given conversations.

    Checked: prompt token ids, BOS count, scores of the next token, greedy answers token by token. Returns
    {"prompts", "answers", "equal", "ties", "tokens", "least_cosine", "file_type"}. Raises GateError at the
    first difference that is no numeric tie.
    """
    import torch

    from helpers.models import load_model, load_tokenizer

    gguf = Path(gguf)
    tokenizer = load_tokenizer(str(merged_dir))
    report = {
        "prompts": len(message_lists),
        "answers": 0,
        "equal": 0,
        "ties": 0,
        "tokens": 0,
        "least_cosine": 1.0,
    }
    with LocalLLM(gguf) as llm, torch.inference_mode():
        report["file_type"] = llm.file_type
        for messages in message_lists:
            _check_prompt(tokenizer, llm, messages)
        _check_plain(tokenizer, llm)
        model = load_model(str(merged_dir), dtype=torch.float32).to("cpu")
        for messages in message_lists:
            _check_answer(model, tokenizer, llm, messages, max_tokens, report)
    report["least_cosine"] = round(report["least_cosine"], 5)
    return report


def _check_prompt(tokenizer, llm: LocalLLM, messages: list[dict]) -> None:
    want = tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=True, return_dict=False)
    have = llm.prompt_ids(messages)
    bos = tokenizer.bos_token_id
    if bos is not None and want.count(bos) != have.count(bos):
        raise GateError(
            f"{llm.path}: {have.count(bos)} BOS tokens in the prompt, {want.count(bos)} in the merged model's"
        )
    _compare_ids(tokenizer, llm, want, have, "prompt")


def _check_plain(tokenizer, llm: LocalLLM) -> None:
    """Text without a template, with the special tokens that each side adds by itself."""
    _compare_ids(tokenizer, llm, tokenizer(PLAIN)["input_ids"], llm.tokenize(PLAIN, add_special=True), "plain text")


def _compare_ids(tokenizer, llm: LocalLLM, want: list[int], have: list[int], what: str) -> None:
    if want == have:
        return
    at = next((i for i, (a, b) in enumerate(zip(want, have)) if a != b), min(len(want), len(have)))
    shown = [repr(tokenizer.decode(ids[at : at + 3])) for ids in (want, have)]
    raise GateError(f"{llm.path}: {what} differs at token {at}: {shown[0]} in the merged model, {shown[1]} in the file")


def _check_answer(model, tokenizer, llm: LocalLLM, messages: list[dict], max_tokens: int, report: dict) -> None:
    import torch

    prompt = llm.prompt_ids(messages)
    scores = torch.from_numpy(llm.logits(prompt))
    answer = list(llm.generate(prompt, max_tokens))
    # One pass over prompt + the file's answer gives the merged model's choice at every place of it.
    logits = model(torch.tensor([prompt + answer])).logits[0, len(prompt) - 1 : -1].float()
    width = min(scores.numel(), logits.shape[-1])
    cosine = float(
        torch.cosine_similarity(
            scores[:width] - scores[:width].mean(), logits[0, :width] - logits[0, :width].mean(), dim=0
        )
    )
    report["least_cosine"] = min(report["least_cosine"], cosine)
    question = messages[-1]["content"]
    least = COSINE.get(llm.file_type, 0.8)
    if not cosine >= least:  # written so that NaN fails too
        raise GateError(
            f"{llm.path}: after {question!r} the scores have cosine {cosine:.3f} to the merged model's, "
            f"less than {least}"
        )
    report["answers"] += 1
    for at, (theirs, row) in enumerate(zip(answer, logits)):
        ours = int(row.argmax())
        if ours == theirs:
            report["tokens"] += 1
            continue
        chances = row.softmax(-1)
        gap = float(chances[ours] - chances[theirs])
        if gap >= TIE.get(llm.file_type, 0.35):
            words = tokenizer.decode([ours]), tokenizer.decode([theirs])
            raise GateError(
                f"{llm.path}: the answer to {question!r} differs at token {at}: {words[0]!r} in the merged "
                f"model, {words[1]!r} in the file (probability gap {gap:.2f})"
            )
        report["ties"] += 1
        return
    report["equal"] += 1
