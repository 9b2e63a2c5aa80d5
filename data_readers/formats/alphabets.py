"""Judge whether a text was decoded by the right encoding: by how many of its letters belong to one language."""

from __future__ import annotations

from collections import Counter
from functools import cache

_WEST = "àâäáãçèéêëìíîïñòóôöõùúûüœßªº"  # of several languages together, which is less telling than of one
_LETTERS = (
    "àâæçéèêëîïôœùûüÿ", "äöüßé", "áéíóúñüªº", "àáâãçéêíóôõúªº", "àèéìíòóù", "åäöæøéüèà",  # French, German, ...
    "ąćęłńóśźż", "áčďéěíňóřšťúůýžľĺŕôä", "áéíóöőúüű", "ăâîșțşţ", "čćđšž",  # Polish, Czech and Slovak, Hungarian, ...
    "çğıİöşüâîû", "ąčęėįšųūž", "āčēģīķļņšūž", "äõöüšž",  # Turkish, Lithuanian, Latvian, Estonian
    "абвгдеёжзийклмнопрстуфхцчшщъыьэюя", "абвгґдеєжзиіїйклмнопрстуфхцчшщьюя", "абвгдеёжзійклмнопрстуўфхцчшыьэюя",
    "абвгдђежзијклљмнњопрстћуфхцчџш")
_SPANS = (range(0x0386, 0x03CF), range(0x05D0, 0x05EB), range(0x0621, 0x0653), range(0x0E01, 0x0E5C))
_COMMON = {"gb2312": range(0xB0, 0xD8), "big5": range(0xA4, 0xC7), "euc_jp": range(0xB0, 0xD0),
           "euc_kr": range(0xB0, 0xC9)}  # where the commoner characters stand, by their first byte
_KANA = frozenset(map(chr, range(0x3041, 0x30FF)))
_MARKS = frozenset("‘’‚“”„«»‹›–—…·•€£¥§©®™°±²³½¼¿¡´¨×№\xa0\xad\u200b") | frozenset(
    map(chr, [*range(0x3000, 0x3020), *range(0xFF01, 0xFF61)]))
_IN_WORDS, _OPENING, _NUMBERS = frozenset("‘’·\xad–—…"), frozenset("‚„«‹¿¡"), frozenset("²³½¼¾£¥¹")


@cache
def _languages() -> list[frozenset[str]]:
    made = [frozenset(letters + letters.upper()) for letters in (_WEST, *_LETTERS)]
    made += [frozenset(map(chr, span)) for span in _SPANS]
    for name, leads in _COMMON.items():
        pairs = (bytes([lead, trail]) for lead in leads for trail in range(0x40, 0xFF))
        common = frozenset("".join(pair.decode(name, "ignore") for pair in pairs))
        made.append(common | _KANA | {"々"} if name == "euc_jp" else common)
    return made


def plausibility(text: str) -> float:
    """Return the share of a text's characters beyond ASCII that the best fitting language has, from 0 to 1.

    Punctuation says nothing, unless it is where none can be, such as within a word: then it counts against every
    language. So does a letter of another alphabet beside a Latin one, and Japanese without any kana counts half.
    """
    words = Counter(word for word in text.split() if not word.isascii())
    counts: Counter[str] = Counter()
    for word, times in words.items():
        for place, character in enumerate(word):
            if not character.isascii():
                before, after = word[place - 1:place], word[place + 1:place + 2]
                if character not in _MARKS:
                    mixed = 0x370 <= ord(character) < 0x2E80 and any(
                        near.isascii() and near.isalpha() for near in (before, after))
                    counts["\0" if mixed else character] += times
                elif ord(character) < 0x3000 and _is_odd(character, before.isalpha(), after.isalpha(), len(word)):
                    counts["\0"] += times
    shares = [sum(counts[character] for character in counts.keys() & language)
              / (2 if language >= _KANA and not counts.keys() & _KANA else 1) for language in _languages()]
    shares[0] *= 0.85
    return max(shares) / counts.total() if counts else 1.0


def _is_odd(mark: str, after_letter: bool, before_letter: bool, length: int) -> bool:
    if mark in _NUMBERS and length > 3:  # m² is none
        return after_letter or before_letter
    return after_letter and (mark in _OPENING or (before_letter and mark not in _IN_WORDS))
