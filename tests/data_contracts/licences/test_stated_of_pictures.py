"""What texts beside pictures say of their licence, and what a record under another one is told."""

import pytest

from data_contracts.licences.stated_of_pictures import (
    NOTHING_STATED,
    StatedOfPictures,
    stated_of_pictures,
)


def stated(text: str, *names: str, file: str = "README.md") -> StatedOfPictures:
    return stated_of_pictures({file: text}, names)


@pytest.mark.parametrize(
    ("text", "licences"),
    [
        ("The images are licensed under CC BY 4.0.", ["CC-BY-4.0"]),
        ("Images: CC-BY-SA-3.0", ["CC-BY-SA-3.0"]),
        ("Photos under a Creative Commons license", []),
        ("Photos are under Creative Commons Attribution-ShareAlike 4.0", ["CC-BY-SA-4.0"]),
        ("Photos: Creative Commons Attribution NonCommercial license", ["CC-BY-NC"]),
        ("Icons under <https://creativecommons.org/licenses/by-nc-nd/2.0/>.", ["CC-BY-NC-ND-2.0"]),
        ("Artwork: [CC BY](https://creativecommons.org/licenses/by/3.0/)", ["CC-BY-3.0"]),
        ("Graphics licensed under the Apache License, Version 2.0", ["Apache-2.0"]),
        ("Icons are in the public domain (CC0)", ["CC0-1.0"]),
        ("Code licensed under the MIT License.", []),
        ("Code is MIT licensed. Graphics are licensed under CC-BY 4.0.", ["CC-BY-4.0"]),
        ("Code and images are under the MIT license", ["MIT"]),
        ("The images are not covered by the MIT license, but are CC BY 4.0", ["CC-BY-4.0"]),
        ("Pictures, Copyright Somebody, are not licensed for commercial usage.", []),
        ("Here are images of the MIT campus.", []),
        ("## Images\n\nLicensed under CC BY 4.0.", ["CC-BY-4.0"]),
        ("# Images for everybody\n\n## License\n\nMIT license", []),
        ("The images\nof this set are under\nthe MIT license", ["MIT"]),
        ("- code: MIT license\n- images: license CC BY 4.0", ["CC-BY-4.0"]),
        ("| images | license |\n|---|---|\n| Photos | license: ODbL-1.0 |", ["ODbL-1.0"]),
        ("Some images are under CC BY-NC 4.0, see the column licence", []),
        ("---\nlicense: cc-by-4.0\npretty_name: Images\n---\nHere are images.", []),
        ("---\nlicense: mit\n---\nImages: CC BY 4.0", ["CC-BY-4.0"]),
        ("", []),
    ],
)
def test_sentences_about_pictures(text: str, licences: list[str]) -> None:
    assert [each.licence for each in stated(text).statements] == licences


def test_a_file_about_graphics_is_about_pictures() -> None:
    text = "Attribution 4.0 International\n\nUnder https://creativecommons.org/licenses/by/4.0/"
    assert stated(text, file="LICENSE").statements == ()
    (found,) = stated(text, file="LICENSE-GRAPHICS").statements
    assert str(found) == "LICENSE-GRAPHICS, line 3, says CC-BY-4.0"


FOUR_SETS = """\
# Emoji data

Licences of the image sets:

* Apple images are not licensed for commercial usage.
* Noto images are available under the [Apache License 2.0](https://noto.example/twitter).
* Twitter images are available under the
  [Creative Commons Attribution 4.0 license](https://twemoji.example/LICENSE).
"""


def test_of_several_sets_counts_the_one_that_is_meant() -> None:
    anything = stated(FOUR_SETS, "package")
    assert anything.against("Apache-2.0") is None and anything.against("CC-BY-4.0") is None
    shown = "README.md, line 6, says Apache-2.0; README.md, line 7, says CC-BY-4.0"
    assert anything.against("MIT") == shown
    twitter = stated(FOUR_SETS, "package/img/twitter/64")
    assert twitter.against("Apache-2.0") == "README.md, line 7, says CC-BY-4.0"
    assert twitter.against("CC-BY-4.0") is None


@pytest.mark.parametrize(
    ("text", "record", "agrees"),
    [
        ("Images: CC BY 4.0", "MIT", False),
        ("Images: CC BY 4.0", "cc-by-4.0", True),
        ("Images: CC BY 4.0", "CC-BY-3.0", False),
        ("Images: CC BY 4.0", "CC-BY-SA-4.0", False),
        ("Images: CC BY 4.0", "MIT AND CC-BY-4.0", True),
        ("Images: CC BY 4.0", "NOASSERTION", True),
        ("Images: CC BY 4.0", "LicenseRef-Own", True),
        ("Images: CC BY 4.0", "some words", True),
        ("Images: CC BY license", "CC-BY-3.0", True),
        ("Images: CC BY license", "CC-BY-SA-3.0", False),
        ("Images: GPL license", "GPL-3.0-or-later", True),
        ("Images: BSD license", "MIT", False),
    ],
)
def test_a_record_under_another_licence_is_told(text: str, record: str, agrees: bool) -> None:
    assert (stated(text).against(record) is None) == agrees
    assert NOTHING_STATED.against(record) is None


def test_a_long_text_takes_little_time() -> None:
    text = "images under CC BY 4.0, MIT license; " * 20_000 + "not " * 50_000 + "](" * 50_000
    many = stated(text + "\n\n## " + "](" * 50_000 + "\n\nimages")
    assert many.against("ISC") == "README.md, line 1, says CC-BY-4.0; README.md, line 1, says MIT"
