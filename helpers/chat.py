"""Between messages and tokens: the chat template, the loss mask of training, batched greedy answers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from helpers.errors import UserError

IGNORE = -100  # label of a token that the loss leaves out


def render(tokenizer, messages: list[dict], generate: bool = False) -> list[int]:
    """Token ids of `messages` through the chat template; with `generate` the opening of an answer as well.

    Raises UserError without a system message: many templates would add a hidden default one.
    """
    if not messages or messages[0].get("role") != "system" or not messages[0].get("content"):
        raise UserError(
            "the conversation has no system message, and the chat template may add a hidden one",
            None,
            "Put a system message first.",
        )
    return list(tokenizer.apply_chat_template(messages, add_generation_prompt=generate, return_dict=False))


def encode_example(tokenizer, messages: list[dict], max_length: int, where: object = None) -> dict[str, list]:
    """`input_ids` and `labels` of a conversation that ends with an answer, cut to `max_length` tokens.

    Labels are -100 everywhere but on the answer and the token that ends its turn: the model has to learn to
    stop. Raises UserError (naming `where`) without an answer, or when the cut leaves nothing of it.
    """
    last = messages[-1] if messages else {}
    if last.get("role") != "assistant" or not str(last.get("content") or "").strip():
        raise UserError("the last message is not an assistant's answer", where, "Add one with some text.")
    prompt = render(tokenizer, messages[:-1], generate=True)
    full = render(tokenizer, messages)
    if full[: len(prompt)] != prompt:
        full = prompt + _answer_ids(tokenizer, messages, where)
    special = _special_ids(tokenizer)
    ends = [position for position in range(len(prompt), len(full)) if full[position] in special]
    if not ends:
        raise UserError(
            "the chat template puts no special token behind an answer, it would never stop",
            where,
            "Choose an instruct (chat) model.",
        )
    ids = full[: ends[-1] + 1][:max_length]  # what templates write after the end token is never generated
    if len(ids) <= len(prompt):
        raise UserError(
            f"nothing of the answer is left: the prompt has {len(prompt)} tokens, the limit is {max_length}",
            where,
            "Raise max_length or shorten the prompt.",
        )
    return {"input_ids": ids, "labels": [IGNORE] * len(prompt) + ids[len(prompt) :]}


def end_of_turn(tokenizer) -> int | None:
    """The special token that the chat template puts behind an answer, None if there is none."""
    messages = [{"role": "system", "content": "s"}, {"role": "user", "content": "u"}]
    prompt = render(tokenizer, messages, generate=True)
    full = render(tokenizer, [*messages, {"role": "assistant", "content": "a"}])
    special = _special_ids(tokenizer)
    return next((token for token in full[len(prompt) :] if token in special), None)


def stop_ids(tokenizer, model=None) -> list[int]:
    """Ids that end an answer: the template's end of turn, eos (tokenizer's, `model`'s), the registry's."""
    from helpers.models import MODELS

    of_model = getattr(getattr(model, "generation_config", None), "eos_token_id", None)
    found = [end_of_turn(tokenizer), tokenizer.eos_token_id]
    found += of_model if isinstance(of_model, list) else [of_model]
    for name in {name for entry in MODELS.values() for name in entry.stop_tokens}:
        number = tokenizer.convert_tokens_to_ids(name)  # of an unknown name: None, or the unknown token's id
        if number is not None and tokenizer.convert_ids_to_tokens(number) == name:
            found.append(number)
    return sorted({number for number in found if number is not None})


@dataclass(frozen=True)
class Answer:
    """A generated answer; `ended` tells whether an end token closed it (which is not among `tokens`)."""

    text: str
    ended: bool
    tokens: tuple[int, ...]


def generate(
    model, tokenizer, conversations: Sequence[list[dict]], max_new_tokens: int = 64, batch_size: int = 64
) -> list[Answer]:
    """Greedy answers to `conversations` (each ends with a user's message), in their order.

    Conversations of similar length share a batch. Greedy means the likeliest token and nothing else: the
    model's own generation settings (penalties, sampling) do not apply, as in llama.cpp at temperature 0.
    """
    import torch

    prompts = [render(tokenizer, messages, generate=True) for messages in conversations]
    order = sorted(range(len(prompts)), key=lambda number: len(prompts[number]))
    stops = torch.tensor(stop_ids(tokenizer, model), device=model.device)
    answers: list[Answer | None] = [None] * len(prompts)
    was_training = model.training
    model.eval()
    with torch.inference_mode():
        for start in range(0, len(order), batch_size):
            batch = order[start : start + batch_size]
            finished = _greedy(model, [prompts[number] for number in batch], stops, max_new_tokens)
            for row, tokens, ended in finished:
                text = tokenizer.decode(tokens, skip_special_tokens=True)
                answers[batch[row]] = Answer(text, ended, tuple(tokens))
    model.train(was_training)
    return answers


def _greedy(model, prompts: list[list[int]], stops, limit: int) -> Iterator[tuple[int, list[int], bool]]:
    """(row, new tokens, ended) of each prompt as it finishes; finished rows leave the batch and its cache."""
    import torch
    from transformers import DynamicCache

    width, device = max(map(len, prompts)), model.device
    # Left padding: all prompts end at the same column, where the answers begin.
    ids = torch.tensor([[0] * (width - len(prompt)) + prompt for prompt in prompts], device=device)
    mask = torch.tensor([[0] * (width - len(prompt)) + [1] * len(prompt) for prompt in prompts], device=device)
    positions = (mask.cumsum(1) - 1).clamp(min=0)
    cache = DynamicCache(config=model.config)
    rows = list(range(len(prompts)))
    new: list[list[int]] = [[] for _ in prompts]
    for _ in range(limit):
        token = (
            model(
                input_ids=ids,
                attention_mask=mask,
                position_ids=positions,
                past_key_values=cache,
                use_cache=True,
                logits_to_keep=1,
            )
            .logits[:, -1]
            .argmax(-1)
        )
        ended = torch.isin(token, stops)
        for row, number, end in zip(rows, token.tolist(), ended.tolist(), strict=True):
            if end:
                yield row, new[row], True
            else:
                new[row].append(number)
        keep = (~ended).nonzero().squeeze(1)
        if not len(keep):
            return
        if len(keep) < len(rows):
            rows = [rows[number] for number in keep.tolist()]
            cache.batch_select_indices(keep)
            token, mask, positions = token[keep], mask[keep], positions[keep]
        ids = token[:, None]
        mask = torch.cat([mask, mask.new_ones(len(mask), 1)], 1)
        positions = positions[:, -1:] + 1
    for row in rows:
        yield row, new[row], False


def _special_ids(tokenizer) -> set[int]:
    added = {number for number, token in tokenizer.added_tokens_decoder.items() if token.special}
    return added | set(tokenizer.all_special_ids)


def _answer_ids(tokenizer, messages: list[dict], where: object) -> list[int]:
    """Ids of what follows the prompt, tokenised apart from it.

    Needed where the prompt's last token would merge with the answer's first characters (an answer that starts
    with a line break): generation starts behind the whole prompt, so training has to do the same.
    """
    prompt = tokenizer.apply_chat_template(messages[:-1], tokenize=False, add_generation_prompt=True)
    full = tokenizer.apply_chat_template(messages, tokenize=False)
    if not full.startswith(prompt):
        raise UserError(
            "the chat template renders the prompt differently once an answer follows it",
            where,
            "Choose a model whose template only appends.",
        )
    return tokenizer(full[len(prompt) :], add_special_tokens=False)["input_ids"]
