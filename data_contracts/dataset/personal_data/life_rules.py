"""Where a person lives, when they were born, and whether they are over 89.

Ages over 89 and geographic subdivisions smaller than a state are named in 45 CFR 164.514(b)(2)(i);
an age ends at 125, since what is older is a building or a treaty.
"""

import re

from data_contracts.dataset.personal_data.rule import Rule

_OVER_89 = r"(?:9[0-9]|1[01][0-9]|12[0-5])"
_SPELLED = r"(?:ninety(?:[- ](?:one|two|three|four|five|six|seven|eight|nine))?|one hundred)"
_NOT_YEARS = r"(?![0-9.,]?[0-9]|[ -]?(?:days?|weeks?|months?|hours?|minutes?|per\b|%|/))"

_STREET_WORD = (
    r"(?:[A-Z][A-Za-z'\u2019.]{0,20}|[0-9]{1,3}(?:st|nd|rd|th)"
    r"|(?:de|du|des|la|le|of|the|y)) "
)
_STREET_KIND = (
    r"(?:Street|St|Avenue|Ave|Road|Rd|Boulevard|Blvd|Lane|Ln|Drive|Dr|Court|Ct|Place|Pl|Square|Sq"
    r"|Terrace|Parkway|Pkwy|Highway|Hwy|Circle|Crescent|Close|Way|Row|Alley|Mews|Turnpike)"
)
_YEAR_BEFORE = re.compile(
    r"\b(?:(?i:in|of|since|by|from|until|before|after|during|the|early|late|year|to|and)"
    r"|[A-Z][a-z]{2,8}\.?|[0-9]{1,2}(?:st|nd|rd|th)?,) $|\b[12][0-9]{3}-$"
)
_STATES = (
    "AL|AK|AZ|AR|CA|CO|CT|DE|DC|FL|GA|HI|ID|IL|IN|IA|KS|KY|LA|ME|MD|MA|MI|MN|MS|MO|MT|NE|NV|NH|NJ"
    "|NM|NY|NC|ND|OH|OK|OR|PA|PR|RI|SC|SD|TN|TX|UT|VT|VA|WA|WV|WI|WY"
)
_STATE_NAMES = (
    "Alabama|Alaska|Arizona|Arkansas|California|Colorado|Connecticut|Delaware|Florida|Georgia"
    "|Hawaii|Idaho|Illinois|Indiana|Iowa|Kansas|Kentucky|Louisiana|Maine|Maryland|Massachusetts"
    "|Michigan|Minnesota|Mississippi|Missouri|Montana|Nebraska|Nevada|New Hampshire|New Jersey"
    "|New Mexico|New York|North Carolina|North Dakota|Ohio|Oklahoma|Oregon|Pennsylvania"
    "|Rhode Island|South Carolina|South Dakota|Tennessee|Texas|Utah|Vermont|Virginia|Washington"
    "|West Virginia|Wisconsin|Wyoming"
)
_ZIP = r"[0-9]{5}(?:-[0-9]{4})?(?![0-9A-Za-z-])(?!,[0-9]|\.[0-9])"


def _house_not_year(match: re.Match[str]) -> bool:
    """A number like 1929 is a year where a word before it says so ("in 1929 Wall Street")."""
    number = match["number"]
    if len(number) != 4 or not 1500 <= int(number) <= 2099:
        return True
    before = match.string[max(0, match.start() - 16) : match.start()]
    return _YEAR_BEFORE.search(before) is None


LIFE_RULES = (
    Rule(
        "age_over_89",
        ("old", "age", "y/o", "yo", "years"),
        re.compile(
            rf"(?<![0-9A-Za-z.,$])(?<![A-Za-z]-){_OVER_89}(?:[ -]years?[ -]old\b|[ ]years? of age\b"
            r"|[ ]?y/o\b|[ -]?yo\b)",
            re.IGNORECASE,
        ),
    ),
    Rule(
        "age_over_89",
        ("age",),
        re.compile(
            r"\b(?<!to )(?<!beyond )(?<!until )(?:aged|age(?: of| is|d at)?[ ]?[:=]?)[ ]{1,3}"
            rf"{_OVER_89}{_NOT_YEARS}",
            re.IGNORECASE,
        ),
    ),
    Rule(
        "age_over_89",
        ("ninety", "one hundred"),
        re.compile(
            rf"\b(?:aged {_SPELLED}\b(?![ -]?(?:days|months|weeks))"
            rf"|{_SPELLED}(?:[ -]years?[ -]old\b|[ ]years of age\b))",
            re.IGNORECASE,
        ),
        needs_digit=False,
    ),
    Rule(
        "date_of_birth",
        ("birth", "dob", "d.o.b"),
        re.compile(
            r"\b(?:date of birth|birth ?date|birthday|DOB|D\.O\.B\.?)[ ]{0,2}(?:is\b|was\b)?"
            r"[ ]{0,2}[:=]?[ ]{0,3}(?:[0-9]{1,4}[/.\- ][0-9A-Za-z]{1,9}[/.\- ]?,?[ ]?[0-9]{2,4}"
            r"|[A-Z][a-z]{2,8}\.? [0-9]{1,2}(?:st|nd|rd|th)?,? [0-9]{4})",
            re.IGNORECASE,
        ),
    ),
    Rule(
        "street_address",
        (),
        re.compile(
            rf"(?<![0-9A-Za-z.,$/])(?<![A-Za-z]-)(?P<number>[0-9]{{1,6}})[A-Za-z]? "
            rf"(?:{_STREET_WORD}){{1,4}}?{_STREET_KIND}\b"
        ),
        _house_not_year,
    ),
    Rule(
        "street_address",
        ("box",),
        re.compile(r"\b(?:P\.? ?O\.?|Post Office) ?Box (?:No\.? )?[0-9]{1,7}\b", re.IGNORECASE),
    ),
    Rule(
        "street_address",
        ("stra\u00dfe", "strasse"),
        re.compile(
            r"\b[A-Z\u00c4\u00d6\u00dc][A-Za-z\u00c4\u00d6\u00dc\u00e4\u00f6\u00fc\u00df-]{1,30}"
            r"(?:(?<=stra\u00dfe)|(?<=strasse)) [0-9]{1,4}[a-z]?\b"
        ),
    ),
    Rule(
        "zip_code",
        (),
        re.compile(rf"(?<![A-Za-z])(?:{_STATES})(?:\.|,)?[ ]{{1,3}}{_ZIP}"),
    ),
    Rule(
        "zip_code",
        (),
        re.compile(rf", (?:{_STATE_NAMES}),?[ ]{{1,3}}{_ZIP}"),
    ),
    Rule(
        "zip_code",
        ("zip", "postal code"),
        re.compile(
            r"\b(?:zip(?:[ +]?code)?|postal code)[ ]{0,2}(?:is\b)?[ ]{0,2}[:=]?[ ]{0,3}"
            rf"{_ZIP}",
            re.IGNORECASE,
        ),
    ),
)
