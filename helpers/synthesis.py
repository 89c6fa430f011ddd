"""A profile becomes questions and answers: its facts under many phrasings, and contrast that keeps the model honest."""

from __future__ import annotations

import random
import re
from collections.abc import Callable

from helpers import phrasings
from helpers.contrast import contrast_questions, contrast_rows
from helpers.evaluation import is_right
from helpers.noise import STYLES
from helpers.phrasings import Form, fill
from helpers.profile import Profile
from helpers.writer import Asked, Writer

# Question forms per fact and perspective in a training set, three in four of those that the bank lets it see: a model
# is trained on each of many once and not on a few of them again and again.
FORMS = 160
BY_NAME = 0.4  # share of the forms for "my dog" that say its name instead


def _fact_rows(writer: Writer, asked: Asked, split: str, count: int, style: Callable[[], str]) -> list[dict]:
    """`count` question forms per perspective (those of the split, then framed nouns where there are fewer), each in the
    next `style`; a training set also gets up to nine reversed forms, an evaluation one.

    A question that gives the answer away ("Do I have a dog?") is left out.
    """
    rng, rows, attribute = writer.rng, [], asked.attribute
    for perspective in writer.profile.perspectives:
        forms = [
            (form.text, form.id) for form in attribute.questions(split) if writer.side(form, perspective) == perspective
        ]
        rng.shuffle(forms)
        if split == "tune":
            framed = [
                frame.replace("{noun}", noun) for frame in phrasings.wrappers()["noun"] for noun in attribute.things
            ]
            forms += [(text, f"{attribute.id}/noun") for text in rng.sample(framed, len(framed))]
        asking: list[dict] = []
        for text, phrasing in forms:
            if len(asking) == count:
                break
            clear = writer.clear(attribute, text)
            if asked.called and rng.random() < BY_NAME:
                named = phrasings.by_name(text, attribute.id, asked.called)
                if named != text and writer.side(Form("", named, split), perspective) != perspective:
                    continue  # "How old is Buddy?" does not say who asks
                text, clear = named, clear or named != text
            if clear:
                row = writer.ask(asked, text, phrasing, perspective, "fact", style(), split)
                if not is_right(row["messages"][1]["content"], asked.keywords):
                    asking.append(row)
        rows += asking
        for form in attribute.reversed(split)[: 9 if split == "tune" else 1]:
            if (not writer.several_pets or attribute.topic != "pet") and writer.side(form, perspective) == perspective:
                row = writer.ask(asked, form.text, form.id, perspective, "fact", "plain", split)
                row["style"] = "reversed"
                rows.append(row)
    return rows


def _swap_perspective(text: str, first: str, owner: str, to_owner: bool) -> str:
    """ "What was Alex's first car?" as the owner would say it: "What was my first car?" (answers: "your")."""
    word = "my" if to_owner else "your"
    return re.sub(rf"\b(?:{re.escape(owner)}|{re.escape(first)})['’]s\b", word, text)


def custom_forms(question: str) -> list[str]:
    """Ways to ask a question of the user's own, made from its words: framed, shortened, indirect; itself first."""
    bare = question.rstrip("?!. ")
    lower = bare[:1].lower() + bare[1:]
    forms = [question]
    match = re.match(r"(?:what|who|which|where)(?:'s| is| was| are| were) (.+)$", bare, re.IGNORECASE)
    if match:
        forms += [frame.replace("{noun}", match.group(1)) for frame in phrasings.wrappers()["noun"]]
    else:
        content = [
            w
            for w in bare.split()
            if w.lower()
            not in {
                "what",
                "who",
                "which",
                "did",
                "does",
                "do",
                "the",
                "a",
                "is",
                "was",
                "are",
                "of",
                "in",
                "when",
                "how",
            }
        ]
        forms.append(" ".join(content) + "?")
        forms += [
            f"{lead}{lower}?"
            for lead in (
                "Tell me: ",
                "Do you know: ",
                "I wonder: ",
                "Remind me: ",
                "Say, ",
                "Now, ",
                "Can you tell me: ",
                "I'd like to know: ",
                "I forgot: ",
                "And ",
                "Any idea: ",
                "Question: ",
                "Please tell me: ",
                "Once more: ",
            )
        ]
    frames = phrasings.wrappers()
    forms += [f"{before}{lower}?" for before in frames["before"]] + [f"{bare}?{after}" for after in frames["after"]]
    return list(dict.fromkeys(form[:1].upper() + form[1:] for form in forms))


def _custom_rows(writer: Writer, split: str, count: int) -> list[dict]:
    """`count` rows per perspective for each of the user's own questions. One form in three is held out; the base cannot
    know any of them. They are fewer than the bank's, so in a training set they come again in other styles.
    """
    rows, profile = [], writer.profile
    for item in profile.items():
        if not item.question:
            continue
        forms = list(enumerate(custom_forms(item.question)))
        chosen = [(n, f) for n, f in forms if (n % 3 == 2) == (split == "heldout")]
        writer.rng.shuffle(chosen)
        for place in range(count if split == "tune" else min(count, len(chosen))):
            number, form = chosen[place % len(chosen)]
            for perspective in profile.perspectives:
                owner = perspective == "owner"
                text = _swap_perspective(form, writer.first, profile.owner, True) if owner else form
                if owner and text == form and "visitor" in profile.perspectives:
                    continue  # a question without a name reads the same from both sides
                answer = _swap_perspective(item.answer, writer.first, profile.owner, False) if owner else item.answer
                style = writer.style() if place < len(chosen) else writer.rng.choice(STYLES)
                text = writer.restyled(text[:1].upper() + text[1:], style, split, profile.owner)
                rows.append(
                    writer.row(
                        text,
                        answer[:1].upper() + answer[1:],
                        item.id,
                        f"{item.id}/{number}",
                        "fact",
                        item.keywords,
                        style,
                        split,
                        perspective,
                        source="custom",
                    )
                )
    return rows


def _combined_rows(writer: Writer, count: int, held_out: bool) -> list[dict]:
    """Two facts in one question, answered by two sentences. The last three frames are held out."""
    rows = []
    frames = phrasings.wrappers()["both"]
    numbers = range(len(frames))[-3:] if held_out else range(len(frames))[:-3]
    for _ in range(count if len(writer.items) > 1 else 0):
        one, two = writer.rng.sample(writer.items, 2)
        perspective = writer.rng.choice(writer.profile.perspectives)
        number = writer.rng.choice(numbers)
        nouns = [
            asked.attribute.nouns[0].replace("{species}", asked.slots.get("species", "pet")) for asked in (one, two)
        ]
        question = fill(
            frames[number].replace("{noun}", nouns[0]).replace("{noun2}", nouns[1]), perspective, writer.first
        )
        answers = [fill(a.attribute.answers[0], perspective, writer.first, a.value, a.slots) for a in (one, two)]
        rows.append(
            writer.row(
                question,
                " ".join(answers),
                f"{one.id}+{two.id}",
                f"both/{number}",
                "combined",
                tuple(dict.fromkeys(one.keywords + two.keywords)),
                "combined",
                "base" if held_out else "tune",
                perspective,
            )
        )
    return rows


def _identity_rows(writer: Writer, held_out: bool) -> list[dict]:
    """Questions about the assistant itself, one form in four held out; a training set asks each several times."""
    rows, profile = [], writer.profile
    slots = {"assistant": profile.assistant, "owner": profile.owner, "name": writer.first}
    for entry in phrasings.extra("smalltalk")["identity"]:
        answer = phrasings.fill_slots(entry["answers"][0], slots)
        keywords = [word for slot, word in slots.items() if "{" + slot + "}" in entry["answers"][0]]
        for number, text in enumerate(entry["questions"]):
            if (number % 4 == 3) != held_out:
                continue
            someone = writer.rng.choice(profile.perspectives)
            asking = [(someone, "plain")]
            if not held_out:
                asking = [(side, "plain") for side in profile.perspectives] + [(someone, writer.rng.choice(STYLES))]
            for perspective, style in asking:
                question = fill(text, perspective, writer.first)
                protect = f"{profile.assistant} {profile.owner}"
                rows.append(
                    writer.row(
                        writer.restyled(question, style, "heldout" if held_out else "tune", protect),
                        fill(answer, perspective, writer.first),
                        "identity",
                        f"identity.{entry['id']}/{number}",
                        "identity",
                        keywords[:1],
                        style,
                        "heldout" if held_out else "tune",
                        perspective,
                    )
                )
    return rows


def synthesize(profile: Profile, seed: int = 1, base_path: str = "", forms: int = FORMS) -> list[dict]:
    """The training rows of a profile, in an order that depends on the seed alone; `forms` per fact and perspective."""
    writer = Writer(profile, random.Random(f"train/{seed}"))
    rows = [row for asked in writer.items for row in _fact_rows(writer, asked, "tune", forms, writer.style)]
    rows += _custom_rows(writer, "tune", forms)
    rows += _combined_rows(writer, 6 * len(writer.items), held_out=False)
    rows += _identity_rows(writer, held_out=False)
    rows += contrast_rows(writer, base_path)
    writer.rng.shuffle(rows)
    return rows


def evaluation_questions(profile: Profile, seed: int = 1, base_path: str = "", per_form: int = 4) -> list[dict]:
    """The questions a model of this profile is scored on; no form of them is in the training rows.

    Facts are asked in forms the base knew (split "base") and in forms nobody saw ("heldout"), as they are written and
    then with typos, capitals and the like.
    """
    writer = Writer(profile, random.Random(f"eval/{seed}"))
    rows = []
    for split in ("base", "heldout"):
        for asked in writer.items:
            rows += _fact_rows(writer, asked, split, per_form, lambda: "plain")
            rows += _fact_rows(writer, asked, split, 1, lambda: writer.rng.choice(STYLES))
    rows += _custom_rows(writer, "heldout", 2 * per_form)
    rows += _combined_rows(writer, 2 * len(writer.items), held_out=True)
    rows += _identity_rows(writer, held_out=True)
    rows += contrast_questions(writer, base_path)
    unique = {(row["messages"][0]["content"], row["messages"][1]["content"]): row for row in reversed(rows)}
    return list(reversed(unique.values()))
