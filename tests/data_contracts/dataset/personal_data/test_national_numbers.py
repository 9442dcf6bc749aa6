"""Check digits of national numbers, against python-stdnum as an oracle.

What python-stdnum takes, ours must take. Ours takes more only where the oracle knows places or
centuries that are not asked for here, and no more than four times as much.
"""

import random
from collections.abc import Callable, Iterator
from importlib import import_module

import pytest

from data_contracts.dataset.personal_data.rule_files import check_named

DIGITS = "0123456789"
LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
TRIED = 1_500

# Ours, the oracle's module, and the form: d a digit, D and M and Y a date, L a letter, else itself.
ORACLES = [
    ("at_vnr", "at.vnr", "ddddDDMMYY"),
    ("be_nn", "be.nn", "YYMMDDddddd"),
    ("bg_egn", "bg.egn", "YYMMDDdddd"),
    ("ch_ahv", "ch.ssn", "756dddddddddd"),
    ("cz_rc", "cz.rc", "YYMMDDdddd"),
    ("de_idnr", "de.idnr", "ddddddddddd"),
    ("ee_ik", "ee.ik", "3YYMMDDdddd"),
    ("ee_ik", "lt.asmens", "4YYMMDDdddd"),
    ("es_dni", "es.dni", "ddddddddL"),
    ("es_dni", "es.nie", "XdddddddL"),
    ("fr_nir", "fr.nir", "1YYMMddddddddddd"[:15]),
    ("fr_spi", "fr.nif", "0dddddddddddd"),
    ("gb_utr", "gb.utr", "dddddddddd"),
    ("gr_amka", "gr.amka", "DDMMYYddddd"),
    ("mod_11_10", "hr.oib", "ddddddddddd"),
    ("ie_pps", "ie.pps", "dddddddL"),
    ("il_id", "il.idnr", "ddddddddd"),
    ("in_aadhaar", "in_.aadhaar", "dddddddddddd"),
    ("jp_my_number", "jp.in_", "dddddddddddd"),
    ("kr_rrn", "kr.rrn", "YYMMDD1dddddd"),
    ("lv_pk", "lv.pvn", "DDMMYY1dddd"),
    ("nl_bsn", "nl.bsn", "ddddddddd"),
    ("no_fnr", "no.fodselsnummer", "DDMMYYddddd"),
    ("pl_pesel", "pl.pesel", "YYMMDDddddd"),
    ("pt_nif", "pt.nif", "1dddddddd"),
    ("ro_cnp", "ro.cnp", "1YYMMDDdddddd"),
    ("ru_inn", "ru.inn", "dddddddddddd"),
    ("si_emso", "si.emso", "DDMM9YYdddddd"),
    ("th_pin", "th.pin", "1dddddddddddd"),
    ("tr_tckn", "tr.tckimlik", "1dddddddddd"),
]
RARE = {"fr_spi"}
LAXER = {"be_nn", "kr_rrn", "no_fnr", "ro_cnp"}


def numbers(form: str, count: int) -> Iterator[str]:
    rng = random.Random(form)
    for _ in range(count):
        day, month, year = rng.randint(1, 28), rng.randint(1, 12), rng.randrange(20, 100)
        text = form.replace("DD", f"{day:02}").replace("MM", f"{month:02}")
        text = text.replace("YY", f"{year:02}")
        yield "".join(
            rng.choice(DIGITS) if c == "d" else rng.choice(LETTERS) if c == "L" else c for c in text
        )


@pytest.mark.parametrize(("name", "module", "form"), ORACLES, ids=lambda value: value)
def test_the_oracle_agrees(name: str, module: str, form: str) -> None:
    ours: Callable[[str], bool] = check_named(name)
    oracle: Callable[[str], bool] = import_module(f"stdnum.{module}").is_valid
    tried = 4 * TRIED if name in RARE else TRIED
    answers = {number: (ours(number), oracle(number)) for number in numbers(form, tried)}
    theirs = [number for number, (_, they) in answers.items() if they]
    more = [number for number, (we, they) in answers.items() if we and not they]
    assert theirs
    assert [number for number in theirs if not answers[number][0]] == []
    assert len(more) <= (3 * len(theirs) if name in LAXER else 0)
