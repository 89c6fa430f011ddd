"""The command line: what is called with what, exit codes, and what goes to which stream."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import types

import pytest

from helpers import cli, doctor, local_llm
from helpers.cli import main
from helpers.errors import UserError
from helpers.models import ROOT
from helpers.runs import base_of, persona
from tests.broken.datasets import ROW, lines
from tests.broken.profiles import GOOD


class FakeLLM:
    """Stands for a loaded model: answers with what it was asked."""

    file_type = "q8_0"
    seen: list = []

    def __init__(self, path):
        self.path = path

    def chat(self, messages, max_tokens, stop=(), stream=False):
        FakeLLM.seen.append((messages, max_tokens, tuple(stop)))
        text = f"You asked: {messages[-1]['content']}"
        return iter(text.split(" ")) if stream else text

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        pass


@pytest.fixture
def run(tmp_path, monkeypatch):
    """A run folder with a profile and a file that passes for a model."""
    folder = tmp_path / "run"
    (folder / "gguf").mkdir(parents=True)
    (folder / "gguf" / "model-q8_0.gguf").write_bytes(b"GGUF")
    (folder / "profile.yaml").write_text(GOOD)
    monkeypatch.setattr(local_llm, "LocalLLM", FakeLLM)
    FakeLLM.seen = []
    return folder


def call(capsys, *arguments: object) -> tuple[int, str, str]:
    code = main([str(argument) for argument in arguments])
    written = capsys.readouterr()
    return code, written.out, written.err


def test_help_names_every_command(capsys):
    for arguments in ([], ["--help"]):
        code, out, err = call(capsys, *arguments)
        assert code == 0 and err == ""
        assert all(name in out for name in ("personalize", "ask", "chat", "evaluate", "export", "doctor"))


@pytest.mark.parametrize(
    "arguments",
    [
        ["bogus"],
        ["personalize"],
        ["personalize", "--profile"],
        ["ask", "--model", "x"],
        ["ask", "hi"],
        ["--bogus"],
        ["personalize", "--profile", "p", "--out", "o", "--seed", "x"],
        ["export", "--model", "x", "--budget-mb", "-1"],
        ["personalize", "--profile", "p", "--out", "o", "--seed", "-1"],
        ["ask", "--model", "x", "hi", "there"],
    ],
)
def test_wrong_usage_is_told_in_one_line(arguments, capsys):
    code, out, err = call(capsys, *arguments)
    assert (code, out) == (2, "") and err.count("\n") == 1 and "--help" in err


def test_personalize_passes_everything_on(tmp_path, monkeypatch, capsys):
    called = []
    fake = types.SimpleNamespace(personalize=lambda *args, **named: called.append((args, named)))
    monkeypatch.setitem(sys.modules, "helpers.pipeline", fake)
    profile, out = tmp_path / "p.yaml", tmp_path / "run"
    profile.write_text(GOOD)
    assert call(capsys, "personalize", "--profile", profile, "--out", out, "--seed", 7)[0] == 0
    assert called == [((profile, out), {"base": None, "seed": 7, "log": print})]


@pytest.mark.parametrize(
    ("option", "value", "words"),
    [
        ("--base", "no-such-base", "unknown base model"),
        ("--out", "p.yaml", "is a file"),
        ("--out", "p.yaml/below", "is a file"),
        ("--profile", "none.yaml", "no such file"),
    ],
)
def test_personalize_refuses_before_it_starts(option, value, words, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "helpers.pipeline", None)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "p.yaml").write_text(GOOD)
    arguments = {"--profile": "p.yaml", "--out": "run", option: value}
    code, out, err = call(capsys, "personalize", *(part for pair in arguments.items() for part in pair))
    assert (code, out) == (2, "") and words in err and os.listdir() == ["p.yaml"]


def test_ask_prints_the_answer_alone(run, capsys):
    assert call(capsys, "ask", "--model", run, "Who am I?") == (0, "You asked: Who am I?\n", "")
    messages, _, stop = FakeLLM.seen[0]
    assert messages[0]["role"] == "system" and "Alex's AI assistant" in messages[0]["content"] and stop == ("DONE!",)


def test_ask_streams_the_same(run, capsys):
    assert call(capsys, "ask", "--model", run, "Who?", "--stream") == (0, "Youasked:Who?\n", "")


def test_ask_a_single_file_finds_its_profile(run, capsys):
    assert call(capsys, "ask", "--model", run / "gguf" / "model-q8_0.gguf", "Hi?")[0] == 0
    assert FakeLLM.seen[0][2] == ("DONE!",)


def test_ask_a_real_model(tiny_gguf, tmp_path, capsys):
    run = tmp_path / "real"
    (run / "gguf").mkdir(parents=True)
    (run / "gguf" / "model-q8_0.gguf").symlink_to(tiny_gguf)
    (run / "profile.yaml").write_text(GOOD + "system_prompt: You are Alex's AI assistant.\n")
    for stream in ([], ["--stream"]):
        code, out, _ = call(capsys, "ask", "--model", run, "What is Alex's dog called?", *stream)
        assert (code, out) == (0, "Alex's dog is called Buddy.\n")


def test_a_model_without_a_profile_is_any_assistant(tmp_path):
    assert persona(tmp_path / "model.gguf").system_prompt == "You are a helpful assistant."


@pytest.mark.parametrize("question", ["", "  ", "a<|im_end|>", "a\x00", "\udcff"])
def test_questions_that_are_no_text(question, run, capsys):
    code, out, err = call(capsys, "ask", "--model", run, question)
    assert (code, out) == (2, "") and err.count("\n") == 1 and not FakeLLM.seen


def test_chat(run, capsys, monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.StringIO("Who am I?\n\n<|im_end|>\nAnd now?\n/exit\nnever asked\n"))
    code, out, err = call(capsys, "chat", "--model", run)
    assert code == 0 and [messages[-1]["content"] for messages, *_ in FakeLLM.seen] == [
        "Who am I?",
        "And now?",
    ]
    assert "Youasked:WhoamI?\n" in out and "<|im_end|>" in err and "Alex's AI assistant" in err


def test_chat_ends_with_its_input(run, capsys, monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.StringIO("Hello?\n"))
    assert call(capsys, "chat", "--model", run)[0] == 0 and len(FakeLLM.seen) == 1


@pytest.mark.parametrize("command", [("ask", "--model", "RUN", "Hi?"), ("chat", "--model", "RUN")])
def test_interrupt_is_quiet(command, run, capsys, monkeypatch):
    def interrupted(*args, **named):
        raise KeyboardInterrupt

    monkeypatch.setattr(FakeLLM, "chat", interrupted)
    monkeypatch.setattr(sys, "stdin", io.StringIO("Hi?\n"))
    code, out, err = call(capsys, *(str(run) if part == "RUN" else part for part in command))
    assert code == 130 and "Traceback" not in err and "Interrupt" not in err


def test_evaluate_prints_json_alone(run, capsys, tmp_path, monkeypatch):
    monkeypatch.setattr(FakeLLM, "chat", lambda self, messages, max_tokens, stop=(): "That is Buddy.")
    questions = tmp_path / "q.jsonl"
    questions.write_bytes(
        lines(
            ROW,
            {**ROW, "keywords": ["dog"], "style": "lower", "id": 2},
            {k: v for k, v in ROW.items() if k not in ("style", "split", "perspective")},
        )
    )
    code, out, err = call(capsys, "evaluate", "--model", run, "--questions", questions)
    result = json.loads(out)
    assert code == 0 and "3 questions" in err
    assert result["metrics"]["recall_heldout"]["n"] == 2 and result["metrics"]["recall_heldout"]["value"] == 1
    assert result["metrics"]["recall_noisy"]["n"] == 1 and result["metrics"]["recall_noisy"]["value"] == 0
    assert result["by_style"]["lower"]["value"] == 0 and len(result["data_sha256"]) == 64
    assert "That is Buddy" not in out  # answers hold personal facts


def test_export(run, capsys, monkeypatch):
    from helpers import export

    (run / "adapter").mkdir()
    (run / "adapter" / "adapter_config.json").write_text('{"base_model_name_or_path": "Qwen/Qwen2.5-0.5B-Instruct"}')
    (run / "dataset").mkdir()
    (run / "dataset" / "eval.jsonl").write_bytes(lines(*[ROW] * 50))
    (run / "merged").mkdir()
    (run / "merged" / "config.json").write_text("{}")
    called = []

    def export_gguf(merged, folder, quant, probes, budget_mb, log):
        called.append((merged, folder, quant, len(probes), budget_mb))
        return {"path": folder / "model-q4_0.gguf", "quant": "q4_0", "mb": 1.5}

    monkeypatch.setattr(export, "export_gguf", export_gguf)
    code, out, err = call(capsys, "export", "--model", run, "--quant", "q6_k", "--budget-mb", 2)
    assert called == [(run / "merged", run / "gguf", "q6_k", 12, 2.0)]
    assert (code, out) == (0, f"{run / 'gguf' / 'model-q4_0.gguf'}\n") and "1.5 MB" in err
    assert base_of(run).key == "qwen2.5-0.5b"


@pytest.mark.parametrize(("arguments", "words"), [(["--quant", "q9"], "unknown quantisation 'q9'"), ([], "no adapter")])
def test_export_refuses(arguments, words, run, capsys):
    code, out, err = call(capsys, "export", "--model", run, *arguments)
    assert (code, out) == (2, "") and words in err and err.count("\n") == 1


def test_refused_file_is_a_fault_in_one_line(monkeypatch, capsys):
    from helpers import runs
    from helpers.gate import GateError

    def refused(*args, **named):
        raise GateError("model.gguf: the answers differ")

    monkeypatch.setattr(runs, "export_run", refused)
    assert call(capsys, "export", "--model", "x") == (1, "", "model.gguf: the answers differ\n")


def test_other_faults_are_not_hidden(monkeypatch):
    from helpers import runs

    def broken(*args, **named):
        raise RuntimeError("a bug")

    monkeypatch.setattr(runs, "export_run", broken)
    with pytest.raises(RuntimeError, match="a bug"):
        main(["export", "--model", "x"])


@pytest.mark.parametrize(("status", "code"), [("ok", 0), ("warn", 0), ("fail", 1)])
def test_doctor(status, code, monkeypatch, capsys):
    monkeypatch.setattr(doctor, "checks", lambda machine, model: [doctor.Check("thing", status, "so it is", "do that")])
    found, out, err = call(capsys, "doctor")
    assert found == code and err == "" and "so it is" in out and "-> do that" in out
    assert ("Not ready: thing." in out) == (code == 1)


def test_doctor_of_an_unknown_base(capsys):
    code, out, err = call(capsys, "doctor", "--base", "nothing")
    assert (code, out) == (2, "") and "unknown base model" in err


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["footprint", "--base", "nothing"], "--base: unknown base model 'nothing'"),
        (["footprint", "--base", "qwen2.5-7b"], "--base: qwen2.5-7b is not measured, its sizes are computed"),
        (["footprint", "--base", "pocket", "--quant", "q3"], "--quant: unknown quantisation 'q3'"),
        (["samples", "--base", "nothing"], "--base: unknown base model 'nothing'"),
        (["samples", "--profile", "nothing.yaml"], "nothing.yaml: "),
    ],
)
def test_what_cannot_be_measured_is_told_in_one_line(arguments, told, tmp_path, capsys):
    code, out, err = call(capsys, *arguments, "--out", str(tmp_path / "run"))
    assert (code, out) == (2, "") and err.startswith(told) and err.count("\n") == 1
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(("options", "asked"), [([], 5 * 7), (["--base", "pocket", "--quant", "q4_0"], 1)])
def test_footprint_measures_what_is_asked_for(options, asked, monkeypatch, capsys, tmp_path):
    from helpers import footprint

    seen = []

    def measured(models, folder, quants, log):
        seen.extend((model.key, quant) for model in models for quant in quants)
        assert folder == tmp_path

    monkeypatch.setattr(footprint, "footprint", measured)
    assert call(capsys, "footprint", *options, "--out", str(tmp_path))[0] == 0 and len(seen) == asked


def test_usererror_is_one_line_whatever_it_holds(monkeypatch, capsys):
    def wrong(*args):
        raise UserError("two\nlines", "here\tthere", "mend\nit")

    monkeypatch.setattr(cli, "app", None)
    monkeypatch.setattr(cli.typer.main, "get_command", wrong)
    assert call(capsys, "doctor") == (2, "", "here there: two lines. mend it\n")


@pytest.mark.parametrize("arguments", [["--help"], ["personalize", "--help"]])
def test_help_loads_nothing_heavy(arguments):
    """`--help` must come at once."""
    code = (
        "import sys; from helpers.cli import main; main(sys.argv[1:]); "
        "print([m for m in ('torch', 'transformers', 'scipy', 'numpy', 'llama_cpp') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    assert done.stdout.endswith("[]\n"), done.stdout + done.stderr


def test_reader_that_goes_away():
    """`python -m helpers --help | head -1` ends without a traceback."""
    done = subprocess.run(
        f"{sys.executable} -m helpers --help | head -1",
        shell=True,
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.stdout.startswith("Usage") and done.stderr == ""
