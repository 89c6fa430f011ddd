"""A profile becomes questions and answers: its facts under many phrasings, and contrast that keeps the model honest."""

from __future__ import annotations

import random
from collections.abc import Callable

from helpers import phrasings
from helpers.contrast import contrast_questions, contrast_rows, stranger_names
from helpers.custom import addressed, custom_forms, reworded, told_to_owner
from helpers.evaluation import is_right
from helpers.noise import STYLES
from helpers.phrasings import Form, fill
from helpers.pretraining.people import blended, pools
from helpers.profile import Profile
from helpers.writer import Asked, Writer

# Question forms per fact and perspective in a training set, about a quarter of those that the bank lets it see: a model
# is trained on each of many once and not on a few of them again and again. 176 are no better (data/results/README.md).
FORMS = 160
BY_NAME = 0.4  # share of the forms for "my dog" in an evaluation that say its name instead
# Further forms of a training set that say such a name, and how many more say one that is not its own. With few of them
# a model takes the name of a project for that of a stranger.
NAMED, MISNAMED = 120, 20
REWORDED = 0.67  # share of the rows on a question of the user's own that put it into other words
ASKED_OF_OTHERS = 20  # rows that ask such a question about somebody else


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
            if asked.called and split != "tune" and rng.random() < BY_NAME:
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


def _named_rows(writer: Writer, asked: Asked) -> list[dict]:
    """Rows of a training set that call a pet or a project by its name ("How old is Buddy?"), or by another."""
    rng, rows, attribute = writer.rng, [], asked.attribute
    forms = [(form, phrasings.by_name(form.text, attribute.id, asked.called)) for form in attribute.questions("tune")]
    forms = [(form, named) for form, named in forms if named != form.text]
    for form, named in rng.sample(forms, min(len(forms), NAMED)):
        side = writer.side(Form("", named, "tune"), rng.choice(writer.profile.perspectives))
        row = writer.ask(asked, named, form.id, side, "fact", writer.style(), "tune")
        if not is_right(row["messages"][1]["content"], asked.keywords):
            rows.append(row)
    words = pools()["project_words"]
    for form, _ in rng.sample(forms, min(len(forms), MISNAMED)):
        style, name = writer.style(), blended(rng, pools()["pet_names"])
        if attribute.topic == "project":
            name = rng.choice(words["prefixes"]) + rng.choice(words["suffixes"])
        text = phrasings.by_name(form.text, attribute.id, name)
        side = writer.side(Form("", text, "tune"), rng.choice(writer.profile.perspectives))
        question = writer.restyled(fill(text, side, writer.named(side), slots=asked.slots), style, "tune", name)
        answer = phrasings.extra("strangers")["stranger_answers"][0].replace("{stranger}", name)
        if name != asked.called:
            rows.append(
                writer.row(question, answer, f"stranger.{attribute.id}", form.id, "stranger", (), style, "tune", side)
            )
    return rows


def _custom_rows(writer: Writer, split: str, count: int) -> list[dict]:
    """`count` rows per perspective for each of the user's own questions. One framed form in three is held out; the base
    cannot know any of them. In a training set two questions in three are put into other words, and some ask the same
    about a stranger.
    """
    rows, profile, rng, tuned = [], writer.profile, writer.rng, split == "tune"
    names = stranger_names(writer, "train") if tuned else []
    for item in profile.items():
        if not item.question:
            continue
        called = profile.owner if profile.owner in item.question else writer.first
        forms = list(enumerate(custom_forms(item.question)))
        chosen = [(n, f) for n, f in forms if (n % 3 == 2) == (split == "heldout")]
        rng.shuffle(chosen)
        for place in range(count if tuned else min(count, len(chosen))):
            number, form = chosen[place % len(chosen)]
            if tuned and rng.random() < REWORDED:
                number, form = "other", reworded(item.question, rng, called)
            for perspective in profile.perspectives:
                owner = perspective == "owner"
                who = "owner" if owner else writer.named(perspective)
                text = addressed(form, writer.first, profile.owner, who)
                if owner and text == form and "visitor" in profile.perspectives:
                    continue  # a question without a name reads the same from both sides
                answer = told_to_owner(item.answer, writer.first, profile.owner) if owner else item.answer
                style = writer.style() if place < len(chosen) or number == "other" else rng.choice(STYLES)
                rows.append(
                    writer.row(
                        writer.restyled(text, style, split, profile.owner),
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
        for _ in range(ASKED_OF_OTHERS if tuned else 0):
            name, form = rng.choice(names), reworded(item.question, rng, called)
            text, style = addressed(form, writer.first, profile.owner, name), writer.style()
            if text != form:
                answer = phrasings.extra("strangers")["stranger_answers"][0].replace("{stranger}", name)
                text = writer.restyled(text, style, split, name)
                rows.append(writer.row(text, answer, "stranger.custom", item.id, "stranger", (), style, split))
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


def _several_rows(writer: Writer, held_out: bool) -> list[dict]:
    """Questions about all pets of an owner of several; one form in five is held out."""
    rows, split = [], "base" if held_out else "tune"
    asking = (("names", "pet.name"), ("kinds", "pet.species")) if writer.several_pets else ()
    for kind, key in asking:
        pets = [asked for asked in writer.items if asked.attribute.id == key]
        forms = [
            (number, text)
            for number, text in enumerate(phrasings.extra("several")[kind])
            if (number % 5 == 4) == held_out
        ]
        for number, text in writer.rng.sample(forms, 4 if held_out else len(forms)):
            for perspective in writer.profile.perspectives:
                side, style = writer.side(Form("", text, split), perspective), "plain" if held_out else writer.style()
                name = writer.named(side)
                answers = [fill(a.attribute.answers[0], side, writer.first, a.value, a.slots) for a in pets]
                rows.append(
                    writer.row(
                        writer.restyled(fill(text, side, name), style, split, name),
                        " ".join(answers),
                        "+".join(asked.id for asked in pets),
                        f"several.{kind}/{number}",
                        "combined",
                        tuple(dict.fromkeys(word for asked in pets for word in asked.keywords)),
                        style,
                        split,
                        side,
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
    rows += [row for asked in writer.items if asked.called for row in _named_rows(writer, asked)]
    rows += _custom_rows(writer, "tune", forms)
    rows += _combined_rows(writer, 6 * len(writer.items), held_out=False)
    rows += _several_rows(writer, held_out=False)
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
    rows += _several_rows(writer, held_out=True)
    rows += _identity_rows(writer, held_out=True)
    rows += contrast_questions(writer, base_path)
    unique = {(row["messages"][0]["content"], row["messages"][1]["content"]): row for row in reversed(rows)}
    return list(reversed(unique.values()))
