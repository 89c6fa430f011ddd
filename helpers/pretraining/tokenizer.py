"""A byte-level BPE tokenizer with ChatML special tokens and the pre-tokenizer rules of SmolLM2."""

from __future__ import annotations

from collections.abc import Iterable

SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
CHAT_TEMPLATE = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>\\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)


def train_tokenizer(texts: Iterable[str], vocab_size: int):
    """A transformers tokenizer learned from `texts`. Digits stand alone; no token begins or ends a text by itself."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=list(SPECIAL),
        show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )
    tokenizer.train_from_iterator(texts, trainer)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        clean_up_tokenization_spaces=False,
        model_max_length=2048,
    )
    fast.chat_template = CHAT_TEMPLATE
    return fast


def encode_chat(tokenizer, messages: list[dict[str, str]]) -> tuple[list[int], list[bool]]:
    """(token ids, whether each is an answer token) of a whole chat; the end token of an answer counts as answer.

    The pieces are encoded one by one, which gives the same ids as the whole text because special tokens part them.
    """
    encode = tokenizer.backend_tokenizer.encode
    ids: list[int] = []
    answer: list[bool] = []
    for message in messages:
        head = encode(f"<|im_start|>{message['role']}\n", add_special_tokens=False).ids
        body = encode(f"{message['content']}<|im_end|>", add_special_tokens=False).ids
        tail = encode("\n", add_special_tokens=False).ids
        ids += head + body + tail
        spoken = message["role"] == "assistant"
        answer += [False] * len(head) + [spoken] * len(body) + [False] * len(tail)
    return ids, answer
