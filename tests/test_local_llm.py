"""Running GGUF files: stop strings, streaming, prompts, safety checks."""

from __future__ import annotations

import shutil

import pytest
from hypothesis import given
from hypothesis import strategies as st

from helpers import llama_cpu, local_llm
from helpers.errors import UserError
from helpers.gguf_header import read_header
from helpers.local_llm import LocalLLM, find_gguf
from helpers.prompts import render_template
from helpers.streaming import StopBuffer
from tests.tiny import ANSWERS, SYSTEM, chat, make_base

QUESTION, ANSWER = next(iter(ANSWERS.items()))


@pytest.fixture(scope="module")
def llm(tiny_gguf):
    with LocalLLM(tiny_gguf, n_threads=1) as model:
        yield model


# -- stop strings


def cut(text: str, stops: list[str]) -> str:
    found = [text.find(stop) for stop in stops if stop and stop in text]
    return text[: min(found)] if found else text


@given(
    pieces=st.lists(st.text(alphabet="ab#é", max_size=4), max_size=12),
    stops=st.lists(st.text(alphabet="ab#é", max_size=5), max_size=4),
)
def test_stop_string_split_across_tokens(pieces, stops):
    buffer = StopBuffer(stops)
    out = "".join(buffer.feed(piece) for piece in pieces) + buffer.flush()
    whole = "".join(pieces)
    assert out == cut(whole, stops)
    assert buffer.finished == (cut(whole, stops) != whole)


def test_stop_buffer_holds_back_only_what_may_be_a_stop():
    buffer = StopBuffer(["### DONE!"])
    assert buffer.feed("Buddy. ##") == "Buddy. "
    assert buffer.feed("x") == "##x"
    assert buffer.feed("### DO") == ""
    assert buffer.feed("NE! more") == ""
    assert buffer.finished and buffer.feed("again") == "" and buffer.flush() == ""


def test_an_earlier_longer_stop_wins_over_a_later_short_one():
    buffer = StopBuffer(["b", "abc"])
    assert [buffer.feed("ab"), buffer.feed("c"), buffer.flush()] == ["", "", ""]


# -- prompts


def test_prompt_ids_equal_those_of_transformers(llm, tiny_base):
    from helpers.models import load_tokenizer

    tokenizer = load_tokenizer(str(tiny_base))
    talk = [
        *chat(QUESTION),
        {"role": "assistant", "content": ANSWER},
        {"role": "user", "content": "Café 12 345? 🙂"},
    ]
    want = tokenizer.apply_chat_template(talk, add_generation_prompt=True, tokenize=True, return_dict=False)
    assert llm.prompt_ids(talk) == want


def test_double_bos(tmp_path):
    """The template writes BOS and the tokenizer would add one too: the prompt has exactly one."""
    from helpers.export import to_gguf

    base = make_base(tmp_path / "base", bos_first=True, steps=1)
    gguf = to_gguf(base, tmp_path / "model-f16.gguf")
    with LocalLLM(gguf, n_threads=1) as model:
        assert model.tokenize("x", add_special=True)[0] == model.bos
        ids = model.prompt_ids(chat("Hi"))
    assert ids[0] == model.bos and ids.count(model.bos) == 1


def test_template_missing_in_gguf(tmp_path, tiny_gguf):
    """llama-cpp-python would take a llama-2 template; here it is an error."""
    broken = tmp_path / "model-f16.gguf"
    broken.write_bytes(tiny_gguf.read_bytes().replace(b"tokenizer.chat_template", b"tokenizer.chat_templatX"))
    with pytest.raises(UserError, match="no chat template"):
        LocalLLM(broken)


def test_templates_are_rendered_as_transformers_does():
    from transformers.utils.chat_template_utils import render_jinja_template

    talk = [{"role": "user", "content": "a < b & ünï"}]
    template = (
        "{{- bos_token }}\n{%- for m in messages %}\n    {{- m | tojson }}"
        "{% generation %}{{ m.content }}{% endgeneration %}"
        "{%- if loop.first %}{% continue %}{% endif %}{%- endfor %}\n"
        "{% if add_generation_prompt %}A{% endif %}"
    )
    want, _ = render_jinja_template([talk], chat_template=template, add_generation_prompt=True, bos_token="<s>")
    assert render_template(template, talk, bos_token="<s>") == want[0]


def test_a_template_cannot_run_code():
    with pytest.raises(ValueError):
        render_template("{{ ''.__class__.__mro__[1].__subclasses__() }}", [])


def test_a_template_that_refuses_the_roles_is_a_user_error(llm, monkeypatch):
    monkeypatch.setattr(llm, "template", "{{ raise_exception('roles must alternate') }}")
    with pytest.raises(UserError, match="roles must alternate"):
        llm.prompt_ids(chat("Hi"))


# -- answers


@pytest.mark.parametrize("question", ANSWERS)
def test_answers_end_at_the_end_token(llm, question):
    assert llm.chat(chat(question)) == ANSWERS[question]


def test_multi_byte_character_split_across_tokens(llm, monkeypatch):
    """Each piece holds whole characters although tokens hold single bytes."""
    question = next(q for q, a in ANSWERS.items() if "東京" in a)
    text = ANSWERS[question].encode()
    monkeypatch.setattr(llm, "generate", lambda *_: iter(range(len(text))))
    monkeypatch.setattr(llm, "token_bytes", lambda token: text[token : token + 1])
    pieces = list(llm.stream(chat(question)))
    assert "".join(pieces) == ANSWERS[question]
    assert len(pieces) == len(ANSWERS[question]) and "\ufffd" not in "".join(pieces)


def test_stream_and_whole_answer_are_the_same(llm):
    pieces = list(llm.chat(chat(QUESTION), stream=True))
    assert len(pieces) > 3 and "".join(pieces) == llm.chat(chat(QUESTION)) == ANSWER


def test_stop_string_of_the_caller(llm):
    stop = ANSWER[10:16]
    assert llm.chat(chat(QUESTION), stop=[stop]) == ANSWER[:10]


def test_max_tokens_and_kept_cache_give_the_same_tokens(llm):
    ids = llm.prompt_ids(chat(QUESTION))
    first = list(llm.generate(ids, max_tokens=5))
    assert len(first) == 5
    assert list(llm.generate(llm.prompt_ids(chat("Who?")), max_tokens=2)) and list(llm.generate(ids, 5)) == first


def test_a_seed_repeats_a_sampled_answer(llm):
    draws = [llm.chat(chat("Hi"), max_tokens=8, temperature=2.0, seed=s) for s in (1, 1, 2, 3)]
    assert draws[0] == draws[1] and len(set(draws)) > 1


def test_a_conversation_longer_than_the_context_is_refused(llm):
    with pytest.raises(UserError, match="context holds 512"):
        llm.chat(chat("word " * 600))


def test_a_conversation_may_fill_several_batches(llm, monkeypatch):
    ids = llm.prompt_ids([{"role": "system", "content": SYSTEM * 3}, *chat(QUESTION)])
    whole = llm.logits(ids)
    llm.logits(ids[:1])
    monkeypatch.setattr(local_llm, "BATCH", 16)
    assert abs(llm.logits(ids) - whole).max() < 0.05


# -- files and safety


def test_find_gguf_takes_the_asked_quantisation_then_the_best(tmp_path):
    (tmp_path / "gguf").mkdir()
    for name in ("model-q4_0", "model-q8_0", "model-f16", "adapter"):
        (tmp_path / "gguf" / f"{name}.gguf").write_bytes(b"GGUF")
    assert find_gguf(tmp_path, "q4_0").name == "model-q4_0.gguf"
    assert find_gguf(tmp_path, "q6_k").name == "model-f16.gguf"
    assert find_gguf(tmp_path / "gguf" / "model-q4_0.gguf").name == "model-q4_0.gguf"
    with pytest.raises(UserError, match="no such file"):
        find_gguf(tmp_path / "nowhere")


def test_a_run_folder_with_only_an_adapter_has_no_model(tmp_path):
    (tmp_path / "gguf").mkdir()
    (tmp_path / "gguf" / "adapter.gguf").write_bytes(b"GGUF")
    with pytest.raises(UserError, match="helpers export"):
        find_gguf(tmp_path)


@pytest.mark.parametrize("size", [0, 3, 20, 1000])
def test_a_cut_file_is_a_user_error(tmp_path, tiny_gguf, size):
    broken = tmp_path / "model-f16.gguf"
    broken.write_bytes(tiny_gguf.read_bytes()[:size])
    with pytest.raises(UserError):
        LocalLLM(broken)


def test_header_tells_architecture_and_type(tiny_gguf):
    header = read_header(tiny_gguf)
    assert header["general.architecture"] == "llama" and header["llama.block_count"] == 2
    assert header["tokenizer.ggml.pre"] == "smollm"


def test_a_model_larger_than_the_free_memory_is_refused_with_what_would_fit(tmp_path, tiny_gguf):
    header, mb = read_header(tiny_gguf), 1_000_000
    big = tmp_path / "model-f16.gguf"
    shutil.copy(tiny_gguf, big)
    with open(big, "r+b") as file:
        file.truncate(3_000 * mb)  # sparse: takes no disk
    told = r"needs about 3101 MB.*2000 MB are free.*q8_0 \(about 1590 MB\)"
    with pytest.raises(UserError, match=told):
        llama_cpu.check_memory(big, header, 2048, 2_000 * mb)
    (tmp_path / "model-q4_0.gguf").write_bytes(b"GGUF")
    with pytest.raises(UserError, match="model-q4_0.gguf beside it fits"):
        llama_cpu.check_memory(big, header, 2048, 2_000 * mb)
    wide = header | {"llama.attention.key_length": 2048, "llama.attention.value_length": 2048}
    with pytest.raises(UserError, match=r"A context of \d+ tokens fits"):
        llama_cpu.check_memory(tiny_gguf, wide, 65536, 2_000 * mb)
    llama_cpu.check_memory(tiny_gguf, header, 2048, 2_000 * mb)


def test_amx_turns_the_extra_buffers_off_only_where_cpu_and_library_have_it(tmp_path, monkeypatch):
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text("flags\t\t: fpu avx512f amx_bf16 amx_tile amx_int8\n")
    assert llama_cpu.cpu_has_amx(str(cpuinfo)) and not llama_cpu.cpu_has_amx(str(tmp_path / "none"))

    class Library:
        info = b"CPU : AVX512 = 1 | AMX_INT8 = 1 | REPACK = 1 | "

        def llama_print_system_info(self):
            return self.info

    library = Library()
    monkeypatch.setattr(llama_cpu, "load_library", lambda: library)
    monkeypatch.setattr(llama_cpu, "cpu_has_amx", lambda: True)
    assert llama_cpu.compute_path()[0] is False
    library.info = b"CPU : AVX512 = 1 | REPACK = 1 | "
    assert llama_cpu.compute_path()[0] is True
    library.info = b"AMX_INT8 = 1"
    monkeypatch.setattr(llama_cpu, "cpu_has_amx", lambda: False)
    assert llama_cpu.compute_path()[0] is True
