"""Notes that are made up: of one form, with findings of their own; and what is done to copies."""

import random

_WHO = [
    "man",
    "woman",
    "girl",
    "boy",
    "farmer",
    "teacher",
    "driver",
    "nurse",
    "pensioner",
    "student",
    "welder",
    "cook",
]
_WHERE = [
    "chest",
    "knee",
    "back",
    "hip",
    "neck",
    "jaw",
    "wrist",
    "shoulder",
    "ankle",
    "abdomen",
    "elbow",
    "temple",
]
_HOW = [
    "dull",
    "sharp",
    "burning",
    "throbbing",
    "stabbing",
    "cramping",
    "aching",
    "tearing",
    "mild",
    "severe",
]
_WHEN = [
    "since Monday",
    "for three weeks",
    "after a fall",
    "at night",
    "on stairs",
    "after meals",
    "for two days",
]
_DRUGS = [
    "ibuprofen",
    "metformin",
    "ramipril",
    "warfarin",
    "insulin",
    "bisoprolol",
    "morphine",
    "heparin",
    "amoxicillin",
]
_FOUND = [
    "the scan shows {n} small lesions",
    "blood pressure is {n} over {m}",
    "the wound is {n} mm wide",
    "pulse {n}, regular",
    "temperature {n} tenths above normal",
    "reflexes weak on the left",
    "sensation lost below level {n}",
    "no fracture on {n} views",
    "liver edge {n} mm below the ribs",
    "murmur at the apex, grade {n}",
    "oxygen saturation {n} percent",
    "sugar {m} before breakfast",
]
_DONE = [
    "admitted to ward {n}",
    "sent home with {d} {n} mg",
    "seen again in {n} days",
    "referred to room {m}",
    "{d} stopped, {e} {n} mg begun",
    "kept overnight in bed {m}",
    "told to rest for {n} days",
]
_FORM = "This note follows the form of the house and is to be signed by two physicians before noon."


def note(rng: random.Random) -> str:
    """Some 60 words, of which the last sentence stands in every note."""
    said = [
        f"A {rng.choice(_WHO)} of {rng.randrange(18, 95)} comes with {rng.choice(_HOW)} pain in "
        f"the {rng.choice(_WHERE)} {rng.choice(_WHEN)}"
    ]
    drugs = rng.sample(_DRUGS, 2)
    for sentence in (*rng.sample(_FOUND, 4), *rng.sample(_DONE, 3)):
        numbers = {"n": rng.randrange(2, 180), "m": rng.randrange(40, 400)}
        said.append(sentence.format(**numbers, d=drugs[0], e=drugs[1]))
    return ". ".join((*said, _FORM))


def notes(count: int, seed: int) -> list[str]:
    """Notes that nobody copied from others."""
    rng = random.Random(seed)
    return [note(rng) for _ in range(count)]


def edited(text: str, rng: random.Random, every: int = 8) -> str:
    """`text` with another word in the place of each so manieth."""
    words = text.split()
    for place in range(rng.randrange(every), len(words), every):
        words[place] = rng.choice(
            ["however", "moreover", "today", "again", "rather", "also", "then", "still"]
        )
    return " ".join(words)
