"""The tokens of the Penn Treebank style, as regular expressions.

The table is our own description of what Stanford's `PTBTokenizer` (CoreNLP 3.4.1, the one COCO's
caption metrics call) does to captions, found by feeding the program millions of short strings.
`tests/metrics/test_ptb_tokenizer.py` compares the two.

At each place of a caption the rule with the longest match wins, and among equals the first of the
table. A rule's first filled group is the token; what it matches beyond that group is context, which
counts for the length but is read again.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

# --- letters, digits, signs -------------------------------------------------------------------------

# Python's \w contains signs that the tokenizer does not take for letters, and all beyond the first plane.
_NOT_LETTERS = (
    "\u00b2\u00b3\u00b9\u00bc-\u00be\u2070\u2074-\u2079\u2080-\u2089\u2150-\u2182\u2185-\u218f\u2460-\u24ff\u2776-\u2793"
    "\u037f\u0528-\u052f\U00010000-\U0010ffff"
)
# Accents that follow their letter, and the vowel signs of Hebrew, Arabic, Indian scripts, Thai and Lao.
_MARKS = (
    "\u00ad\u02c2-\u02c5\u02d2-\u02df\u02e5-\u02eb\u02ed\u02ef-\u036f\u0375\u0378\u0379\u0384-\u0385\u03f6\u0483-\u0487"
    "\u055a-\u055f\u0591-\u05bd\u05bf\u05c1-\u05c2\u05c4-\u05c5\u05c7\u0615-\u061a\u064b-\u065e\u0670"
    "\u06d6-\u06e4\u06e7-\u06ed\u06fd-\u06fe\u070f\u0711\u0730-\u074c\u07a6-\u07b0\u07eb-\u07f3"
    "\u0900-\u0903\u093c\u093e-\u094e\u0951-\u0955\u0962-\u0963\u0981-\u0983\u09bc\u09be-\u09c4"
    "\u09c7-\u09c8\u09cb-\u09cd\u09d7\u09e2-\u09e3\u0a01-\u0a03\u0a3c\u0a3e-\u0a4f\u0a81-\u0a83\u0abc"
    "\u0abe-\u0acf\u0b82\u0bbe-\u0bc2\u0bc6-\u0bc8\u0bca-\u0bcd\u0c01-\u0c03\u0c3e-\u0c56\u0d3e-\u0d44"
    "\u0d46-\u0d48\u0e31\u0e34-\u0e3a\u0e47-\u0e4e\u0eb1\u0eb4-\u0ebc\u0ec8-\u0ecd"
)
_PLAIN_LETTER = rf"[^\W\d_{_NOT_LETTERS}]"
_LETTER_ENTITY = "&[aeiouAEIOU](?:acute|grave|uml);"
_LETTER = rf"(?:{_PLAIN_LETTER}|[{_MARKS}]|{_LETTER_ENTITY})"
_LETTER_OR_DIGIT = rf"(?:[^\W_{_NOT_LETTERS}]|[{_MARKS}]|{_LETTER_ENTITY})"
_ALNUM = rf"[^\W_{_NOT_LETTERS}]"
_ASCII = "[A-Za-z0-9]"
_SOFT_ASCII = "[A-Za-z0-9\u00ad]"
_BLANK = r"[ \t\u00a0\u2000-\u200a\u3000]"
_APOSTROPHE = r"(?:['\u2019\u0092]|&apos;)"
_ANY_QUOTE = r"(?:['`\u2018\u2019\u201b\u0091\u0092]|&apos;)"  # what people type for an apostrophe

# Characters that are tokens by themselves. What no rule matches is dropped: most emoji, control characters.
_SYMBOLS = (
    r"#$%&*+/;<=>@\\^_|~()\[\]{}"
    "\u0080\u00a1-\u00a9\u00ac\u00ae-\u00b9\u00bc-\u00bf\u00d7\u00f7\u037e\u0387\u0589\u05be\u05c0\u05c3"
    "\u05c6\u05f3\u05f4\u060c\u061b\u061e\u061f\u066a\u066d\u06d4\u0964\u0965\u0e3f\u0e4f\u1fbd\u2016\u2017"
    "\u201a\u201e-\u2023\u2030-\u2038\u203b\u203e-\u2042\u2044\u207a-\u207e\u208a-\u208e\u20a0\u20a4\u20ac"
    "\u2100\u2101\u2103-\u2106\u2108\u2109\u2114\u2116-\u2118\u211e-\u2123\u2125\u2127\u2129\u212e\u213a\u213b"
    "\u2140-\u2144\u214a-\u214d\u214f\u2153-\u215e\u2190-\u2bff\u3001\u3002\u3012\u30fb\uff01-\uff0f\uff1a-\uff20"
    "\uff3b-\uff40\uff5b-\uff65\uffe0\uffe1\uffe5\uffe6"
)

# --- abbreviations: the period belongs to the word -------------------------------------------------

_TITLES = """
    adj adm adv alex assoc asst atty attys ave brig capt cf cie cmdr col comdr cpl dept det dr drs elec
    ens ft gen gov govs hon insp invt jos lieut lt maj messrs mlle mme mr mrs ms msgr mt natl pfc ph pres
    prof pvt rep reps rev sen sens sfc sgt spc st ste supt treas vs wm
"""
_SENTENCE_ENDERS = """
    al ala apr ariz assn aug bhd bldg blvd bros calif co colo conn corp cos ct dak dec esq est etc ext feb
    fla fri ga inc ind intl jan jr jul jun kan kans ky ltd mar md mich minn mo mon mont neb nev nov oct
    okla penn plc rd rt sep sept seq sq sr sys tel tenn thu thurs tue tues univ va vt wed wis wisc wyo
"""
_CAPITALIZED = "A(?i:rk|z)|D(?i:el)|I(?i:ll)|L(?i:a)|M(?i:ass|iss)|O(?i:re)|P(?i:a)|T(?i:ex)|W(?i:ash)"
_BEFORE_NUMBERS = "art ca figs? nos? op pp prop"
_SENTENCE_STARTERS = """
    A About According Additionally After An As At But Earlier He Her Here However If In It Last Many More
    Mr\\. Ms\\. Now Once One Other Our She Since So Some Such That The Their Then There These They This We
    What When While Yet You
"""
_FILE_ENDINGS = """
    bat bmp c cgi class cpp dll doc docx exe gif gz h htm html jar java jpeg jpg mov mp3 pdf php pl png ppt
    ps py sql tar txt wav x xml zip
"""


def _one_of(words: str) -> str:
    return "|".join(sorted(words.split(), key=len, reverse=True))


_ENDER = rf"(?:(?i:(?:ph|ed)\.d|{_one_of(_SENTENCE_ENDERS)})|{_CAPITALIZED}|[Pp]p?tys?|[Pp]p?tes?)\."
_ABBREVIATION = rf"(?i:{_one_of(_TITLES)})\.|[Mm][ft]g\.|{_ENDER}"

# --- building blocks ----------------------------------------------------------------------------------

_WORD = rf"{_LETTER}{_LETTER_OR_DIGIT}*(?:[.!?]{_LETTER}{_LETTER_OR_DIGIT}*)*"  # "end.Next" is one word
_PART = rf"(?:[dloDLO]{_ANY_QUOTE}{_ALNUM})?{_ALNUM}+"  # "lantern", "O'Brien"
_COMPOUND = rf"{_PART}(?:[-_\u058a\u2010\u2011]{_PART})*"  # "jack-o'lantern"
_INITIALS = r"[A-Z]+(?:(?:[&+]|&amp;)[A-Z]+)+"  # "R&B"
_HYPHENATED = rf"{_ASCII}[A-Za-z0-9\u00ad.,]*(?:-{_SOFT_ASCII}+)+"
_NUMBER = r"(?:\u00ad?\d+|[.:,]\d+)(?:[.:,\u00ad\u066b\u066c]\d+)*"
_TAG_NAME = r"[A-Za-z][A-Za-z0-9_:.\-]*"
_ATTRIBUTES = rf"(?:[ \t]+{_TAG_NAME}(?:[ \t]*=[ \t]*(?:'[^'\n]*'|\"[^\"\n]*\"))?)*"
_TAG = rf"<{_TAG_NAME}{_ATTRIBUTES}[ \t]*/?[ \t]*>|</{_TAG_NAME}[ \t]*>|<[!?][A-Za-z-][^>\n]*>"
_URL_PATH = r"(?:/[^\t\n\f\r \"<>|()]+[^\t\n\f\r \"<>|.!?(){},-])?"
_COUNTRY_CODE = r"\+{0,2}\d{2,4}[- \u00a0]"
_AREA_CODE = r"\d{2,4}[- \u00a0]"

UNCLOSED_TAG = re.compile(rf"<(?={_TAG_NAME}{_ATTRIBUTES}[ \t]+{_TAG_NAME}[ \t]*=[ \t]*(?:'[^']*|\"[^\"]*)$)")
"""A tag whose attribute is not closed: Stanford's program would read on into the next captions."""

# --- what is written in place of a token --------------------------------------

_PARENTHESES = {"(": "-LRB-", ")": "-RRB-"}
_WRITTEN = {
    **_PARENTHESES,
    **{"[": "-LSB-", "]": "-RSB-", "{": "-LCB-", "}": "-RCB-"},
    **{"£": "#", "€": "$", "\u0080": "$", "¤": "$", "\u20a0": "$", "¢": "cents"},
    **{"½": "1/2", "¼": "1/4", "¾": "3/4", "⅓": "1/3", "⅔": "2/3"},
}
_QUOTES = {
    **{"\u2018": "`", "\u201b": "`", "\u2039": "`", "\u0091": "`"},
    **{"\u2019": "'", "\u203a": "'", "\u0092": "'"},
    **{"\u201c": "``", "\u00ab": "``", "\u0093": "``", "\u201d": "''", "\u00bb": "''", "\u0094": "''"},
}
_ENTITIES = {"&amp;": "&", "&lt;": "<", "&gt;": ">", "&quot;": "''", "&apos;": "'", "&nbsp;": ""}
_ENTITIES |= {"&mdash;": "--", "&ndash;": "--", "&md;": "--"}


def _as_is(token: str) -> str:
    return token


def _word(token: str) -> str:
    return token.replace("\u00ad", "")  # a soft hyphen is part of its word, but not written


def _symbol(token: str) -> str:
    return _WRITTEN.get(token, token)


def _quotes(token: str) -> str:
    return "".join(_QUOTES.get(character, character) for character in token.replace("&apos;", "'"))


def _glued(token: str) -> str:
    # A token of several words keeps them together with no-break spaces.
    return "".join(_PARENTHESES.get(character, character) for character in token.replace(" ", "\u00a0"))


def _tag(token: str) -> str:
    return token.replace(" ", "\u00a0")


def _entity(token: str) -> str:
    return _ENTITIES.get(token.lower(), token)


def _ampersand(token: str) -> str:
    return token.replace("&amp;", "&")


def _dashes(token: str) -> str:
    return token if len(token) > 4 else "--"


def _dots(token: str) -> str:
    return "..."


def _nothing(token: str) -> str:
    return ""


# --- the table ----------------------------------------------------------------------------------------

Writer = Callable[[str], str]


def _rules() -> Iterator[tuple[str, Writer]]:
    yield r"(?i:(can)not|(gon|wan)na|(got)ta|(lem|gim)me)", _word
    yield r"('[tT])(?i:is|was)", _word
    yield rf"({_TAG})", _tag
    yield r"(&(?i:quot|amp|lt|gt|nbsp|apos|[mn]dash|md|ht|tl|[uql]r|q[cl]|[oc]dq|#\d+);)", _entity
    # Addresses.
    yield r"((?i:https?)://[^\t\n\f\r \"<>|(){}]+[^\t\n\f\r \"<>|.!?(){},-])", _as_is
    yield rf"((?i:www)\.(?:[^\t\n\f\r \"<>|.!?(){{}},]+\.)+[A-Za-z]{{2,4}}{_URL_PATH})", _as_is
    yield rf"((?:[^\t\n\f\r !\"$'()`{{|}},-_]+\.)+(?:com|net|org|edu){_URL_PATH})", _as_is
    yield r"((?:<|&lt;)?[a-zA-Z0-9][^\s\"<>|(){}]*@(?:[^\s\"<>|(){}.]+\.)*[^\s\"<>|(){}.]+>?)", _as_is
    # Contractions and possessives: "do" before "n't", "n't", "'s", "'ll" and the word before them.
    yield rf"([A-Za-z\u00ad]*(?![nN])[A-Za-z])[nN]{_ANY_QUOTE}[tT]", _word
    yield rf"([nN]{_ANY_QUOTE}[tT])", _quotes
    auxiliary = r"(?:'[sdmSDM]|'(?i:ll|re|ve))"
    curly_auxiliary = r"(?:[\u2019\u0092]|&apos;)(?i:s|d|m|ll|re|ve)"
    yield rf"({_WORD})(?:{auxiliary}|{curly_auxiliary})", _word
    yield rf"({auxiliary})[^A-Za-z]|({curly_auxiliary})", _quotes
    yield rf"([A-HJ-XZn]{_ANY_QUOTE}{_PLAIN_LETTER}{{2,}})", _word
    # Words with an apostrophe inside or at an end.
    yield rf"({_PLAIN_LETTER}+[aeiouyAEIOUY]{_ANY_QUOTE}[aeiouA-Z]{_PLAIN_LETTER}*)", _word
    yield (
        rf"(?i:({_APOSTROPHE}(?:n{_APOSTROPHE}|em|till?|cause))|('n)\s|((?:[\u2019\u0092]|&apos;)n))",
        _word,
    )
    yield rf"(?i:((?:[dlj]|ol){_APOSTROPHE})(?!ll|re|ve|[sdm])|(somethin{_APOSTROPHE})(?![sdmt]))", _word
    yield (
        rf"((?i:ev'ry|cap'n|li'l|nat'l|c'mon|c'est|nor'easter|s'mores|e'er|o{_ANY_QUOTE}o|cont'd\.))",
        _word,
    )
    yield rf"(?i:(y{_APOSTROPHE})(?![sdm]){_LETTER})", _word
    yield rf"({_APOSTROPHE}[2-9]0s)|({_APOSTROPHE}\d\d)\s", _word
    # Numbers, dates, telephone numbers, money.
    yield r"(\d{1,2}[-/]\d{1,2}[-/]\d{2,4})", _word
    yield rf"([-+]?{_NUMBER})", _word
    yield r"((?:\d{1,4}[- \u00a0])?\d{1,4}[/\u2044]\d{1,4})", _glued
    area = rf"(?:\(\d{{2,3}}\)[ \u00a0]?|{_COUNTRY_CODE}(?:{_AREA_CODE})?|{_AREA_CODE})"
    yield rf"({area}\d{{3,4}}[- \u00a0]?\d{{3,5}})", _glued
    yield r"([A-Z]*\$)", _word
    # Words and compounds.
    yield rf"({_WORD})", _word
    yield rf"({_ENDER})[\s\S][\s\S]", _word
    yield rf"({_COMPOUND})", _word
    yield rf"({_ASCII}+(?:-[A-Za-z]+){{0,2}}(?:\\?/{_ASCII}+(?:-[A-Za-z]+){{0,2}}){{1,2}})", _word
    yield rf"({_HYPHENATED})", _word
    yield rf"({_INITIALS}|[cCfF]#|[cC]\+\+)", _ampersand
    # Abbreviations.
    yield rf"((?:{_WORD}|{_INITIALS}|{_COMPOUND}|{_HYPHENATED})\.)[,;:]", _word
    line_or_blank = rf"(?:{_BLANK}+|{_BLANK}*\n{_BLANK}*)"
    yield rf"([A-Za-z])\.{line_or_blank}(?:{_one_of(_SENTENCE_STARTERS)}|{_TAG})\s", _word
    yield rf"({_ABBREVIATION})", _word
    yield rf"((?i:{_one_of(_BEFORE_NUMBERS)})\.)(?:{_BLANK}|\n)?\d", _word
    yield r"([A-Za-z](?:\.[A-Za-z])*\.?)", _word
    yield (
        rf"({_ASCII}[A-Za-z0-9\u00ad.,]*(?:-{_SOFT_ASCII}+)*-[A-Za-z](?:\.[A-Za-z])+\.(?:-{_SOFT_ASCII}+)*)",
        _word,
    )
    yield rf"({_ALNUM}+(?:\.{_ALNUM}+)*\.(?i:{_one_of(_FILE_ENDINGS)}))[\s!,.?]", _word
    yield rf"(@[A-Za-z_][A-Za-z0-9_]*|#{_LETTER}+)", _as_is
    # Punctuation and the rest.
    yield r"(\.{3,5}|\.(?:[ \u00a0]\.){2,4}|\u2026)", _dots
    yield r"(-{2,})|([\u2013-\u2015\u0096\u0097])", _dashes
    yield r"([!?]+|\*+|#+|@+|_+|<<|>>|\\\*|[\u00b2\u00b3\u00b9\u2070\u2074-\u2079\u2080-\u2089]+)", _word
    yield r"(''|[`\u2018-\u201f\u2039\u203a\u00ab\u00bb\u0091-\u0094]{1,2})", _quotes
    yield r"([<>]?[:;=][-'*o]?[()DOPdp@\[\]{\\|])[^A-Za-z0-9]", _glued
    yield r"([x=~<>^'-]_[x=~<>^'-]|\((?:[x=~<>^'-][_.]?[x=~<>^'-]|[x=~<>^']-[x=~<>^'])\))", _glued
    yield r"(-(?i:[lr][rcs]b)-)", _word
    yield rf"({_BLANK}+)", _nothing
    yield rf"([{_SYMBOLS}])", _symbol
    yield r"([\s\S])", _nothing


RULES: tuple[tuple[re.Pattern[str], Writer], ...] = tuple(
    (re.compile(pattern), writer) for pattern, writer in _rules()
)
