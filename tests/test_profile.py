"""Profiles: what a good one gives, and that no input whatever raises anything but a UserError."""

from __future__ import annotations

import string
import tempfile
from pathlib import Path

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from helpers import yaml_lines
from helpers.errors import UserError
from helpers.facts import ONE_VALUE, REPEATABLE, TOPICS, VALUE
from helpers.models import ROOT
from helpers.profile import Profile, load_profile
from helpers.text import contains, folded, spoken
from tests.broken.profiles import GOOD

QUICK = settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def load(text: str | bytes) -> Profile:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "profile.yaml"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return load_profile(path)


def facts(text: str) -> Profile:
    return load(f"owner: Alex Rivera\nfacts:\n{text}")


def by_id(profile: Profile) -> dict:
    return {item.id: item for item in profile.items()}


@pytest.mark.parametrize("path", sorted((ROOT / "data" / "profiles").glob("*.yaml")), ids=lambda path: path.stem)
def test_shipped_profiles_are_good(path):
    items = load_profile(path).items()
    assert len(items) >= 5 and len({item.id for item in items}) == len(items)


def test_items():
    items = by_id(load(GOOD))
    assert list(items) == [
        "name.value",
        "pet.1.name",
        "pet.1.species",
        "city.value",
        "job.title",
        "job.employer",
        "skill.value",
        "custom.1",
    ]
    assert items["name.value"].value == "Alex Rivera"
    assert items["pet.1.name"].bank_id == "pet.name" and items["pet.1.name"].slots == {"species": "dog"}
    assert items["skill.value"].value == "Python and Linux"
    assert items["skill.value"].keywords == ("Python", "Linux")
    custom = items["custom.1"]
    assert (custom.question, custom.keywords) == ("What was Alex's first project?", ("tidymark",))
    assert custom.answer == custom.value == "Alex's first project was tidymark."


def test_defaults_come_from_the_first_name():
    profile = facts("  - topic: age\n    value: 25\n")
    assert profile.assistant == "Alex's AI assistant"
    assert profile.system_prompt == (
        "You are Alex's AI assistant. You answer questions about Alex's background, projects and life."
    )
    assert profile.perspectives == ["owner", "visitor"] and profile.style is None


@pytest.mark.parametrize(
    ("owner", "first"), [("Dr. Mira Quell", "Mira"), ("Bo", "Bo"), ("J. R. Moe", "J."), ("Dr.", "Dr.")]
)
def test_first_name(owner, first):
    assert load(f"owner: {owner}x\nfacts:\n  - topic: age\n    value: 3\n").first_name.rstrip("x") == first


@pytest.mark.parametrize(
    "typed", ["25", "007", "1_000", "3.50", "2019-03-14", "12:30:00", "0x1F", "1e3", "+46 70", ".5"]
)
def test_numbers_and_dates_stay_as_typed(typed):
    items = by_id(facts(f"  - topic: birthday\n    value: {typed}\n"))
    assert items["birthday.value"].value == typed and items["birthday.value"].keywords == (typed,)


def test_numbers_from_code_become_text():
    profile = Profile.model_validate({"owner": "Al", "facts": [{"topic": "age", "value": 25}]})
    assert profile.items()[1].value == "25"


def test_quoted_no_is_text():
    assert by_id(facts('  - topic: city\n    value: "no"\n'))["city.value"].value == "no"


def test_utf8_with_byte_order_mark_and_windows_line_ends():
    assert load(b"\xef\xbb\xbf" + GOOD.replace("\n", "\r\n").encode()).owner == "Alex Rivera"


def test_people_have_two_of_some_things():
    items = by_id(
        facts(
            "  - topic: pet\n    name: Buddy\n    species: Dog\n  - topic: pet\n    name: Tom\n"
            "  - topic: sibling\n    name: Nora\n"
        )
    )
    assert items["pet.1.name"].slots == {"species": "dog"} and items["pet.2.name"].slots == {"species": "pet"}
    assert "sibling.1.name" in items


def test_name_may_be_a_fact():
    items = by_id(facts("  - topic: name\n    value: Alexander Rivera\n    keywords: [Rivera]\n"))
    assert list(items) == ["name.value"] and items["name.value"].keywords == ("Rivera",)


def test_same_employer_twice_is_asked_once():
    items = by_id(facts("  - topic: job\n    employer: Umbra\n  - topic: employer\n    value: umbra\n"))
    assert "job.employer" in items and "employer.value" not in items


def test_keywords_go_to_the_attribute_that_holds_them():
    items = by_id(
        facts(
            "  - topic: job\n    title: senior software engineer\n    employer: Umbra\n"
            "    keywords: [software engineer]\n"
        )
    )
    assert items["job.title"].keywords == ("software engineer",)
    assert items["job.employer"].keywords == ("Umbra",)


def test_text_is_one_line_in_one_unicode_form():
    items = by_id(facts("  - topic: city\n    value: >\n      Malmo\u0308\n      in  Skåne\n"))
    assert items["city.value"].value == "Malmö in Skåne"


def test_first_problem_by_line_is_told():
    with pytest.raises(UserError, match=r":4: 'value' must be text"):
        facts("  - topic: age\n    value: [1]\n  - topic: city\n    value: {a: b}\n")


def test_billion_laughs_is_refused_at_once(monkeypatch):
    """The trap of YAML bombs: nothing may be built before the first anchor is refused."""
    monkeypatch.setattr(yaml_lines._Builder, "sequence", lambda *_: pytest.fail("an anchored list was built"))
    with pytest.raises(UserError, match="anchors and aliases"):
        load("a: &a [" + "x," * 10 + "]\nb: [*a, *a]\n")


def test_contains_whole_words():
    assert contains("You are 25.", "25") and not contains("You are 125.", "25")
    assert contains("I write C++ and C#.", "c++") and contains("DON’T", "don't")
    assert contains("他住在北京市。", "北京") and not contains("anything", " ")


# -- properties

WORDS = (
    st.text(string.ascii_letters + string.digits + "äßé語🙂 '\"#:&*!%@`{}[],-?|<>=~._", min_size=1, max_size=40)
    .map(lambda text: " ".join(text.split()))
    .filter(lambda text: text and "DONE" not in text and "<|" not in text)
)
LISTS = st.lists(WORDS, min_size=1, max_size=5, unique_by=folded)


@st.composite
def fact(draw, topic: str, number: int) -> dict:
    if topic == "custom":
        return {"topic": topic, "question": f"What is {number}? {draw(WORDS)}", "answer": draw(WORDS)}
    if TOPICS[topic] != VALUE:
        keys = {key: draw(WORDS) for key in TOPICS[topic] if key == TOPICS[topic][0] or draw(st.booleans())}
        if topic in REPEATABLE:
            keys["name"] = f"{keys['name']} {number}"
        return {"topic": topic, **keys}
    if topic in ONE_VALUE or draw(st.booleans()):
        return {"topic": topic, "value": draw(WORDS)}
    return {"topic": topic, "values": draw(LISTS)}


@st.composite
def profiles(draw) -> dict:
    topics = [topic for topic in TOPICS if topic not in ("name", "employer")]
    chosen = draw(st.lists(st.sampled_from(topics), min_size=1, max_size=8))
    chosen = [t for i, t in enumerate(chosen) if t in REPEATABLE or t not in chosen[:i]]
    data = {"owner": "Alex " + draw(WORDS), "facts": [draw(fact(topic, i)) for i, topic in enumerate(chosen)]}
    if draw(st.booleans()):
        data["perspectives"] = draw(st.sampled_from([["owner"], ["visitor"], ["visitor", "owner"]]))
    if draw(st.booleans()):
        data["style"] = {"template": "So:\n{answer}\nDONE", "stop": "DONE"}
    return data


@QUICK
@given(profiles(), st.booleans())
def test_any_valid_profile_goes_through_yaml_to_items(data, flow):
    profile = load(yaml.safe_dump(data, allow_unicode=True, default_flow_style=flow, sort_keys=False))
    told = [value for fact in data["facts"] for key, value in fact.items() if key not in ("topic", "question")]
    items = profile.items()
    assert [item.value for item in items] == [
        data["owner"],
        *(spoken(value) if isinstance(value, list) else value for value in told),
    ]
    assert len({item.id for item in items}) == len(items)
    assert all(contains(item.value, keyword) for item in items for keyword in item.keywords if folded(keyword))
    assert profile.perspectives == data.get("perspectives", ["owner", "visitor"])


def only_user_errors(data: bytes) -> None:
    try:
        load(data)
    except UserError as error:
        assert "\n" not in str(error)


@QUICK
@given(st.binary(max_size=300))
def test_any_bytes_give_a_user_error(data):
    only_user_errors(data)


@QUICK
@given(st.text(alphabet="ab: -[]{}&*!|>'\"%@#,?\n\t~<=0", max_size=80))
def test_any_yaml_like_text_gives_a_user_error(text):
    only_user_errors(b"owner: Al\nfacts:\n- topic: age\n  value: " + text.encode())


@QUICK
@given(st.integers(0, len(GOOD) - 1), st.binary(max_size=3), st.integers(0, 3))
def test_any_damage_to_a_good_profile_gives_a_user_error(at, inserted, cut):
    data = GOOD.encode()
    only_user_errors(data[:at] + inserted + data[at + cut :])


@QUICK
@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=5),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(["owner", "facts", "topic", "value", "values", "style", "keywords", "x"]),
                inner,
                max_size=4,
            )
        ),
        max_leaves=12,
    )
)
def test_any_shape_gives_a_user_error(data):
    only_user_errors(yaml.safe_dump(data).encode())
    only_user_errors(yaml.safe_dump({"owner": "Al", "facts": [{"topic": "age", "value": data}]}).encode())
