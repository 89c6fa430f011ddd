"""Questions of the user's own, put into other words: only the user's one wording is known, and people use any.

Nothing here understands the question. Words are replaced by others of the same kind (`data/phrasings/_synonyms.yaml`),
left out, or all but the main ones are; who asks decides between "I", "Alex" and "she".
"""

from __future__ import annotations

import random
import re

from helpers import phrasings
from helpers.text import with_articles

_SMALL = frozenset(
    "a an the is are was were am be been did does do has have had will would can could should of in on at to for with "
    "by from and or what who whom whose which when where why how his her my your their its he she i me him them it "
    "that".split()
)
_JOIN = "ǂ"  # a letter to regular expressions, and in no text
_AUX = "did|does|do|has|have|had|is|are|was|were|will|would|can|could|should|may|might|must"
_SUBJECT = {"does": "do", "has": "have", "is": "am", "was": "was"}  # before "I"
_TO_YOU = {"is": "are", "was": "were", "has": "have", "does": "do"}  # after "You"
LEADS = (
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
# subject, object, possessive, reflexive
_WHO = {
    "owner": ("I", "me", "my", "myself"),
    "you": ("you", "you", "your", "yourself"),
    "he": ("he", "him", "his", "himself"),
    "she": ("she", "her", "her", "herself"),
}


def _called(first: str, owner: str) -> str:
    return rf"(?:{re.escape(owner)}|{re.escape(first)})\b"


def addressed(question: str, first: str, owner: str, who: str) -> str:
    """A `question` that names its owner, as somebody asks it: `who` is "owner" ("I"), "he", "she", or a name to say.

    "Which dish won Tomasz his first prize?" -> "Which dish won me my first prize?"
    """
    name = _called(first, owner)
    if not re.search(name, question):
        return question
    subject, object_, possessive, reflexive = _WHO.get(who, (who, who, f"{who}'s", ""))
    text = question
    if who == "owner":
        text = re.sub(
            rf"\b({_AUX})(?= {name}(?!['’]s))",
            lambda m: _SUBJECT.get(m[0].lower(), m[0]) if m[0].islower() else _SUBJECT.get(m[0].lower(), m[0]).title(),
            text,
            flags=re.IGNORECASE,
        )
        text = re.sub(rf"['’]s (?={name}(?!['’]s))", " am ", text)
    text = re.sub(rf"{name}['’]s\b", possessive, text)
    text = re.sub(rf"(^|['’]s |\b(?:{_AUX}|am) ){name}", rf"\g<1>{subject}", text, flags=re.IGNORECASE)
    text = re.sub(name, object_, text)
    if who in _WHO:
        own = {
            "his": possessive,
            "himself": reflexive,
            "herself": reflexive,
            "he": subject,
            "she": subject,
            "him": object_,
        }
        text = re.sub(r"\b(his|himself|herself|he|she|him)\b", lambda m: own[m[0]], text)
        text = re.sub(r"\bher\b(?= \w)", possessive, text)
        text = re.sub(r"\bher\b", object_, text)
    return text[:1].upper() + text[1:]


def told_to_owner(answer: str, first: str, owner: str) -> str:
    """An `answer` that names its owner, said to them: "Tomasz won his first prize" -> "You won your first prize".

    Where the verb would have to change ("Ben drives") only "Ben's" becomes "your".
    """
    name = _called(first, owner)
    start = re.match(rf"{name} (\w+)", answer)
    if start and (start[1] in _TO_YOU or not start[1].endswith("s")):
        rest = _TO_YOU.get(start[1], start[1]) + answer[start.end() :]
        return "You " + re.sub(r"\b(?:his|her)\b(?= \w)", "your", re.sub(rf"{name}['’]s\b", "your", rest))
    text = re.sub(rf"{name}['’]s\b", "your", answer)
    return text[:1].upper() + text[1:]


def custom_forms(question: str) -> list[str]:
    """Ways to ask a question of the user's own, made from its words: framed, shortened, indirect; itself first."""
    bare = question.rstrip("?!. ")
    lower = bare[:1].lower() + bare[1:]
    forms = [question]
    match = re.match(r"(?:what|who|which|where)(?:'s| is| was| are| were) (.+)$", bare, re.IGNORECASE)
    if match:
        forms += [frame.replace("{noun}", match.group(1)) for frame in phrasings.wrappers()["noun"]]
    else:
        forms.append(" ".join(word for word in bare.split() if word.lower() not in _SMALL) + "?")
        forms += [f"{lead}{lower}?" for lead in LEADS]
    frames = phrasings.wrappers()
    forms += [f"{before}{lower}?" for before in frames["before"]] + [f"{bare}?{after}" for after in frames["after"]]
    return list(dict.fromkeys(form[:1].upper() + form[1:] for form in forms))


def reworded(question: str, rng: random.Random, name: str) -> str:
    """`question` in other words: synonyms, a word less, only its main words, a frame around it; the `name` stays whole.

    What people say in other words often shares no more with the question than "honeymoon", so a third of the results
    hold one or two of its longest words: "Tell me about Ana's honeymoon."
    """
    synonyms, whole = phrasings.extra("synonyms"), name.replace(" ", _JOIN)
    text = question.rstrip("?!. ").replace(name, whole)

    def other(match: re.Match) -> str:
        found = synonyms.get(match[0].lower())
        if not found or match[0] == whole or rng.random() < 0.45:
            return match[0]
        word = rng.choice(found).replace(" ", _JOIN)  # as one word, until the end
        return word[:1].upper() + word[1:] if match[0][:1].isupper() else word

    text = with_articles(re.sub(r"[\w'-]+", other, text))
    words = text.split()
    content = [w for w in words if re.sub(r"\W", "", w.lower()) not in _SMALL]
    spare = [w for w in content if not w.startswith(whole)]
    if len(spare) > 2 and rng.random() < 0.3:  # without one of its words it still says enough
        gone = rng.choice(spare)
        words, content, spare = ([w for w in some if w is not gone] for some in (words, content, spare))
        text = " ".join(words)
    draw, noun = rng.random(), None
    if match := re.match(r"(?:what|who|which|where)(?:'s| is| was| are| were) (.+)$", text, re.IGNORECASE):
        noun = match[1]
    elif match := re.match(rf"(?:which|what) (?!(?:{_AUX})\b)(\w+) (?!(?:{_AUX})\b)(.+)$", text, re.IGNORECASE):
        noun = f"the {match[1]} that {match[2]}"
    if draw < 0.33 and spare:
        longest = sorted(spare, key=len)[-2:]
        main = [w for w in longest if rng.random() < 0.6] or longest[-1:]
        whose = f"{whole}'s" if whole in text else "the"
        text = rng.choice(phrasings.wrappers()["noun"]).replace("{noun}", " ".join([whose, *main]))
    elif draw < 0.5 and len(spare) > 1:
        if rng.random() < 0.5:
            rng.shuffle(content)
        text = " ".join(content) + rng.choice(("?", "?", "", "??"))
    elif noun and draw < 0.7:
        text = rng.choice(phrasings.wrappers()["noun"]).replace("{noun}", noun)
    elif draw < 0.85:
        text = rng.choice(LEADS) + (text if text.startswith(whole) else text[:1].lower() + text[1:]) + "?"
    else:
        text += "?"
    return text[:1].upper() + text[1:].replace(_JOIN, " ")
