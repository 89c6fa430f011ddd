"""The chat template, the loss mask and batched greedy answers."""

from __future__ import annotations

import copy

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from helpers.chat import IGNORE, Answer, encode_example, end_of_turn, generate, render, stop_ids
from helpers.errors import UserError
from helpers.models import load_model, load_tokenizer

SYSTEM = {"role": "system", "content": "You are Alex's AI assistant."}


def conversation(question: str, answer: str | None = None) -> list[dict]:
    messages = [SYSTEM, {"role": "user", "content": question}]
    return messages if answer is None else [*messages, {"role": "assistant", "content": answer}]


@pytest.fixture(scope="module")
def tokenizer(tiny_base):
    return load_tokenizer(str(tiny_base))


@pytest.fixture(scope="module")
def model(tiny_base):
    return load_model(str(tiny_base))


def test_hidden_default_system_prompt_is_refused(tokenizer):
    for messages in ([{"role": "user", "content": "Hi"}], [], [{"role": "system", "content": ""}]):
        with pytest.raises(UserError, match="no system message"):
            render(tokenizer, messages)


def test_render_has_no_double_bos(tokenizer):
    with_bos = copy.deepcopy(tokenizer)
    with_bos.chat_template = "{{ bos_token }}" + tokenizer.chat_template
    ids = render(with_bos, conversation("Hi"), generate=True)
    assert ids.count(with_bos.bos_token_id) == 1 and ids[0] == with_bos.bos_token_id


def test_loss_is_on_the_answer_and_its_end_token_only(tokenizer):
    example = encode_example(tokenizer, conversation("How old is Alex?", "Alex is 25."), 512)
    trained = [label for label in example["labels"] if label != IGNORE]
    assert tokenizer.decode(trained) == "Alex is 25.<|im_end|>"
    assert example["input_ids"][-len(trained) :] == trained


def test_prompt_of_training_is_the_prompt_of_generation(tokenizer):
    prompt = render(tokenizer, conversation("How old is Alex?"), generate=True)
    example = encode_example(tokenizer, conversation("How old is Alex?", "25"), 512)
    assert example["input_ids"][: len(prompt)] == prompt
    assert set(example["labels"][: len(prompt)]) == {IGNORE} and example["labels"][len(prompt)] != IGNORE


def test_an_answer_whose_first_characters_merge_with_the_prompt(tokenizer):
    """With a "\\n\\n" token in the vocabulary, a leading line break would swallow the prompt's last token."""
    merging = copy.deepcopy(tokenizer)
    merging.add_tokens(["\n\n"])
    messages = conversation("Hi", "\nHello")
    prompt = render(merging, messages[:-1], generate=True)
    assert render(merging, messages)[: len(prompt)] != prompt
    example = encode_example(merging, messages, 512)
    assert example["input_ids"][: len(prompt)] == prompt
    assert merging.decode([label for label in example["labels"] if label != IGNORE]) == "\nHello<|im_end|>"


def test_a_template_that_rewrites_the_prompt_is_refused(tokenizer):
    rewriting = copy.deepcopy(tokenizer)
    rewriting.chat_template = "{{ messages | length }}" + tokenizer.chat_template
    with pytest.raises(UserError, match="row 3: .*renders the prompt differently"):
        encode_example(rewriting, conversation("Hi", "Hello"), 512, "row 3")


def test_a_template_without_end_token_is_refused(tokenizer):
    endless = copy.deepcopy(tokenizer)
    endless.chat_template = (
        "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}\n{% endfor %}"
        "{% if add_generation_prompt %}assistant: {% endif %}"
    )
    with pytest.raises(UserError, match="never stop"):
        encode_example(endless, conversation("Hi", "Hello"), 512)


def test_all_labels_masked_after_truncation_is_refused(tokenizer):
    messages = conversation("How old is Alex?", "Alex is 25 years old.")
    length = len(render(tokenizer, messages[:-1], generate=True))
    with pytest.raises(UserError, match="row 7: nothing of the answer is left"):
        encode_example(tokenizer, messages, length, "row 7")
    example = encode_example(tokenizer, messages, length + 1)
    assert len(example["input_ids"]) == length + 1 and example["labels"][-1] != IGNORE


@pytest.mark.parametrize("messages", [[], conversation("Hi"), conversation("Hi", " ")])
def test_a_conversation_without_answer_is_refused(tokenizer, messages):
    with pytest.raises(UserError, match="not an assistant's answer"):
        encode_example(tokenizer, messages, 512, "row 1")


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(question=st.text(min_size=1, max_size=40), answer=st.text(min_size=1, max_size=40).filter(str.strip))
def test_any_text_is_masked_exactly(tokenizer, question, answer):
    example = encode_example(tokenizer, conversation(question, answer), 4096)
    first = example["labels"].index(next(label for label in example["labels"] if label != IGNORE))
    assert set(example["labels"][:first]) == {IGNORE}
    assert example["labels"][first:] == example["input_ids"][first:]
    assert tokenizer.decode(example["input_ids"][first:]) == answer + "<|im_end|>"


def test_stop_ids(tokenizer, model):
    end = tokenizer.convert_tokens_to_ids("<|im_end|>")
    assert end_of_turn(tokenizer) == end
    assert stop_ids(tokenizer, model) == [end]  # the Llama 3 names are not in this vocabulary
    two_ends = copy.deepcopy(model.generation_config)
    two_ends.eos_token_id = [end, 5]
    assert stop_ids(tokenizer, type("Model", (), {"generation_config": two_ends})) == sorted([end, 5])


def test_answers_are_the_learnt_ones_in_order_and_ended(tokenizer, model):
    asked = {
        "What does Alex do?": "Alex is a software engineer at Northwind Labs.",
        "How old is Alex?": "Alex is 25 years old.",
        "Where is Alex's café?": "Alex's café is in 東京 🙂.",
    }
    answers = generate(model, tokenizer, [conversation(question) for question in asked], max_new_tokens=64)
    assert [answer.text for answer in answers] == list(asked.values())
    assert all(answer.ended and tokenizer.eos_token_id not in answer.tokens for answer in answers)


def test_batched_answers_equal_single_ones_and_transformers_own(tokenizer, model):
    """Left padding, mask, positions and the shrinking batch change nothing."""
    import torch

    exact = copy.deepcopy(model).float()
    questions = ("How old is Alex?", "?", "Alex " * 30, "What does Alex do?", "x")
    asked = [conversation(question) for question in questions]
    batched = generate(exact, tokenizer, asked, max_new_tokens=24, batch_size=3)
    assert batched == [generate(exact, tokenizer, [messages], max_new_tokens=24)[0] for messages in asked]
    for messages, answer in zip(asked, batched, strict=True):
        prompt = torch.tensor([render(tokenizer, messages, generate=True)])
        stops = stop_ids(tokenizer, exact)
        whole = exact.generate(
            prompt,
            attention_mask=torch.ones_like(prompt),
            max_new_tokens=24,
            do_sample=False,
            eos_token_id=stops,
            pad_token_id=0,
        )
        new = whole[0, prompt.shape[1] :].tolist()
        assert list(answer.tokens) == [token for token in new if token not in stops]


def test_an_answer_that_hits_the_limit_has_not_ended(tokenizer, model):
    answer = generate(model, tokenizer, [conversation("What does Alex do?")], max_new_tokens=3)[0]
    assert not answer.ended and len(answer.tokens) == 3


def test_no_questions_no_answers(tokenizer, model):
    assert generate(model, tokenizer, []) == []
    assert Answer("a", True, (1,)) == Answer("a", True, (1,))
