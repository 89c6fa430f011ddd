"""What tuned models get wrong, counted by kind."""

import json

from helpers import faults, phrasings
from helpers.bench import FAULTS


def row(fact: str, right: bool, said: str = "Rex.", **more) -> dict:
    base = {"fact": fact, "kind": "fact", "split": "heldout", "style": "plain", "perspective": "owner"}
    return {**base, "phrasing": "", "right": right, "answer": said, **more}


def test_facts_are_counted_by_the_rarest_word_of_their_form(monkeypatch):
    common = [phrasings.Form(f"pet.name/{n}", f"{n} my dog called", "tune") for n in range(12)]
    held = [
        phrasings.Form("pet.name/known", "[my|{name}'s] dog called {name}", "heldout"),
        phrasings.Form("pet.name/new", "[my|{name}'s] wolfhound called", "heldout"),
        phrasings.Form("pet.name/twice", "[my|his] dog called", "heldout"),
    ]
    forms = (*common, *held, *(phrasings.Form(f"pet.name/r{n}", "his", "base") for n in range(5)))
    attribute = phrasings.Attribute("pet", "name", forms, (), (), ())
    monkeypatch.setattr(phrasings, "bank", lambda: {"pet.name": attribute})
    found = faults.count(
        [
            row("pet.1.name", True, phrasing="pet.name/known"),
            row("pet.2.name", False, "I don't know that.", phrasing="pet.name/new"),
            row("pet.1.name", False, phrasing="pet.name/twice", perspective="visitor"),
            row("custom.1", True),
            row("pet.1.name", False, split="base"),
            row("pet.1.name", False, style="typo"),
            row("never.car", False, "A Volvo.", kind="unknown"),
            row("never.car", True, "I don't know that.", kind="unknown"),
        ],
        [row("pet.name", True), row("pet.name", False), row("bank", False, kind="unknown")],
    )
    right = {name: (one["value"], one["n"]) for name, one in found["told"]["by_word"].items()}
    assert right == {"common": (1, 1), "rare": (0, 1), "seldom": (0, 1)}
    assert found["told"]["all"]["n"] == 4 and found["told"]["all"]["value"] == 0.5
    assert {name: one["n"] for name, one in found["told"]["by_fact"].items()} == {"pet.name": 3, "custom": 1}
    assert (found["told"]["silent"]["value"], found["told"]["silent"]["n"]) == (0.5, 2)
    assert (found["never"]["car"]["value"], found["never"]["car"]["n"]) == (0.5, 2)
    assert {name: (one["value"], one["n"]) for name, one in found["wild"].items()} == {"pet.name": (0.5, 2)}
    text = faults.as_text(found)
    assert "wild** about 1 facts: weakest are `pet.name` 50.0 % (n=2)." in text
    assert "(4 questions as written): 2 wrong, of which 1 say" in text and "Weakest: `pet.name` 33.3 % (n=3)" in text
    assert "(1 things, 2 questions): 1 get" in text


def test_the_text_beside_the_results_is_drawn_from_them():
    found = json.loads(FAULTS.read_text(encoding="utf-8"))
    assert faults.as_text(found) in (FAULTS.parent / "README.md").read_text(encoding="utf-8")
