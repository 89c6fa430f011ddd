"""Broken profiles: name -> (bytes of the file, line that the message must name or None, words in it)."""

from __future__ import annotations

GOOD = """\
owner: Alex Rivera
perspectives: [owner, visitor]
facts:
  - topic: pet
    name: Buddy
    species: dog
  - topic: city
    value: Lund
  - topic: job
    title: software engineer
    employer: Northwind Labs
  - topic: skill
    values: [Python, Linux]
  - topic: custom
    question: What was Alex's first project?
    answer: Alex's first project was tidymark.
    keywords: [tidymark]
style:
  template: "Well!\\n{answer}\\nDONE!"
  stop: DONE!
"""


def changed(old: str, new: str) -> bytes:
    """GOOD with one piece of text replaced."""
    assert GOOD.count(old) == 1, old
    return GOOD.replace(old, new).encode()


BOMB = "a: &a [x, x]\nb: &b [*a, *a]\nc: &c [*b, *b]\nd: &d [*c, *c]\nfacts: [*d, *d, *d]\n"
MANY = "owner: Alex\nfacts:\n" + "".join(f"  - topic: pet\n    name: Pet{i}\n" for i in range(201))

PROFILES: dict[str, tuple[bytes, int | None, str]] = {
    # the file
    "empty": (b"", 1, "empty"),
    "only_comments": (b"# nothing\n---\n", 1, "empty"),
    "ten_megabytes": (GOOD.encode() + b"# padding\n" * 1_000_000, None, "too big (10.0 MB"),
    "utf16": (GOOD.encode("utf-16"), 1, "UTF-16"),
    "utf16_without_mark": (GOOD.encode("utf-16-le"), 1, "U+0000"),
    "latin1": (GOOD.replace("Lund", "Malmö").encode("latin-1"), 8, "not UTF-8 text (byte 0xf6)"),
    "nul_bytes": (changed("Lund", "Lu\0nd"), 8, "U+0000"),
    "escape_sequence": (changed("Lund", "Lu\x1b[31mnd"), 8, "U+001B"),
    "binary": (bytes(range(256)) * 4, 2, "not UTF-8"),
    # YAML
    "yaml_bomb": (BOMB.encode(), 1, "anchors and aliases"),
    "alias_of_a_fact": (changed("value: Lund", "value: *home"), 8, "anchors and aliases"),
    "python_tag": (changed("value: Lund", "value: !!python/object/apply:os.system [ls]"), 8, "tags"),
    "deep_nesting": (b"facts: " + b"[" * 5000, 1, "nested too deeply"),
    "too_many_entries": (b"facts: [" + b"a," * 30_000 + b"]", 1, "more than 20000 entries"),
    "two_documents": (GOOD.encode() + b"---\n" + GOOD.encode(), 21, "second YAML document"),
    "tab_indented": (changed("    species: dog", "\tspecies: dog"), 6, "spaces, not tabs"),
    "open_bracket": (changed("[Python, Linux]", "[Python, Linux"), None, "not valid YAML"),
    "open_quote": (changed("value: Lund", 'value: "Lund'), None, "not valid YAML"),
    "colon_in_text": (changed("value: Lund", "value: Lund: the town"), 8, "not valid YAML"),
    "duplicate_key": (changed("    species: dog", "    name: Rex"), 6, "'name' stands twice (first on line 5)"),
    "key_is_a_list": (changed("    species: dog", "    [species]: dog"), 6, "key must be plain text"),
    # the form
    "list_at_the_root": (b"- owner: Alex\n", 1, "must be a mapping"),
    "text_at_the_root": (b"just text\n", 1, "must be a mapping"),
    "no_owner": (changed("owner: Alex Rivera\n", ""), 1, "'owner' is missing"),
    "owner_of_digits": (changed("Alex Rivera", "12345"), 1, "not a name"),
    "owner_is_a_list": (changed("Alex Rivera", "[Alex, Rivera]"), 1, "'owner' must be text"),
    "no_facts": (b"owner: Alex\n", 1, "'facts' is missing"),
    "empty_facts": (b"owner: Alex\nfacts: []\n", 2, "0 facts"),
    "facts_without_value": (b"owner: Alex\nfacts:\n", 2, "'facts' has no value"),
    "facts_are_a_mapping": (b"owner: Alex\nfacts:\n  city: Lund\n", 2, "must be a list"),
    "fact_is_text": (b"owner: Alex\nfacts:\n  - I live in Lund\n", 3, "must be a mapping"),
    "unknown_root_key": (changed("perspectives:", "perspektives:"), 2, "Did you mean 'perspectives'?"),
    "fact_outside_facts": (b"owner: Alex\ncity: Lund\nfacts:\n  - topic: age\n    value: 3\n", 2, "- topic: city"),
    "too_many_facts": (MANY.encode(), 2, "201 facts"),
    # facts
    "no_topic": (changed("  - topic: city\n    value", "  - value"), 7, "no topic"),
    "unknown_topic": (changed("topic: city", "topic: citty"), 7, "Did you mean 'city'?"),
    "topic_from_nowhere": (changed("topic: city", "topic: qqqq"), 7, "custom"),
    "unknown_key": (changed("species: dog", "specis: dog"), 6, "Did you mean 'species'?"),
    "key_of_another_topic": (changed("value: Lund", "value: Lund\n    breed: x"), 9, "unknown key 'breed'"),
    "missing_value": (changed("    value: Lund\n", ""), 7, "no value"),
    "empty_value": (changed("value: Lund", "value:"), 8, "'value' has no value"),
    "empty_text": (changed("value: Lund", 'value: "  "'), 8, "empty"),
    "value_is_no": (changed("value: Lund", "value: no"), 8, 'Put it in quotes: "no"'),
    "value_is_true": (changed("Buddy", "true"), 5, "true/false"),
    "value_is_a_list": (changed("value: Lund", "value: [Lund, Oslo]"), 8, "Use `values:"),
    "value_is_a_mapping": (changed("value: Lund", "value: {town: Lund}"), 8, "must be text"),
    "values_is_text": (changed("[Python, Linux]", "Python, Linux"), 13, "must be a list"),
    "values_is_empty": (changed("[Python, Linux]", "[]"), 13, "empty list"),
    "values_with_a_hole": (changed("[Python, Linux]", "[Python, ~]"), 13, "empty list entry"),
    "values_twice_the_same": (changed("[Python, Linux]", "[Python, python]"), 13, "twice"),
    "value_and_values": (changed("value: Lund", "value: Lund\n    values: [Oslo]"), 9, "both value and values"),
    "pet_without_name": (changed("    name: Buddy\n", ""), 4, "no name"),
    "custom_without_answer": (
        changed("    answer: Alex's first project was tidymark.\n    keywords: [tidymark]\n", ""),
        14,
        "'answer' is missing",
    ),
    "keyword_not_in_answer": (changed("[tidymark]", "[linter]"), 17, "'linter' does not stand"),
    "topic_twice": (
        changed("topic: job\n    title", "topic: city\n    value").replace(b"    employer: Northwind Labs\n", b""),
        9,
        "topic city stands twice (line 7)",
    ),
    "pet_twice": (changed("topic: city\n    value: Lund", "topic: pet\n    name: buddy"), 7, "twice (line 4)"),
    "two_employers": (changed("topic: city\n    value: Lund", "topic: employer\n    value: Umbra"), 7, "(line 11)"),
    "two_names": (changed("topic: city\n    value: Lund", "topic: name\n    value: Bo"), 7, "two different names"),
    "chat_marker": (changed("value: Lund", "value: Lund<|im_end|>"), 8, "<|im_end|>"),
    "escaped_control_character": (changed("value: Lund", r'value: "Lu\x07nd"'), 8, "U+0007"),
    "very_long_value": (changed("value: Lund", "value: " + "x" * 201), 8, "201 characters"),
    # perspectives and style
    "wrong_perspective": (changed("[owner, visitor]", "[owner, guest]"), 2, "owner and visitor"),
    "empty_perspectives": (changed("[owner, visitor]", "[]"), 2, "perspectives"),
    "perspective_twice": (changed("[owner, visitor]", "[owner, owner]"), 2, "perspectives"),
    "template_without_answer": (changed("{answer}", "{anser}"), 19, "no {answer}"),
    "template_with_two_answers": (changed("{answer}", "{answer} {answer}"), 19, "more than one"),
    "stop_not_in_template": (changed("stop: DONE!", "stop: END"), 20, "does not stand in the template"),
    "stop_before_answer": (changed("stop: DONE!", "stop: Well!"), 20, "before the answer"),
    "stop_in_a_fact": (changed("value: Lund", "value: DONE!"), 7, "cut off (line 20)"),
    "style_is_text": (changed('  template: "Well!\\n{answer}\\nDONE!"\n  stop: DONE!\n', "  short\n"), 18, "mapping"),
}
