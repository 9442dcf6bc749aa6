"""Forms of records, one module each: a form is added by its module and its place in `FORMS`."""

from data_contracts.dataset.forms.chat import Chat
from data_contracts.dataset.forms.classification import Classification
from data_contracts.dataset.forms.form import Form
from data_contracts.dataset.forms.image_text import ImageText
from data_contracts.dataset.forms.instruction import Instruction
from data_contracts.dataset.forms.text import PlainText

FORMS: dict[str, Form] = {
    form.name: form for form in (Instruction(), Chat(), Classification(), PlainText(), ImageText())
}
"""By name, in the order in which they are told."""

TRAINED_FORMS = tuple(FORMS)
"""Every one: which family of models trains on which is `protocol.records.model_family.FORMS_OF`."""
