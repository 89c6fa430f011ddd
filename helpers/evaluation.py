"""Scores: greedy answers against keywords, abstentions, leaks and what the base could do before."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Sequence

from helpers.results import metric
from helpers.text import contains, folded

# What an abstention says. The bank's abstentions all hold one of these; a test proves it.
ABSTAINS = (
    "don't know",
    "do not know",
    "don't have",
    "do not have",
    "wasn't told",
    "was not told",
    "not been told",
    "haven't been told",
    "no information",
    "never told",
    "no record",
    "can't say",
    "cannot say",
    "not something i know",
    "nobody has told",
    "no idea",
    "not sure",
    "isn't something i",
)
AnswerFn = Callable[[list[list[dict]]], Sequence]


def is_abstention(answer: str) -> bool:
    """Whether the answer says that it does not know."""
    plain = folded(answer)
    return any(phrase in plain for phrase in ABSTAINS)


def is_right(answer: str, keywords: Sequence[str]) -> bool:
    """Whether every keyword stands in the answer as whole words, whatever the case."""
    return bool(keywords) and all(contains(answer, keyword) for keyword in keywords)


def leaks(answer: str, keywords: Sequence[str]) -> bool:
    """Whether the answer to a stranger's question holds any word of the owner's fact."""
    return any(contains(answer, keyword) for keyword in keywords)


def judge(row: dict, answer: str) -> bool:
    """Whether `answer` is right for its row: facts by keywords, the unknown by abstention, strangers by no leak.

    An abstention may repeat what the question says: "I don't know your English teacher" tells nobody's languages.
    """
    if row["kind"] == "unknown":
        return is_abstention(answer)
    if row["kind"] == "stranger":
        question, words = row["messages"][-2]["content"], row.get("leak", ())
        if is_abstention(answer):
            words = [word for word in words if not contains(question, word)]
        return not leaks(answer, words)
    if not row["keywords"]:
        return bool(answer.strip())
    return is_right(answer, row["keywords"])


def is_verbatim(row: dict) -> bool:
    """Whether the answer spells each keyword as the row's expected answer does: "Żurek", not "żurek" or "Zurek"."""
    expected = row["messages"][-1]["content"]
    spelt = [re.search(re.escape(keyword), expected, re.IGNORECASE) for keyword in row["keywords"]]
    return all(match.group() in row["answer"] for match in spelt if match)


def told_by_prompt(row: dict) -> bool:
    """Whether the row's own system prompt holds the fact, so that an untuned model could read it there."""
    first = row["messages"][0]
    return first["role"] == "system" and is_right(first["content"], row["keywords"])


def transformers_answers(model, tokenizer, max_new_tokens: int = 80) -> AnswerFn:
    """An answer function over a transformers model, for `evaluate`."""
    from helpers.chat import generate

    return lambda conversations: generate(model, tokenizer, conversations, max_new_tokens)


def gguf_answers(llm, max_tokens: int = 80) -> AnswerFn:
    """An answer function over a loaded GGUF file, for `evaluate`."""
    return lambda conversations: [llm.chat(messages, max_tokens=max_tokens) for messages in conversations]


def ask_all(answer_fn: AnswerFn, rows: Sequence[dict]) -> list[dict]:
    """The rows with `answer`, `ended` (None where unknown) and `right` added."""
    answers = answer_fn([row["messages"][:-1] for row in rows])
    asked = []
    for row, answer in zip(rows, answers, strict=True):
        text = answer if isinstance(answer, str) else answer.text
        asked.append({**row, "answer": text, "ended": getattr(answer, "ended", None), "right": judge(row, text)})
    return asked


def _share(rows: Sequence[dict], key: str = "right") -> dict:
    return metric(sum(bool(row[key]) for row in rows), len(rows))


def summarize(asked: Sequence[dict]) -> dict:
    """Metrics of asked rows, each {value, n, ci95}; a metric without a row to count is left out.

    recall_base: forms the base knew and tuning did not; recall_heldout: forms nobody saw, both as they are written;
    recall_noisy: either with typos, capitals, no punctuation …; recall_reversed: "Who is Buddy?"; recall_mentions:
    other questions that say a value, "Does Alex live in Boston?" (`helpers.mentions`); verbatim: right answers to facts
    that spell them letter for letter; in_prompt: facts that the system prompt tells (the owner's full name), which is
    reading and no recall; abstention: facts never told; leaks: strangers' questions answered with the owner's fact;
    general: knowledge that tuning may have cost.
    """
    banked = [r for r in asked if r["kind"] == "fact" and r["source"] == "bank"]
    facts = [r for r in banked if not told_by_prompt(r)]
    plain = [r for r in facts if r["style"] == "plain"]
    groups = {
        "recall_base": [r for r in plain if r["split"] == "base"],
        "recall_heldout": [r for r in plain if r["split"] == "heldout"],
        "recall_noisy": [r for r in facts if r["style"] not in ("plain", "reversed", "mention")],
        "recall_reversed": [r for r in facts if r["style"] == "reversed"],
        "recall_mentions": [r for r in facts if r["style"] == "mention"],
        "in_prompt": [r for r in banked if told_by_prompt(r)],
        "recall_custom": [r for r in asked if r["kind"] == "fact" and r["source"] == "custom"],
        "combined": [r for r in asked if r["kind"] == "combined"],
        "identity": [r for r in asked if r["kind"] == "identity"],
        "abstention": [r for r in asked if r["kind"] == "unknown"],
        "abstention_untold": [r for r in asked if r["kind"] == "unknown" and r["fact"].startswith("untold")],
        "abstention_never": [r for r in asked if r["kind"] == "unknown" and r["fact"].startswith("never")],
        "general": [r for r in asked if r["kind"] == "general"],
        "known_people": [r for r in asked if r["kind"] == "known"],
        "reading": [r for r in asked if r["kind"] == "reading"],
    }
    metrics = {name: _share(rows) for name, rows in groups.items() if rows}
    if right := [r for r in facts if r["right"] and r["style"] not in ("reversed", "mention")]:
        metrics["verbatim"] = metric(sum(is_verbatim(r) for r in right), len(right))
    strangers = [r for r in asked if r["kind"] == "stranger"]
    for name, prefix in (("leaks", "stranger."), ("leaks_near_miss", "relation.")):
        rows = [r for r in strangers if r["fact"].startswith(prefix)]
        if rows:
            metrics[name] = metric(sum(not r["right"] for r in rows), len(rows))
            metrics[f"{name}_abstained"] = metric(sum(is_abstention(r["answer"]) for r in rows), len(rows))
    counted = [r for r in asked if r["ended"] is not None]
    if counted:
        metrics["ended"] = _share(counted, "ended")
    return metrics


def by(asked: Sequence[dict], key: str) -> dict[str, dict]:
    """Recall of fact rows grouped by `key` (fact, style, perspective, phrasing)."""
    groups: dict[str, list[dict]] = defaultdict(list)
    for row in asked:
        if row["kind"] == "fact":
            groups[row[key]].append(row)
    return {name: _share(rows) for name, rows in sorted(groups.items())}


def evaluate(answer_fn: AnswerFn, rows: Sequence[dict]) -> dict:
    """{metrics, by_fact, by_style, answers}: every score of one model on `rows`."""
    asked = ask_all(answer_fn, rows)
    kept = ("fact", "kind", "split", "style", "perspective", "phrasing", "right", "answer", "keywords")
    answers = [{"question": row["messages"][-2]["content"], **{key: row[key] for key in kept}} for row in asked]
    return {
        "metrics": summarize(asked),
        "by_fact": by(asked, "fact"),
        "by_style": by(asked, "style"),
        "answers": answers,
    }


def retention(before: dict, after: dict, name: str = "general") -> float | None:
    """Score after tuning as a share of the score before it; None where there is no score before."""
    if name not in before or name not in after or not before[name]["value"]:
        return None
    return after[name]["value"] / before[name]["value"]
