# ruff: noqa: RUF001  (look-alike characters are the point here)
"""Captions made by rule, the same ones every time: ordinary ones, and ones that ask for trouble."""

from __future__ import annotations

import random


def _words(text: str) -> list[str]:
    return text.split()


PEOPLE = _words("man woman boy girl child skateboarder chef bride surfer player Mary John teacher couple")
ANIMALS = _words("dog cat horse zebra giraffe bird elephant sheep cow bear puppy kitten")
THINGS = _words("bench bus train laptop pizza cake kite umbrella t-shirt vase clock sign hot-dog motorcycle")
PLACES = _words("street kitchen beach field park living room snowy slope train station backyard ocean city")
COLOURS = _words("red blue brown black-and-white dark-green yellowish grey pink")
ACTIONS = _words("riding holding eating looking at standing next to playing with jumping over walking past")
NUMBERS = ["two", "3", "12", "1,000", "3.5", "2nd", "50%", "1/2", "10:30", "1980s", "$5.99", "No. 7"]
OWNERS = ["John's", "the dogs'", "a child's", "Mr. Smith's", "his", "someone else's", "women's", "the bus'"]
REMARKS = [
    "it's a sunny day",
    "they don't look happy",
    "he can't see it",
    "she'll fall",
    "you cannot park here",
    "we've seen this before",
    "I'm not sure",
    "that isn't food",
    "it says STOP",
    "there are no people",
    "what a view!",
    "is it real?",
    "one is asleep; the other is not",
    "the sky (in the back) is grey",
    'the sign reads "Main St."',
    "with the word 'open' on it",
    "at 5 p.m.",
    "in the U.S.",
    "near St. Louis, Mo.",
    "and more ...",
    "taken from above - a nice shot",
    "a well-known place",
]
TEMPLATES = [
    "A {colour} {animal} {action} a {thing} in the {place}.",
    "a {person} {action} {owner} {thing}",
    "The {person} and the {animal} are {action} {number} {thing}s, {remark}.",
    "{number} {animal}s in a {place}, {remark}",
    "There is a {colour} {thing} on {owner} {thing}.",
    "{remark}: a {person} {action} a {animal}.",
    "A {person}, a {animal} and a {thing} / {thing}",
    "Close-up of {owner} {colour} {thing}; {remark}.",
    '"{remark}," says a {person} in the {place}',
    "a {thing} that is {action} a {thing} in {owner} {place} .",
]

TROUBLE = _words("""
    U.S. u.s. Mr. mr. St. st. p.m. P.M. etc. vs. Inc. No. no. e.g. i.e. J. Dr. Jan. ft. oz. Ph.D. a.k.a. The
    A don't DON'T don’t it's it’s I'm we'll they've can't cannot gonna gotta lemme shan't ain't 'tis 'twas
    y'all ma'am o'clock O'Brien jack-o'-lantern rock'n'roll 'n' n' 'em 'til '90s '95 80's dogs' John’s d'Art
    l’eau 3 3.5 1,000 1/2 10:30 10:30pm $5.99 US$5 50% 2nd 5'10" 3x4 12/25/2014 555-1234 (555) 123-4567 .5
    5. +5 -5 #1 5kg 90° ½ 3½ €5 £5 5¢ m² ... .... .. … . - -- --- — – “ ” ‘ ’ " ' `` '' ( ) [ ] { } < >
    -lrb- / \\ | & * ** _ __ ~ ^ = + ++ ! ? !! ?! , ; : :) :-( :D ;) <3 ^_^ AT&T R&B &amp; &quot;
    salt&pepper @user #tag a@b.com www.x.com http://t.co/ab?c=d x.com x.org/y index.html photo.JPG C++ C#
    node.js and/or w/ TV 24/7 t-shirt 5-year-old well-known black-and-white 1980s a_b <b> </b> <br/> <unk>
    <a href="x"> 😀 ❤️ 👍🏽 ☺ ★ © ™ café naïve Zürich e\u0301 ñ Þór ﬁ русский 日本語 हिन्दी العربية n't 's ’s
    'll % # $ @ 1 x end.Next wait...what hello!hello
""")
TROUBLE += ["\u00a0", "\u200b", "\u00ad", "\ufeff", "a\tb"]


def ordinary_captions(count: int) -> list[str]:
    """Return sentences as people describe images: letters, usual punctuation, contractions, numbers."""
    chance = random.Random(2024)
    choices = {
        **{"person": PEOPLE, "animal": ANIMALS, "thing": THINGS, "place": PLACES, "colour": COLOURS},
        **{"action": ACTIONS, "number": NUMBERS, "owner": OWNERS, "remark": REMARKS},
    }

    def caption() -> str:
        template = chance.choice(TEMPLATES)
        for name, words in choices.items():
            while "{" + name + "}" in template:
                template = template.replace("{" + name + "}", chance.choice(words), 1)
        return template

    return [caption() for _ in range(count)]


def nasty_captions(count: int) -> list[str]:
    """Return heaps of what tokenizers stumble over, some of it glued together."""
    chance = random.Random(7)
    return [
        "".join(
            chance.choice(TROUBLE) + chance.choice(["", " ", " ", " "]) for _ in range(chance.randint(1, 9))
        )
        for _ in range(count)
    ]
