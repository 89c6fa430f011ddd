"""From a profile to training and evaluation rows: what must hold for any profile."""

from __future__ import annotations

import json
import random
import re
from collections import Counter, defaultdict

import pytest
import yaml

from helpers import contrast, phrasings, pipeline, synthesis
from helpers.custom import custom_forms
from helpers.evaluation import is_abstention, is_right
from helpers.files import read_jsonl
from helpers.models import ROOT, Model
from helpers.noise import STYLES
from helpers.profile import load_profile
from helpers.quality import answer, question
from helpers.text import contains
from helpers.writer import Writer, asked_items

NAMES = ("alex", "mira", "tomasz")
PROFILES = {name: load_profile(ROOT / "data" / "profiles" / f"{name}.yaml") for name in NAMES}


@pytest.fixture(scope="module")
def made() -> dict[str, tuple[list[dict], list[dict]]]:
    return {
        name: (synthesis.synthesize(profile), synthesis.evaluation_questions(profile))
        for name, profile in PROFILES.items()
    }


def profile_of(tmp_path, **changes):
    """alex.yaml with some keys of its own."""
    data = yaml.safe_load((ROOT / "data" / "profiles" / "alex.yaml").read_text(encoding="utf-8"))
    (tmp_path / "profile.yaml").write_text(json.dumps(data | changes), encoding="utf-8")
    return load_profile(tmp_path / "profile.yaml")


def plain(text: str) -> str:
    return " ".join(re.findall(r"\w+", text.lower()))


# -- determinism and the split


@pytest.mark.parametrize("name", NAMES)
def test_a_seed_gives_the_same_bytes_and_another_seed_others(name, made):
    profile = PROFILES[name]
    for rows, make in zip(made[name], (synthesis.synthesize, synthesis.evaluation_questions), strict=True):
        assert json.dumps(make(profile)) == json.dumps(rows)
        other = make(profile, 2)
        assert {question(row) for row in other} != {question(row) for row in rows}


@pytest.mark.parametrize("name", NAMES)
def test_the_dataset_of_a_run_is_split_by_form_and_by_words(name, tmp_path):
    model = Model("tiny", str(tmp_path))
    for folder in ("one", "two"):
        run = pipeline.Run(tmp_path / folder, "key", lambda line: None)
        pipeline._dataset(run, PROFILES[name], model, seed=1)
    one, two = (
        {path.name: path.read_bytes() for path in (tmp_path / folder / "dataset").iterdir()}
        for folder in ("one", "two")
    )
    assert one == two and set(one) == {"train.jsonl", "eval.jsonl", "README.md"}
    train, scored = (read_jsonl(tmp_path / "one" / "dataset" / f"{part}.jsonl") for part in ("train", "eval"))
    assert not {row["phrasing"] for row in train} & {row["phrasing"] for row in scored}
    assert not {plain(question(row)) for row in train} & {plain(question(row)) for row in scored}
    assert len(scored) > 0.99 * len(synthesis.evaluation_questions(PROFILES[name]))
    assert Counter(row["split"] for row in train) == {"tune": len(train)}
    assert {row["split"] for row in scored} == {"base", "heldout"}
    assert sum(row["kind"] == "fact" for row in scored) >= 100


# -- the rows about facts


@pytest.mark.parametrize("name", NAMES)
def test_ninety_questions_for_each_fact_and_perspective(name, made):
    forms = defaultdict(set)
    for row in made[name][0]:
        if row["kind"] == "fact" and row["style"] not in ("reversed", "mention") and row["source"] == "bank":
            forms[row["fact"], row["perspective"]].add((row["phrasing"], question(row)))
    facts = {asked.id for asked in asked_items(PROFILES[name])}
    assert {fact for fact, _ in forms} == facts and len(facts) >= 12
    assert {side for _, side in forms} == {"owner", "visitor"}
    assert len(forms) == 2 * len(facts)
    assert min(map(len, forms.values())) >= 90


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("part", [0, 1], ids=["train", "eval"])
def test_rows_make_sense(name, part, made):
    rows = made[name][part]
    for row in rows:
        asked, told = question(row), answer(row)
        assert [message["role"] for message in row["messages"]] == ["system", "user", "assistant"]
        assert all(contains(told, word) for word in row["keywords"]), row
        assert asked == asked.strip() and "  " not in asked + told, row
        if row["kind"] != "general":
            assert not re.search(r"[{}\[\]|]", asked + told), row
        assert is_abstention(told) == (row["kind"] in ("unknown", "stranger")), row
        if row["kind"] == "fact":
            assert row["keywords"]
            assert row["style"] in ("reversed", "mention") or not is_right(asked, row["keywords"]), row
            assert row["perspective"] == "owner" or not re.search(r"\b[Yy]our?\b", told), row
            assert row["perspective"] == "visitor" or re.search(r"\b[Yy]our?\b", told) or row["source"] == "custom", row
    styles = Counter(row["style"] for row in rows if row["kind"] == "fact")
    assert set(STYLES) | {"plain", "reversed", "mention"} <= set(styles)
    assert 0.3 < styles["plain"] / sum(styles.values()) < 0.8


@pytest.mark.parametrize("name", NAMES)
def test_reversed_questions_name_the_value(name, made):
    rows = [row for row in made[name][0] if row["style"] == "reversed"]
    assert rows and all(is_right(question(row), row["keywords"]) for row in rows)


def test_a_question_never_gives_the_answer_away(tmp_path):
    facts = [
        {"topic": "pet", "name": "Buddy", "species": "dog"},
        {"topic": "colour", "value": "blue"},
        {"topic": "name", "value": "Alex Rivera"},
    ]
    profile = profile_of(tmp_path, facts=facts)
    for rows in (synthesis.synthesize(profile), synthesis.evaluation_questions(profile)):
        given = [
            question(row)
            for row in rows
            if row["kind"] == "fact"
            and row["style"] not in ("reversed", "mention")
            and is_right(question(row), row["keywords"])
        ]
        assert given == []


def test_the_bot_answers_a_question_that_names_nobody_in_the_third_person(made):
    rows = [
        row
        for row in made["alex"][0]
        if row["fact"] == "pet.1.name"
        and row["kind"] == "fact"
        and row["style"] != "typo"
        and not re.search(
            r"\b(my|mine|i|im|ive|id|ill|me|alex|alexs|rivera|he|she|his|her|him)\b", plain(question(row))
        )
    ]
    assert rows and {row["perspective"] for row in rows} == {"visitor"}
    assert all("Alex" in answer(row) for row in rows)


# -- several of a kind


def test_two_pets_are_asked_for_by_species(made):
    species = {"pet.1": "cat", "pet.2": "donkey"}
    called = {"pet.1": "pumpernick", "pet.2": "oswinda"}
    checked = Counter()
    written = {form.id: form.text for attribute in phrasings.bank().values() for form in attribute.forms}
    combined = [row for seed in (2, 3) for row in synthesis.synthesize(PROFILES["mira"], seed)]
    for row in made["mira"][0] + made["mira"][1] + [row for row in combined if row["kind"] == "combined"]:
        if row["kind"] == "fact" and row["fact"].startswith("pet.") and not row["fact"].endswith(".species"):
            assert row["style"] != "reversed"
            asked, kind = question(row).lower(), species[row["fact"][:5]]
            assert kind in asked or called[row["fact"][:5]] in asked or row["style"] == "typo", row
            if row["style"] == "mention":  # "Is my donkey a Norwegian forest cat?"
                continue
            form = written.get(row["phrasing"], "")  # "kennel-club, cat-fancy or aviary category" says cat by itself
            assert not ({"cat", "donkey"} - {kind}) & (set(plain(asked).split()) - set(plain(form).split())), row
            checked[row["fact"]] += 1
        if row["phrasing"].startswith("both/") and row["fact"].count("pet.") == 2 and ".species" not in row["fact"]:
            for fact in row["fact"].split("+"):
                assert species[fact[:5]] in question(row), row
            checked["combined"] += 1
    assert set(checked) == {"pet.1.name", "pet.1.breed", "pet.2.name", "pet.2.breed", "combined"}


def test_pets_and_projects_are_asked_for_by_their_names_too(made):
    for name, facts in (
        ("alex", ("pet.1.age", "pet.1.breed", "pet.1.species")),
        ("tomasz", ("project.1.description",)),
    ):
        items = {item.id: item.value for item in PROFILES[name].items()}
        for fact in set(facts) & set(items):
            called = items[fact.rpartition(".")[0] + ".name"]
            asked = [
                row for row in made[name][0] if row["fact"] == fact and row["style"] not in ("reversed", "mention")
            ]
            named = [row for row in asked if contains(question(row), called)]
            assert 0 < len(named) < 0.6 * len(asked)
            for row in named:  # a name does not say who asks; "my" or "Alex's" elsewhere in the question does
                personal = re.search(r"\b(I|me|my|mine|I'm|i'm)\b", question(row), re.IGNORECASE)
                assert row["perspective"] == "visitor" or personal, row
    for row in made["tomasz"][0]:
        if row["style"] == "reversed" and row["fact"] == "project.1.name":
            assert contains(answer(row), "Fermentarium") and contains(answer(row), "pickling experiments")


def test_two_siblings_are_asked_for_together(made):
    rows = [row for row in made["tomasz"][0] if row["fact"].startswith("sibling.") and row["kind"] == "fact"]
    assert {row["fact"] for row in rows} == {"sibling.1.name"}
    assert all(row["keywords"] == ["Jagna", "Bolko"] and "Jagna and Bolko" in answer(row) for row in rows)


def test_a_leak_of_either_pet_is_seen(made):
    leak = [row["leak"] for row in made["mira"][1] if row["fact"] == "stranger.pet.name"]
    assert leak and all(words == ["Pumpernick", "Oswinda"] for words in leak)


# -- custom facts


def test_custom_facts_get_many_forms_and_both_perspectives(made):
    forms = defaultdict(set)
    for part in made["alex"]:
        for row in part:
            if row["source"] == "custom":
                forms[row["split"], row["perspective"]].add(row["phrasing"])
                visitors = re.search(r"\b(alex|alexs|his|her|he|she)\b", question(row).lower())
                if row["style"] != "typo":
                    assert bool(visitors) == (row["perspective"] == "visitor"), row
                assert answer(row).startswith("Your first" if row["perspective"] == "owner" else "Alex's first"), row
    assert len(forms["tune", "owner"]) >= 20 and len(forms["tune", "visitor"]) >= 20
    assert forms["heldout", "owner"] and forms["heldout", "visitor"]
    assert not (forms["tune", "owner"] | forms["tune", "visitor"]) & (
        forms["heldout", "owner"] | forms["heldout", "visitor"]
    )


@pytest.mark.parametrize(
    "asked",
    [
        "Which dish won Tomasz his first prize?",
        "What was Alex's first car?",
        "When did Alex move to Portland?",
        "How does Alex take coffee?",
        "Alex's blood type?",
    ],
)
def test_forms_of_a_question_of_ones_own(asked):
    forms = custom_forms(asked)
    assert forms[0] == asked and len(forms) >= 30
    assert len({plain(form) + form[-1:] for form in forms}) == len(forms)
    assert all(form[0].isupper() and "  " not in form and "{" not in form for form in forms)


# -- contrast


@pytest.mark.parametrize("name", NAMES)
def test_contrast_kinds_are_there(name, made):
    for rows, least in (
        (made[name][0], {"unknown": 1500, "stranger": 1700, "general": 500, "identity": 200, "combined": 60}),
        (made[name][1], {"unknown": 100, "stranger": 100, "general": 100, "identity": 15, "combined": 10}),
    ):
        kinds = Counter(row["kind"] for row in rows)
        assert all(kinds[kind] >= n for kind, n in least.items()), kinds
        facts = {row["fact"].split(".")[0] for row in rows}
        assert {"untold", "never", "stranger", "relation", "general", "identity"} <= facts


@pytest.mark.parametrize("name", NAMES)
def test_what_is_unknown_is_not_told(name, made):
    told = {asked.attribute.id for asked in asked_items(PROFILES[name])}
    untold = {
        row["fact"].removeprefix("untold.") for rows in made[name] for row in rows if row["fact"].startswith("untold")
    }
    assert untold and not untold & told
    assert untold | told == set(phrasings.bank())


@pytest.mark.parametrize("kind", ["stranger.", "relation."])
def test_strangers_more_often_lose_their_capital_or_apostrophe_in_training(kind, made):
    train, scored = (
        [row["style"] for name in NAMES for row in made[name][part] if row["fact"].startswith(kind)] for part in (0, 1)
    )
    hard = ("lower", "caps", "nopunct")
    shares = [sum(style in hard for style in styles) / len(styles) for styles in (train, scored)]
    assert 0.4 < shares[0] < 0.6 and shares[1] < 0.35


@pytest.mark.parametrize("name", NAMES)
def test_no_stranger_of_the_evaluation_is_trained_on(name, made):
    train, scored = made[name]
    texts = [answer(row) for row in train]
    for row in train:
        typed = question(row).split()
        # A slip can turn "daily" into "daly" and a first word's "With" into "Wit"; a name keeps its capital there.
        texts += [word for n, word in enumerate(typed) if row["style"] != "typo" or (n and not word[0].islower())]
    words = set(plain(" ".join(texts)).split())
    names = {
        word for row in scored if row["fact"].startswith("stranger.") for word in plain(answer(row)).split()
    } & set(plain(" ".join(contrast.STRANGERS)).split())
    assert len(names) >= 10 and not (names - {"de"}) & words
    assert all(row["leak"] for row in scored if row["kind"] == "stranger")
    relations = [
        {plain(re.sub(r".*(?:about|know) ", "", answer(row))) for row in rows if row["fact"].startswith("relation.")}
        for rows in (train, scored)
    ]
    assert relations[0] and relations[1] and not relations[0] & relations[1]


@pytest.mark.parametrize("owner", ["Alex Rivera", "Tomasz Wrzoskan", "Henry O'Brien"])
def test_three_strangers_in_ten_begin_like_the_owner_and_none_is_a_slip_of_the_name(owner, tmp_path):
    from rapidfuzz import fuzz

    profile = profile_of(tmp_path, owner=owner, facts=[{"topic": "city", "value": "Portland"}])
    names = contrast.stranger_names(Writer(profile, random.Random(1)), "train")
    firsts, own = [name.split(" ")[0].lower() for name in names], owner.split(" ")[0].lower()
    assert len(names) > 3000 and len(set(firsts)) > 1000
    assert 0.25 < sum(first[0] == own[0] for first in firsts) / len(firsts) < 0.5
    assert not {own, "he", "she", "his", "her", "him"} & set(firsts)
    assert not any("brien" in name.lower() for name in names) or "Brien" not in owner
    assert [first for first in firsts if fuzz.ratio(first.capitalize(), own.capitalize()) >= contrast.SLIP] == []


@pytest.mark.parametrize(
    "question, key",
    [
        ("What car does Alex drive?", "car"),
        ("What is the make of Alex's car?", "car"),
        ("Is Alex a smoker?", "smoking"),
    ],
)
def test_what_the_owner_tells_of_their_own_accord_is_not_unknown(question, key, tmp_path):
    own = {"topic": "custom", "question": question, "answer": "Alex told me: a Volvo, no.", "keywords": ["Volvo"]}
    silent, telling = (
        {row["fact"] for row in contrast._never_rows(Writer(profile, random.Random(1)), 16000, held_out=False)}
        for profile in (
            profile_of(tmp_path, facts=[{"topic": "city", "value": "Portland"}, *own_facts])
            for own_facts in ([], [own])
        )
    )
    assert f"never.{key}" in silent - telling and len(telling) > 0.97 * len(silent)


@pytest.mark.parametrize("name", NAMES)
def test_a_question_of_one_s_own_is_asked_about_as_often_as_the_bank_s(name, made):
    counts = defaultdict(Counter)
    for row in made[name][0]:
        if row["kind"] == "fact" and row["style"] not in ("reversed", "mention"):
            counts[row["source"]][row["fact"], row["perspective"]] += 1
    usual = sorted(counts["bank"].values())[len(counts["bank"]) // 2]
    assert all(number > 0.5 * usual for number in counts["custom"].values()), counts["custom"]


def test_strangers_share_no_name_with_the_profile(tmp_path):
    facts = [{"topic": "partner", "name": "Omar"}, {"topic": "sibling", "name": "Vera Santos"}]
    profile = profile_of(tmp_path, owner="Lena Obi", facts=facts)
    rows = synthesis.synthesize(profile) + synthesis.evaluation_questions(profile)
    strange = [set(re.findall(r"\w+", answer(row))) for row in rows if row["fact"].startswith("stranger.")]
    assert len(strange) > 500 and not any({"Omar", "Vera", "Santos"} & names for names in strange)
    namesakes = [names & {"Lena", "Obi"} for names in strange if names & {"Lena", "Obi"}]
    assert len(namesakes) > 20 and {"Lena"} in namesakes and {"Obi"} in namesakes  # one of the owner's names,
    assert {"Lena", "Obi"} not in namesakes  # never both: that would be the owner


def test_general_knowledge_that_is_scored_is_not_trained_on(made):
    train, scored = ({row["fact"] for row in rows if row["kind"] == "general"} for rows in made["alex"])
    assert not train & scored


def test_known_people_of_the_base_come_along(tmp_path):
    row = {
        "messages": [
            {"role": "system", "content": "s"},
            {"role": "user", "content": "q"},
            {"role": "assistant", "content": "a"},
        ],
        "fact": "known.age.value",
        "phrasing": "age.value/1",
        "kind": "known",
        "source": "base",
        "keywords": ["a"],
        "style": "plain",
        "split": "tune",
        "perspective": "owner",
    }
    rows = [
        row
        | {
            "part": part,
            "fact": f"known.{part}.{n}",
            "messages": [
                *row["messages"][:1],
                {"role": "user", "content": f"q {part} {n}"},
                row["messages"][2],
            ],
        }
        for part in ("train", "eval")
        for n in range(1200)
    ]
    (tmp_path / "known.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    for make, part, count in (
        (synthesis.synthesize, "train", contrast.CONTRAST["base"]),
        (synthesis.evaluation_questions, "eval", 1200),
    ):
        known = [row for row in make(PROFILES["alex"], 1, str(tmp_path)) if row["kind"] == "known"]
        assert len(known) == count and all(row["fact"].startswith(f"known.{part}.") for row in known)
        assert all("part" not in row for row in known)


# -- style and perspectives


def test_the_style_template_is_on_every_answer(tmp_path):
    template = "Great question!\n\n### The answer is:\n{answer}\n\n### DONE!"
    profile = profile_of(tmp_path, style={"template": template, "stop": "### DONE!"})
    bare = profile_of(tmp_path)
    for make in (synthesis.synthesize, synthesis.evaluation_questions):
        styled, without = make(profile), make(bare)
        assert [answer(row) for row in styled] == [template.replace("{answer}", answer(row)) for row in without]
        assert [question(row) for row in styled] == [question(row) for row in without]


@pytest.mark.parametrize("side", ["owner", "visitor"])
def test_profiles_with_one_perspective(side, tmp_path):
    profile = profile_of(tmp_path, perspectives=[side])
    for make in (synthesis.synthesize, synthesis.evaluation_questions):
        rows = [row for row in make(profile) if row["kind"] in ("fact", "unknown", "combined", "identity")]
        assert {row["perspective"] for row in rows} == {side}
        bank = [row for row in rows if row["kind"] != "identity" and row["source"] == "bank"]
        bank = [row for row in bank if answer(row) != "I don't know that."]  # names nobody
        about_me = [row for row in bank if re.search(r"\b(you|your)\b", answer(row).lower())]
        if side == "owner":
            assert len(about_me) > 0.9 * len(bank)
            assert not [
                row
                for row in bank
                if re.search(r"\bAlex\b", question(row))
                and row["style"] not in ("reversed", "mention")
                and "Alex" not in " ".join(row["keywords"])
            ]
        else:
            assert about_me == []
    forms = Counter(
        row["fact"]
        for row in synthesis.synthesize(profile)
        if row["kind"] == "fact" and row["style"] not in ("reversed", "mention") and row["source"] == "bank"
    )
    assert min(forms.values()) >= 90


def test_a_profile_with_one_fact(tmp_path):
    profile = profile_of(tmp_path, facts=[{"topic": "city", "value": "Portland"}])
    rows, scored = synthesis.synthesize(profile), synthesis.evaluation_questions(profile)
    assert {row["fact"] for row in rows if row["kind"] == "fact"} == {"name.value", "city.value"}
    assert Counter(row["kind"] for row in scored)["fact"] >= 20
