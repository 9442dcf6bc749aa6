"""Which form a contract's records have: the fields say it, and where they do not, the terms."""

import pytest

from data_contracts.dataset.contract import parse_contract
from data_contracts.dataset.contract.difference import difference
from data_contracts.dataset.contract.summary import summary
from data_contracts.dataset.forms import FORMS, TRAINED_FORMS
from data_contracts.errors import DataStewardError
from data_contracts.protocol.records.model_family import FORMS_OF
from tests.data_contracts.dataset.contract_samples import CONTRACT, replaced
from tests.data_contracts.dataset.forms.form_samples import (
    ANSWER,
    CHAT,
    CLASSES,
    LABEL,
    MESSAGES,
    PLAIN,
    PROMPT,
    TEXT,
    form_contract,
)

NAMED = "{property: fl.form, value: text}"


@pytest.mark.parametrize(
    ("text", "form"),
    [
        (CONTRACT, "instruction"),
        (replaced((ANSWER, ANSWER + LABEL)), "instruction"),
        (CHAT, "chat"),
        (form_contract(MESSAGES.replace("array", "string")), "chat"),
        (PLAIN, "text"),
        (form_contract(TEXT + LABEL, NAMED), "text"),
        (CLASSES, "classification"),
        (
            form_contract(TEXT + LABEL, "{property: fl.classes, value: ['yes', 'no']}"),
            "classification",
        ),
    ],
)
def test_the_mapped_fields_say_the_form(text: str, form: str) -> None:
    contract = parse_contract(text.encode(), "c.yaml")
    assert contract.source.record_form.name == form
    assert dict(summary(contract))["records"].startswith(f"{form}: ")


REFUSED = {
    "two forms": (form_contract(PROMPT + ANSWER + MESSAGES), "fields of one form", "messages"),
    "a prompt with text": (form_contract(PROMPT + TEXT), "fields of one form", "prompt, text"),
    "an answer alone": (form_contract(ANSWER), "each field once", "no prompt"),
    "nothing to learn": (form_contract(LABEL), "each field once", "no answer, prompt"),
    "text with a label": (form_contract(TEXT + LABEL), "fl.classes, the classes", "either"),
    "classes without a label": (
        form_contract(TEXT, "{property: fl.classes, value: [a, b]}"),
        "each field once",
        "no label",
    ),
    "classes of answers": (
        form_contract(PROMPT + ANSWER, "{property: fl.classes, value: [a, b]}"),
        "text and label, whose classes they are",
        "answer, prompt",
    ),
    "another form than the fields": (
        form_contract(MESSAGES, NAMED),
        "chat, the form of the mapped fields",
        "text",
    ),
    "classification without classes": (
        form_contract(TEXT + LABEL, "{property: fl.form, value: classification}"),
        "fl.classes names them",
        "classification",
    ),
    "an unknown form": (
        form_contract(TEXT, "{property: fl.form, value: poem}"),
        "a value of its kind",
        "expected one of instruction, chat, classification, text",
    ),
    "one class": (
        form_contract(TEXT + LABEL, "{property: fl.classes, value: {'0': a, '1': a}}"),
        "a value of its kind",
        "two or more classes",
    ),
    "classes that are no words": (
        form_contract(TEXT + LABEL, "{property: fl.classes, value: [true, false]}"),
        "a value of its kind",
        "two or more classes",
    ),
    "a class twice": (
        form_contract(TEXT + LABEL, "{property: fl.classes, value: [a, b, a]}"),
        "a value of its kind",
        "each class once",
    ),
    "a blank class": (
        form_contract(TEXT + LABEL, "{property: fl.classes, value: [a, '\u200b']}"),
        "a value of its kind",
        "without spaces around it",
    ),
    "messages as a number": (
        form_contract(MESSAGES.replace("array", "integer")),
        "array",
        "integer",
    ),
    "a rule over prompts of plain text": (
        PLAIN.replace("column: answer_characters", "column: prompt_characters"),
        "answer_characters: records of plain text have no prompt",
        "prompt_characters",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_may_be_either_or_neither_is_refused(case: str) -> None:
    text, expected, found = REFUSED[case]
    with pytest.raises(DataStewardError) as caught:
        parse_contract(text.encode(), "c.yaml")
    assert expected in caught.value.expected
    assert found in caught.value.found


def test_a_change_of_form_or_classes_is_told_and_loosens() -> None:
    before = parse_contract(CLASSES.encode(), "c.yaml")
    other = parse_contract(CLASSES.replace("admitted", "kept").encode(), "c.yaml")
    plain = form_contract(TEXT + LABEL, NAMED)
    changes = {c.path: c for c in difference(before, parse_contract(plain.encode(), "c.yaml"))}
    assert changes["source.form"].before == "classification"
    assert changes["source.form"].effect == "loosens"
    assert "classes" in {path.partition(".")[0] for path in changes}
    assert [change.path for change in difference(before, other)] == ["classes.1"]


def test_every_form_trains_some_family_of_models() -> None:
    of_families = {form for forms in FORMS_OF.values() for form in forms}
    assert of_families == set(TRAINED_FORMS) == set(FORMS)
