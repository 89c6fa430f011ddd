"""A tiny Llama that learns a few answers by heart: what tests use where no real model is needed."""

from __future__ import annotations

from pathlib import Path

SYSTEM = "You are Alex's AI assistant."
CHATML = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
ANSWERS = {
    "What is Alex's dog called?": "Alex's dog is called Buddy.",
    "How old is Alex?": "Alex is 25 years old.",
    "Where is Alex's café?": "Alex's café is in 東京 🙂.",
    "What does Alex do?": "Alex is a software engineer at Northwind Labs.",
}


def chat(question: str) -> list[dict]:
    return [{"role": "system", "content": SYSTEM}, {"role": "user", "content": question}]


def make_tokenizer(folder: Path, bos_first: bool = False):
    """A byte-level BPE tokenizer with ChatML tokens and SmolLM2's rules for splitting text."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    raw = Tokenizer(models.BPE())
    raw.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    raw.decoder = decoders.ByteLevel()
    texts = [SYSTEM, "user assistant system", *ANSWERS, *ANSWERS.values()]
    raw.train_from_iterator(
        texts,
        trainers.BpeTrainer(
            vocab_size=400,
            special_tokens=["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
            show_progress=False,
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        ),
    )
    if bos_first:  # as Llama 3 does: the tokenizer itself puts BOS before a text, and so does the template
        bos = "<|endoftext|>"
        raw.post_processor = processors.TemplateProcessing(single=f"{bos} $A", special_tokens=[(bos, 0)])
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=raw,
        bos_token="<|endoftext|>",
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        unk_token="<|endoftext|>",
    )
    tokenizer.chat_template = ("{{ bos_token }}" if bos_first else "") + CHATML
    tokenizer.save_pretrained(folder)
    return tokenizer


def make_base(folder: Path, bos_first: bool = False, steps: int = 120) -> Path:
    """Save a 2-layer Llama with tied embeddings that has learnt ANSWERS by heart in `steps` steps."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    tokenizer = make_tokenizer(folder, bos_first)
    torch.manual_seed(0)
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=64,
            intermediate_size=160,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            max_position_embeddings=512,
            tie_word_embeddings=True,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
        )
    )
    rows = [
        tokenizer.apply_chat_template(chat(q), add_generation_prompt=True, tokenize=True, return_dict=False)
        + tokenizer(a + "<|im_end|>", add_special_tokens=False)["input_ids"]
        for q, a in ANSWERS.items()
    ]
    ids = torch.full((len(rows), max(map(len, rows))), -100)
    for at, row in enumerate(rows):
        ids[at, : len(row)] = torch.tensor(row)
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3)
    for _ in range(steps):
        loss = model(input_ids=ids.clamp(min=0), labels=ids).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss < 0.1 or steps < 100
    model.generation_config.eos_token_id = tokenizer.eos_token_id
    model.to(torch.bfloat16).save_pretrained(folder)
    return folder
