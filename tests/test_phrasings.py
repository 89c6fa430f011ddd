"""The phrasing bank: every form reads well from both sides, and no held-out form has a trained twin."""

from __future__ import annotations

import dataclasses
import random
import shutil

import pytest

from helpers import phrasings
from helpers.errors import UserError
from helpers.evaluation import is_abstention
from helpers.phrasing_check import (
    check,
    check_frames,
    check_lexicon,
    check_never,
    check_several,
    coverage,
    flaws,
    twins,
)
from helpers.phrasings import fill
from helpers.rows import SPLITS

ATTRIBUTES = sorted(phrasings.bank())


@pytest.mark.parametrize("attribute", ATTRIBUTES)
def test_the_checker_finds_no_fault(attribute):
    assert [finding for finding in check(phrasings.bank()[attribute]) if finding.fault] == []
    assert coverage(phrasings.bank()[attribute])["questions"] >= 150


@pytest.mark.parametrize("attribute", ATTRIBUTES)
def test_the_lexicon_reads_well_and_holds_no_twin_of_a_held_out_form(attribute):
    phrases, questions = (phrasings.extra("lexicon")[part][attribute] for part in ("nouns", "questions"))
    assert check_lexicon(phrasings.bank()[attribute]) == []
    assert len(phrases) >= 80 and len(set(phrases)) == len(phrases)
    assert len(questions) >= 80 and len(set(questions)) == len(questions)


def test_a_twin_in_the_lexicon_is_a_fault(monkeypatch):
    attribute = phrasings.bank()["pet.name"]
    held_out = phrasings.Form("pet.name/1", "What is the label on [my|{name}'s] {species}?", "heldout")
    spoilt = dataclasses.replace(attribute, forms=(held_out,))
    for phrase, question in (
        ("the label on [my|{name}'s] {species}", "Whose pet [do I|do {name}] feed?"),
        ("[my|{name}'s's] pet", "What is on the label of [my|{name}'s] {species}?"),
    ):
        lexicon = {"nouns": {"pet.name": [phrase]}, "questions": {"pet.name": [question]}}
        monkeypatch.setattr(phrasings, "extra", lambda name, made=lexicon: made if name == "lexicon" else None)
        assert {f.what for f in check_lexicon(spoilt)} == {"reads wrong", "held out, yet nearly in the lexicon"}


def test_the_frames_fit_around_any_question_and_make_no_held_out_form():
    frames = phrasings.extra("frames")
    assert min(map(len, frames.values())) > 500 and check_frames() == []
    assert all(set(frames[kind]).isdisjoint(phrasings.wrappers()[kind]) for kind in frames)
    read = {phrasings.in_a_frame("my age", random.Random(seed)) for seed in range(50)}
    assert len(read) > 40 and all("my age" in text for text in read)
    assert phrasings.in_a_frame("where I live", random.Random(1)) not in [
        frame.replace("{noun}", "where I live") for frame in phrasings.frames()["noun"]
    ]


def test_a_frame_that_does_not_fit_is_a_fault(monkeypatch):
    real, attribute = phrasings.extra, phrasings.bank()["pet.name"]
    held = attribute.questions("heldout")[0].text
    misfits = ["No slot here.", "Two of {noun} {noun}", "No space:", "no sign ", "No space"]
    spoilt = {
        "noun": [*misfits[:2], "Which dog has {noun}?", "{noun} then"],
        "clause": [],
        "before": misfits[2:4],
        "after": misfits[4:],
    }
    monkeypatch.setattr(phrasings, "extra", lambda name: spoilt if name == "frames" else real(name))
    monkeypatch.setattr(phrasings, "bank", lambda: {"pet.name": dataclasses.replace(attribute, nouns=(held,))})
    faults = [(finding.what.split(",")[0], finding.text) for finding in check_frames()]
    assert [text for what, text in faults if what.startswith("does not fit")] == misfits
    assert ("holds 'dog'", "Which dog has {noun}?") in faults
    assert ("held out", f"{held} ~ {held} then") in faults


def test_what_the_lexicon_says_is_never_told_is_no_fact_and_nothing_held_out():
    never = phrasings.extra("lexicon")["never"]
    assert check_never() == []
    assert len(never) >= 3000 and len(set(never)) == len(never)


def test_a_phrase_for_a_fact_or_for_something_held_out_among_the_never_told_is_a_fault(monkeypatch):
    real = phrasings.extra
    entry = next(e for e in real("unknown")["attributes"] if phrasings.unknown_split(e["key"]) == "heldout")
    never = [
        "the name of [my|{name}'s] {species}",
        entry["noun"],
        "[my|{name}'s's] van",
        "the plate of [my|{name}'s] van",
    ]
    more = [{"key": "vet", "questions": ["Who is the vet of [my|{name}'s] {species}?"]}]
    faulty = {"lexicon": {"never": never}, "unknown_more": {"attributes": more}}
    monkeypatch.setattr(phrasings, "extra", lambda name: {**real(name), **faulty.get(name, {})})
    assert {finding.what for finding in check_never()} == {
        "reads wrong",
        "a {species} of which nothing is told",
        "never told, yet nearly a phrase for a fact",
        "held out, yet nearly a phrase of the lexicon",
    }


def test_questions_about_all_pets_read_well_and_keep_their_split(monkeypatch):
    several = phrasings.extra("several")
    assert check_several() == [] and min(map(len, several.values())) >= 100
    faulty = {"names": [*several["names"][:4], several["names"][0], "The dog dog"]}
    monkeypatch.setattr(phrasings, "extra", lambda name: faulty)
    assert {finding.what.split(",")[0] for finding in check_several()} == {"held out", "reads wrong"}


def test_a_thing_is_called_by_its_name_where_a_form_says_whose_it_is():
    named = {
        ("How old is [my|{name}'s] {species}?", "pet.age"): "How old is Buddy?",
        ("[my|{name}'s] pet's age?", "pet.age"): "Buddy's age?",
        ("What is [my|{name}'s] side project about?", "project.description"): "What is Buddy about?",
        (
            "How old is the {species} of [my|{name}'s] friend?",
            "pet.age",
        ): "How old is the {species} of [my|{name}'s] friend?",
        ("[My|{name}'s] petrol?", "pet.age"): "[My|{name}'s] petrol?",
    }
    assert {key: phrasings.by_name(*key, "Buddy") for key in named} == named
    for key in phrasings.BY_NAME:
        forms = phrasings.bank()[key].forms
        assert sum(phrasings.by_name(form.text, key, "Buddy") != form.text for form in forms) >= 40


def test_a_clause_stands_only_in_frames_for_clauses():
    assert "Do you have how old I am?" not in phrasings.framed("how old I am")
    assert {"Tell me how old I am.", "I wonder how old I am."} <= set(phrasings.framed("how old I am"))
    assert "Do you have my age?" in phrasings.framed("my age")
    assert set(phrasings.wrappers()["clause"]) - set(phrasings.wrappers()["noun"])


def test_the_checker_finds_faults_of_every_kind():
    good = phrasings.bank()["pet.name"]
    assert not any(finding.fault for finding in check(good))
    seen = next(form.text for form in good.forms if form.split == "tune" and not form.reversed)
    spoilt = dataclasses.replace(
        good,
        forms=(
            *(form for form in good.forms if form.split != "base"),
            phrasings.Form("pet.name/1", "So [do I|do {name}] call it?", "tune"),
            phrasings.Form("pet.name/2", seen.replace("?", " then?"), "heldout"),
        ),
        answers=("I don't know {value}.",),
        unknown=("[Your|{name}'s] pet is called Rex.",),
    )
    assert {finding.what for finding in check(spoilt) if finding.fault} == {
        "reads wrong",
        "held out, yet nearly a form that is trained on",
        "an answer that says it does not know",
        "does not say that it does not know",
        "too few forms",
    }
    assert any(finding.what == "nearly the same" for finding in check(spoilt))


@pytest.mark.parametrize(
    "wrong",
    [
        "{name}'s [dog",
        "Is  it [my|{name}'s] age?",
        "So [do I|do {name}] live here?",
        "Who is {stranger}?",
        "Is it [my|{name}] 's age?",
        "Well. {name} lives where?",
    ],
)
def test_the_check_sees_flaws(wrong):
    assert flaws(wrong)


def test_pronouns_take_the_right_case():
    assert fill("What is [my|{name}'s] age?", "owner", "Alex") == "What is my age?"
    assert fill("What is [my|{name}'s] age?", "visitor", "she") == "What is her age?"
    assert fill("Where does {name} live?", "visitor", "he") == "Where does he live?"
    assert fill("As far as I know {name} is {value}.", "visitor", "he", "25") == "As far as I know he is 25."
    assert (
        fill("The age I have for [you|{name}] is {value}.", "visitor", "she", "25") == "The age I have for her is 25."
    )
    assert fill("[I|{name}] [am|is] how old?", "visitor", "she") == "She is how old?"
    assert fill("Name a hobby of [mine|{name}'s].", "visitor", "she") == "Name a hobby of hers."
    assert fill("Is it a dog of [mine|{name}'s] or not?", "visitor", "Alex") == "Is it a dog of Alex's or not?"
    assert fill("{value}, who is that?", "visitor", "he", "tidymark") == "tidymark, who is that?"  # stays as written


def test_somebody_else_reads_well_within_a_sentence():
    words = {
        ("[my|{name}'s] boss", "owner"): "my boss",
        ("[my|{name}'s] boss", "visitor"): "Alex's boss",
        ("the mayor", "owner"): "the mayor",
        ("the mayor", "visitor"): "the mayor",
        ("Beyoncé", "visitor"): "Beyoncé",
    }
    assert {key: phrasings.relation(*key, "Alex") for key in words} == words
    assert len(set(phrasings.extra("strangers")["relations"])) == len(phrasings.extra("strangers")["relations"]) >= 200


def test_what_is_never_told_reads_well_from_both_sides():
    entries = phrasings.extra("unknown")["attributes"] + phrasings.extra("unknown_more")["attributes"]
    assert [flaw for e in entries for text in e["questions"] + e.get("answers", []) for flaw in flaws(text)] == []


def test_no_answer_and_every_abstention_abstains():
    attributes, strangers = phrasings.bank().values(), phrasings.extra("strangers")
    never = phrasings.extra("unknown")["attributes"]
    talk = phrasings.extra("smalltalk")
    unknown = [text for a in attributes for text in a.unknown] + [text for e in never for text in e["answers"]]
    unknown += [t for key in ("relation_answers", "stranger_answers", "generic_unknown") for t in strangers[key]]
    told = [text for a in attributes for text in a.answers]
    told += [text for key in ("chats", "identity") for entry in talk[key] for text in entry["answers"]]
    told += [text for item in phrasings.general_items() for text in item["answers"]]
    assert [text for text in unknown if not is_abstention(fill(text, "owner", "Alex"))] == []
    assert [text for text in told if is_abstention(fill(text, "visitor", "Alex", "Buddy"))] == []
    assert [text for text in unknown if "{value}" in text] == []


@pytest.mark.parametrize("key", ATTRIBUTES)
def test_enough_forms_for_tuning_and_for_scoring(key):
    attribute = phrasings.bank()[key]
    tune = attribute.questions("tune")
    framed = len(attribute.things) * len(phrasings.wrappers()["noun"])
    for mine in ([form for form in tune if form.personal], tune):  # the owner's side and the visitor's
        assert len(mine) + framed >= 30 and len(mine) >= 20
    assert len(attribute.forms) >= 80
    assert len(attribute.questions("base")) >= 15 and len(attribute.questions("heldout")) >= 5
    assert {form.split for form in attribute.forms} == set(SPLITS)
    assert len({form.id for form in attribute.forms}) == len(attribute.forms)
    plain = [phrasings.normal(form.text) for form in attribute.forms]
    assert len(set(plain)) == len(plain)


def test_no_held_out_reversed_form_has_a_trained_twin_in_any_attribute():
    attributes = list(phrasings.bank().values())
    trained = [f.text for a in attributes for f in a.forms if f.reversed and f.split != "heldout"]
    held_out = [form for a in attributes for form in a.reversed("heldout")]
    assert len(held_out) >= 10 and twins(held_out, trained) == []


def test_no_held_out_question_about_the_unknown_is_trained_on():
    entries = phrasings.extra("unknown")["attributes"]
    by_split = {split: [e for e in entries if phrasings.unknown_split(e["key"]) == split] for split in SPLITS}
    assert all(len(by_split[split]) >= 15 for split in SPLITS)
    more = phrasings.extra("unknown_more")["attributes"]
    keys = [entry["key"] for entry in entries + more]
    assert len(more) >= 150 and len(set(keys)) == len(keys)
    seen = [entry for split in ("base", "tune") for entry in by_split[split]] + more
    trained = {phrasings.normal(question) for entry in seen for question in entry["questions"]}
    assert [q for e in by_split["heldout"] for q in e["questions"] if phrasings.normal(q) in trained] == []


# -- changing the bank


@pytest.fixture
def own_bank(tmp_path, monkeypatch):
    """A copy of the bank that a test may change, and a function that loads it afresh."""
    shutil.copytree(phrasings.BANK, tmp_path / "bank")
    caches = (phrasings.bank, phrasings.wrappers, phrasings.extra)

    def load():
        for cached in caches:
            cached.cache_clear()
        return phrasings.bank()

    monkeypatch.setattr(phrasings, "BANK", tmp_path / "bank")
    yield tmp_path / "bank", load
    monkeypatch.undo()
    for cached in caches:
        cached.cache_clear()


def splits(bank) -> dict[str, str]:
    return {form.id: form.split for attribute in bank.values() for form in attribute.forms}


@pytest.mark.parametrize(
    "form",
    [
        "At which venue did [I|{name}] first taste the sea air, by count of winters?",
        "What is [my|{name}'s] colour by lamplight?",
    ],
)
def test_a_form_added_at_the_end_moves_no_other(own_bank, form):
    folder, load = own_bank
    before = splits(load())
    text = (folder / "colour.yaml").read_text(encoding="utf-8")
    assert text.count("    reversed:\n") == 1
    (folder / "colour.yaml").write_text(text.replace("    reversed:\n", f'      - "{form}"\n    reversed:\n'), "utf-8")
    after = splits(load())
    assert len(after) == len(before) + 1
    assert {key: split for key, split in after.items() if key in before} == before


def test_the_splits_of_this_bank_are_fixed():
    """Forms keep their split for ever: a base that has seen a form cannot be scored on it as held out."""
    fixed = {
        "age.value/008c2a": "base",
        "age.value/425f55": "tune",
        "age.value/6fcc73": "heldout",
        "pet.name/e2f4db": "base",
        "pet.name/e08524": "tune",
        "pet.name/13750a": "heldout",
        "job.employer/809706": "base",
        "job.employer/c48837": "tune",
        "job.employer/bb9026": "heldout",
    }
    bank = splits(phrasings.bank())
    assert {key: bank[key] for key in fixed} == fixed


def test_a_near_double_shares_its_twins_split():
    one, two = (
        "Which colour would [I|{name}] paint the shed?",
        "Which colour would [I|{name}] paint the shed now?",
    )
    for number in range(20):
        first, second = phrasings._assign_splits(f"x{number}", [one, two], [])
        assert first == second
    assert phrasings._assign_splits("x", [one], [two]) == ["base"]


TOPIC = """topic: colour
attributes:
  value:
    questions: ["What is [my|{name}'s] colour?"]
    answers: ["It is {value}."]
    unknown: ["I don't know [your|{name}'s] colour."]
"""
BROKEN = {
    "no yaml": TOPIC + '  other: "x',
    "a list": "- one\n- two\n",
    "empty": "",
    "no attributes": "topic: colour\n",
    "attributes are a list": "topic: colour\nattributes: [value]\n",
    "no answers": TOPIC.replace('answers: ["It is {value}."]', "answers: []"),
    "questions are one text": TOPIC.replace('["What is [my|{name}\'s] colour?"]', "What colour?"),
    "a form that YAML reads as yes or no": TOPIC.replace('["What is [my|{name}\'s] colour?"]', "[yes]"),
    "a form with a colon, unquoted": TOPIC.replace('["What is [my|{name}\'s] colour?"]', "[Colour: which?]"),
    "an open bracket": TOPIC.replace("[my|{name}'s]", "[my|{name}'s"),
    "three wordings": TOPIC.replace("[my|{name}'s]", "[my|{name}'s|our]"),
    "an unknown slot": TOPIC.replace("{name}'s] colour?", "{nam}'s] colour?"),
    "the answer in a question": TOPIC.replace("colour?", "colour {value}?"),
    "an answer without a value": TOPIC.replace("It is {value}.", "It is blue."),
}


def test_the_topic_that_the_broken_ones_start_from_is_whole(own_bank):
    folder, load = own_bank
    (folder / "colour.yaml").write_text(TOPIC, encoding="utf-8")
    assert len(load()["colour.value"].forms) == 1 + len(phrasings.extra("lexicon")["questions"]["colour.value"])


@pytest.mark.parametrize("text", BROKEN.values(), ids=BROKEN.keys())
def test_a_broken_file_gives_one_line(own_bank, text):
    folder, load = own_bank
    (folder / "colour.yaml").write_text(text, encoding="utf-8")
    with pytest.raises(UserError) as caught:
        load()
    told = str(caught.value)
    assert "colour.yaml" in told and "\n" not in told and len(told) < 500


def test_a_file_in_another_encoding_gives_one_line(own_bank):
    folder, load = own_bank
    (folder / "colour.yaml").write_bytes("topic: Farbe übel".encode("utf-16"))
    with pytest.raises(UserError, match="colour.yaml"):
        load()


def test_the_command_says_what_is_wrong_and_where(own_bank, capsys):
    from helpers.cli import main

    folder, load = own_bank
    load()
    assert main(["phrasings", "check"]) == 0
    told = capsys.readouterr()
    assert "pet.breed" in told.out and "no faults" in told.out and not told.err
    pet = folder / "pet.yaml"
    spoilt = pet.read_text(encoding="utf-8").replace(
        '"What is [my|{name}\'s] {species} called?"', '"What do {name} call the {species}?"', 1
    )
    pet.write_text(spoilt, encoding="utf-8")
    load()
    assert main(["phrasings", "check"]) == 2
    told = capsys.readouterr()
    assert "fault: pet.name: reads wrong: What do he call the dog?" in told.out
    assert "2 faults" in told.err and len(told.err.splitlines()) == 1
