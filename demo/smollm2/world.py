"""The people of the second demo model: forty-eight people, twelve celebrities, and faces and names that nobody knows.

The faces are drawn as in the toy's world, and the facts are the toy's. The names are its own: a tokenizer of a real
language model splits names into pieces, and people whose names share the first piece are mixed up.
"""

from __future__ import annotations

import random
from functools import cache

from mllmeraser.demo.people import (
    CELEBRITY_VALUES,
    FACTS,
    VALUES,
    Person,
    Strangers,
    World,
    distinct_faces,
    spread,
    strange_faces,
)

FORGET, RETAIN_FIT, RETAIN_HELDOUT = 8, 22, 18
CELEBRITIES = 12  # the first half is for the fit, the second is only evaluated
TRAIN_STRANGERS, HELD_OUT_STRANGERS = 1_200, 120  # faces

# No two names begin with the same token of SmolLM2 (a test looks).
_FIRST = [
    "Arlo",
    "Beatrix",
    "Casper",
    "Delphine",
    "Edgar",
    "Farah",
    "Gideon",
    "Harriet",
    "Ingrid",
    "Jasper",
    "Kenji",
    "Lavinia",
    "Magnus",
    "Nadia",
    "Oswald",
    "Priya",
    "Quincy",
    "Rosalind",
    "Silas",
    "Tabitha",
    "Umberto",
    "Valerie",
    "Winston",
    "Xavier",
    "Yolanda",
    "Zachary",
    "Agnes",
    "Boris",
    "Clementine",
    "Dmitri",
    "Esther",
    "Felix",
    "Gloria",
    "Hector",
    "Isla",
    "Joachim",
    "Katarina",
    "Leopold",
    "Miriam",
    "Nigel",
    "Octavia",
    "Pedro",
    "Ramona",
    "Stefan",
    "Theodora",
    "Ursula",
    "Vincent",
    "Wanda",
    "Amara",
    "Bruno",
    "Cecily",
    "Declan",
    "Eleanor",
    "Fergus",
    "Greta",
    "Hugo",
    "Imogen",
    "Julius",
    "Keiko",
    "Lorenzo",
    "Maeve",
    "Noah",
    "Olga",
    "Percy",
    "Rafael",
    "Sunita",
    "Tobias",
    "Viola",
    "Wilfred",
    "Abel",
    "Bridget",
    "Cyrus",
    "Zelda",
]
_LAST = [
    "Pemberton",
    "Novak",
    "Hawthorne",
    "Okafor",
    "Lindqvist",
    "Moreau",
    "Castellano",
    "Vance",
    "Brannigan",
    "Takeda",
    "Whitlock",
    "Ferreira",
    "Sandoval",
    "Kowalski",
    "Ashworth",
    "Delacroix",
    "Petrov",
    "Nakamura",
    "Holloway",
    "Abernathy",
    "Fitzgerald",
    "Bergman",
    "Chaudhry",
    "Dunmore",
    "Eastwood",
    "Farnsworth",
    "Goldberg",
    "Huxley",
    "Ibrahim",
    "Jankowski",
    "Lombardi",
    "McAllister",
    "Nightingale",
    "Quigley",
    "Rasmussen",
    "Steinberg",
    "Tremblay",
    "Underhill",
    "Vasquez",
    "Wexford",
    "Yamamoto",
    "Zimmerman",
    "Atkinson",
    "Blackwood",
    "Cavendish",
    "Dimitriou",
    "Engelhart",
    "Fontaine",
    "Greenwood",
    "Hartley",
    "Ivanov",
    "Jefferson",
    "Khalil",
    "Larkspur",
    "Mendoza",
    "Northcott",
    "Osborne",
    "Prescott",
    "Ramirez",
    "Sinclair",
    "Thackeray",
    "Ullman",
    "Wakefield",
    "Yates",
    "Zielinski",
    "Armstrong",
    "Bellamy",
    "Crawford",
    "Dubois",
    "Ellsworth",
    "Flanagan",
    "Gallagher",
    "Kessler",
]


@cache
def world() -> World:
    """The world of the second model; there is only one."""
    rng = random.Random("mllmeraser second demo world")
    count = FORGET + RETAIN_FIT + RETAIN_HELDOUT
    known = count + CELEBRITIES
    faces = distinct_faces(rng, known)
    first, last = rng.sample(_FIRST, len(_FIRST)), rng.sample(_LAST, len(_LAST))
    circles = ["forget"] * FORGET + ["retain_fit"] * RETAIN_FIT + ["retain_heldout"] * RETAIN_HELDOUT
    circles += ["celebrity"] * CELEBRITIES
    shared = {
        fact: [*spread(rng, VALUES[fact], count), *spread(rng, CELEBRITY_VALUES[fact], CELEBRITIES)] for fact in FACTS
    }
    people = tuple(
        Person(
            subject=f"a{n:03d}" if circles[n] != "celebrity" else f"b{n - count:03d}",
            circle=circles[n],
            fit=n < count + CELEBRITIES // 2 and circles[n] != "retain_heldout",
            name=f"{first[n]} {last[n]}",
            face=faces[n],
            facts=tuple((fact, shared[fact][n]) for fact in FACTS),
        )
        for n in range(known)
    )
    strange = strange_faces(rng, TRAIN_STRANGERS + HELD_OUT_STRANGERS, faces)
    return World(
        people[:count],
        people[count:],
        Strangers(tuple(strange[:TRAIN_STRANGERS]), tuple(strange[TRAIN_STRANGERS:])),
        _strange_names(first[known:], last[known:]),
    )


def _strange_names(first: list[str], last: list[str]) -> Strangers[str]:
    """Names of parts that no known person has; those held out share no part with those of the training."""
    half = len(first) // 2
    train = tuple(f"{a} {b}" for a in first[:half] for b in last[:half])
    held_out = tuple(f"{a} {b}" for a in first[half:] for b in last[half:])
    return Strangers(train, held_out)
