"""The commands: `python -m helpers COMMAND`. Exit codes: 0 done, 2 wrong input, 1 a fault."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Annotated

import typer
from typer.exceptions import TyperException

from helpers.errors import UserError

app = typer.Typer(
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
PROGRAM = "python -m helpers"
ModelPath = Annotated[Path, typer.Option("--model", help="A run folder, or a GGUF file.")]
RunPath = Annotated[Path, typer.Option("--model", help="A run folder.")]
MaxTokens = Annotated[int, typer.Option(min=1, help="The longest answer, in tokens.")]
BaseKey = Annotated[str | None, typer.Option(help="A key of the model registry, `auto`, or a folder.")]


def _progress(text: str) -> None:
    """Progress goes to stderr where stdout is the answer."""
    print(text, file=sys.stderr, flush=True)


@app.callback(invoke_without_command=True)
def start(context: typer.Context) -> None:
    """A personal language model, from a profile to a chat on your own CPU."""
    if context.invoked_subcommand is None:
        print(context.get_help())


@app.command()
def personalize(
    profile: Annotated[Path, typer.Option(help="The profile, a YAML file.")],
    out: Annotated[Path, typer.Option(help="The run folder to make or to go on with.")],
    base: BaseKey = None,
    seed: Annotated[int, typer.Option(min=0, max=2**31 - 1, help="Same seed, same dataset, same scores.")] = 1,
) -> None:
    """Make a chat model out of a profile: dataset, adapter, scores, GGUF."""
    from helpers.models import resolve
    from helpers.profile import load_profile

    # Everything the user can get wrong is checked before torch is imported and before anything is written.
    load_profile(profile)
    if base != "auto":
        resolve(base)
    taken = next((folder for folder in (out, *out.parents) if folder.exists()), out)
    if not taken.is_dir():
        raise UserError("is a file, not a folder", taken, "Choose another --out.")
    from helpers.pipeline import personalize as run

    run(profile, out, base=base, seed=seed, log=print)


@app.command()
def ask(
    question: Annotated[str, typer.Argument(help="The question, in quotes.")],
    model: ModelPath,
    stream: Annotated[bool, typer.Option("--stream", help="Print the answer word by word.")] = False,
    max_tokens: MaxTokens = 200,
) -> None:
    """Ask one question; only the answer is printed."""
    from helpers.local_llm import LocalLLM, find_gguf
    from helpers.runs import persona

    path = find_gguf(model)
    someone = persona(model)
    messages = someone.messages(question)
    with LocalLLM(path) as llm:
        _say(llm, messages, max_tokens, someone.stop, stream)


def _say(llm, messages: list[dict], max_tokens: int, stop: tuple[str, ...], stream: bool) -> None:
    if stream:
        for piece in llm.chat(messages, max_tokens=max_tokens, stop=stop, stream=True):
            print(piece, end="", flush=True)
        print()
    else:
        print(llm.chat(messages, max_tokens=max_tokens, stop=stop).strip())


@app.command()
def chat(model: ModelPath, max_tokens: MaxTokens = 200) -> None:
    """Talk to a model in the terminal. An empty line is skipped; /exit or Ctrl-D ends."""
    from helpers.local_llm import LocalLLM, find_gguf
    from helpers.runs import persona

    path = find_gguf(model)
    someone = persona(model)
    with LocalLLM(path) as llm:
        _progress(f"{someone.name} ({path.name}). Every question stands alone. /exit ends.")
        while True:
            try:
                question = input("> ")
            except EOFError:
                return
            if question.strip() in ("/exit", "/quit"):
                return
            if not question.strip():
                continue
            try:
                # The model was trained on single questions: earlier turns would only distract it.
                _say(llm, someone.messages(question), max_tokens, someone.stop, stream=True)
            except UserError as error:
                _progress(str(error))


@app.command()
def evaluate(
    model: ModelPath,
    questions: Annotated[Path, typer.Option(help="Rows to score, such as dataset/eval.jsonl of a run.")],
) -> None:
    """Score a model on a file of questions; prints the results as JSON."""
    from helpers.files import read_jsonl
    from helpers.local_llm import LocalLLM, find_gguf
    from helpers.rows import check_rows, filled

    started = time.time()
    rows = read_jsonl(questions)
    check_rows(rows, questions)
    path = find_gguf(model)
    from helpers import evaluation, results

    with LocalLLM(path) as llm:
        _progress(f"asking {len(rows)} questions")
        scores = evaluation.evaluate(evaluation.gguf_answers(llm), filled(rows))
        settings = {
            "questions": questions.name,
            "file": path.name,
            "file_type": llm.file_type,
            "greedy": True,
        }
    result = results.record("evaluate", path.name, scores["metrics"], settings, started, seed=0, data=questions)
    # The answers themselves hold the owner's facts and stay out of the results.
    print(json.dumps({**result, "by_fact": scores["by_fact"], "by_style": scores["by_style"]}, indent=2))


@app.command()
def export(
    model: RunPath,
    quant: Annotated[str, typer.Option(help="q8_0, q6_k, q5_k_m, q4_k_m, q4_0 or q4_0_all.")] = "q8_0",
    budget_mb: Annotated[
        float | None, typer.Option(min=0, help="Take the best quantisation of at most this size.")
    ] = None,
) -> None:
    """Write a quantised GGUF file of a run, checked against the merged model; prints its path."""
    from helpers.runs import export_run

    done = export_run(model, quant, budget_mb, log=_progress)
    _progress(f"{done['quant']}: {done['mb']} MB, verified")
    print(done["path"])


@app.command()
def doctor(base: BaseKey = None) -> None:
    """Say what this machine can do, what is missing, and how to mend it. Exit code 1 when it is not ready."""
    from helpers import doctor as inspection
    from helpers.models import resolve

    found = inspection.checks(inspection.look("runs"), resolve(base))
    print(inspection.report(found))
    if not inspection.usable(found):
        raise typer.Exit(1)


@app.command()
def bench(
    out: Annotated[Path, typer.Option(help="The folder for the runs.")] = Path("runs/bench"),
    seeds: Annotated[int, typer.Option(min=1, help="Runs of each profile, with the seeds 1, 2, 3 …")] = 3,
) -> None:
    """Run every shipped profile and write data/results and the README's table anew."""
    from helpers.bench import bench as measure

    measure(out, seeds, log=print)


def _count(text: str) -> int:
    """A number of tokens: 2000000, 2M or 500k."""
    factors = {"k": 1_000, "m": 1_000_000}
    number, factor = (text[:-1], factors[text[-1].lower()]) if text[-1:].lower() in factors else (text, 1)
    try:
        return int(float(number) * factor)
    except (ValueError, OverflowError):  # OverflowError: "inf"
        mend = "Write 2M, 500k or 2000000."
        raise UserError(f"{text!r} is not a number of tokens", "--tokens", mend) from None


@app.command()
def pretrain(
    out: Annotated[Path, typer.Option(help="The folder to make or to go on with.")] = Path("runs/base"),
    tokens: Annotated[str, typer.Option(help="How much to train on: 2M, 500k …")] = "22M",
    seed: Annotated[int, typer.Option(min=0, help="Seed of weights and corpus.")] = 1,
    rate: Annotated[float, typer.Option(min=1e-6, help="The highest learning rate.")] = 3e-3,
    weight_decay: Annotated[float, typer.Option(min=0, help="How much of the matrices shrinks, per rate.")] = 0.05,
    init: Annotated[str, typer.Option(help="The folder of a base to go on from, instead of random weights.")] = "",
    layers: Annotated[int, typer.Option(min=1, help="Layers; with --init as many as the base has, or more.")] = 6,
    forms: Annotated[
        int, typer.Option(min=0, help="Question forms of an attribute, fewer than there are; 0: all.")
    ] = 0,
) -> None:
    """Pre-train a base model like the shipped one; OUT/model is a folder for --base. Resumes after a kill."""
    from helpers.pretraining.card import make_base
    from helpers.pretraining.train import PretrainSettings

    settings = PretrainSettings(
        tokens=_count(tokens),
        seed=seed,
        learning_rate=rate,
        weight_decay=weight_decay,
        layers=layers,
        forms=forms,
        init=init,
    )
    print(make_base(out, settings, log=_progress))


@app.command()
def average(
    bases: Annotated[list[Path], typer.Argument(help="Folders of two or more bases; the last one's card is told.")],
    out: Annotated[Path, typer.Option(help="The folder to make.")] = Path("runs/average"),
) -> None:
    """The mean of the weights of bases that go on from one another; OUT/model is a folder for --base."""
    from helpers.pretraining.average import average as make_mean

    print(make_mean(bases, out, log=_progress))


phrasings_app = typer.Typer(rich_markup_mode=None, help="The phrasing bank.", no_args_is_help=True)
app.add_typer(phrasings_app, name="phrasings")


@phrasings_app.callback()
def phrasing_bank() -> None:
    """The phrasing bank in data/phrasings."""


@phrasings_app.command("check")
def phrasings_check() -> None:
    """Check the phrasing bank after adding to it: grammar, twins, splits, coverage. Exit code 2 for a fault."""
    from helpers.phrasing_check import (
        check,
        check_frames,
        check_lexicon,
        check_mentions,
        check_never,
        check_several,
        coverage,
    )
    from helpers.phrasings import bank

    findings = [f for attribute in bank().values() for f in (*check(attribute), *check_lexicon(attribute))]
    findings += check_never() + check_frames() + check_several() + check_mentions()
    tables = {key: coverage(attribute) for key, attribute in bank().items()}
    columns = list(next(iter(tables.values())))
    print(f"{'attribute':22}" + "".join(f"{column:>10}" for column in columns))
    for key, counts in tables.items():
        print(f"{key:22}" + "".join(f"{counts[column]:>10}" for column in columns))
    for finding in findings:
        print(f"{'fault' if finding.fault else 'note'}: {finding.attribute}: {finding.what}: {finding.text}")
    faults = sum(finding.fault for finding in findings)
    if faults:
        raise UserError(f"{faults} faults", "data/phrasings", "Mend the lines named above.")
    print(f"no faults, {len(findings)} notes")


@app.command()
def footprint(
    base: Annotated[str, typer.Option(help="One base model of the registry; nothing: all that are measured.")] = "",
    quant: Annotated[str, typer.Option(help="One quantisation, such as q8_0; nothing: all.")] = "",
    out: Annotated[Path, typer.Option(help="The folder of what is measured already.")] = Path("runs/footprint"),
) -> None:
    """Measure size, memory and speed of the bases at full size, into data/results/footprint. Resumes after a kill."""
    from helpers import footprint as measuring
    from helpers.models import MODELS

    if base and base not in MODELS:
        known = ", ".join(model.key for model in measuring.measured_models())
        raise UserError(f"unknown base model {base!r}", "--base", f"Use one of {known}.")
    if quant and quant not in measuring.QUANTS:
        raise UserError(f"unknown quantisation {quant!r}", "--quant", f"Use one of {', '.join(measuring.QUANTS)}.")
    models = [MODELS[base]] if base else measuring.measured_models()
    measuring.footprint(models, out, [quant] if quant else measuring.QUANTS, log=print)


@app.command()
def samples(
    base: BaseKey = None,
    profile: Annotated[Path, typer.Option(help="The profile, a YAML file.")] = Path("data/profiles/alex.yaml"),
    out: Annotated[Path, typer.Option(help="The folder for the training under way.")] = Path("runs/samples"),
    seeds: Annotated[int, typer.Option(min=1, help="Trainings of each point, with the seeds 1, 2, 3 …")] = 3,
) -> None:
    """Measure recall against the number of different examples of a fact, into data/results/samples. Resumes."""
    from helpers.samples import measure

    measure(base, profile, out, seeds=range(1, seeds + 1), log=print)


@app.command()
def notebooks(
    only: Annotated[str, typer.Option(help="Only those whose names begin so, such as 00.")] = "",
) -> None:
    """Run the notebooks from the first cell to the last and store their outputs."""
    from helpers.notebooks import execute_all

    execute_all(only, log=print)


@app.command()
def badges(repo: Annotated[str, typer.Option(help="This repository on GitHub: owner/name.")]) -> None:
    """Write the repository's name into every Colab badge and set-up cell."""
    from helpers.notebook_files import badges as write_badges

    for path in write_badges(repo):
        print(path.name)


def main(arguments: list[str] | None = None) -> int:
    """Run one command; returns the exit code. Unknown faults come as ordinary tracebacks."""
    try:
        code = typer.main.get_command(app)(args=arguments, prog_name=PROGRAM, standalone_mode=False)
        sys.stdout.flush()
        return code if isinstance(code, int) else 0
    except UserError as error:
        _progress(str(error))
        return 2
    except TyperException as error:  # an unknown option, a missing argument
        _progress(" ".join(f"{error.format_message()} See `{PROGRAM} --help`.".split()))
        return 2
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # the reader, such as `head`, has gone
        sys.stdout = None
        return 0
    except RuntimeError as error:
        if type(error).__name__ == "GateError":  # a refused file: known, told in one line
            _progress(str(error))
            return 1
        raise
