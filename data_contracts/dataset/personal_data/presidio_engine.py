"""presidio-analyzer without a language model, for the texts that the prefilter lets through.

Importing this module takes a second or two, so only the scanner imports it, at the first text that
needs it, and without what Presidio and spaCy would load besides: see `scanner.py`. Nothing here
opens a connection: the engine has no model to download, and domains are judged by the public suffix
list that comes with tldextract.
"""

from presidio_analyzer import AnalyzerEngine, EntityRecognizer, RecognizerRegistry
from presidio_analyzer.nlp_engine import NoOpNlpEngine
from presidio_analyzer.predefined_recognizers import (
    CreditCardRecognizer,
    CryptoRecognizer,
    DateRecognizer,
    EmailRecognizer,
    IbanRecognizer,
    IpRecognizer,
    MacAddressRecognizer,
    MedicalLicenseRecognizer,
    NhsRecognizer,
    PhoneRecognizer,
    UrlRecognizer,
    UsItinRecognizer,
    UsSsnRecognizer,
)
from tldextract import TLDExtract

from data_contracts.dataset.personal_data.kinds import PRESIDIO_ENTITIES
from data_contracts.dataset.personal_data.prefilter import (
    PHONE_LENIENCY,
    PHONE_REGIONS,
    Prefilter,
)

SCORE_THRESHOLD = 0.4
_LANGUAGE = "en"
_WITHOUT_SPACES = frozenset({"email_address", "url"})
_LONGEST_WORD = 512
"""Characters of a word that Presidio's patterns for addresses get to see; RFC 5321 allows 254."""


class PresidioEngine:
    """Decides the kinds that Presidio has a recogniser for."""

    def __init__(self) -> None:
        nlp_engine = NoOpNlpEngine(models=[{"lang_code": _LANGUAGE, "model_name": "none"}])
        registry = RecognizerRegistry(recognizers=_recognisers(), supported_languages=[_LANGUAGE])
        self._analyser = AnalyzerEngine(
            registry=registry, nlp_engine=nlp_engine, supported_languages=[_LANGUAGE]
        )

    def count(self, text: str, kinds: frozenset[str]) -> dict[str, int]:
        """Finds for each of `kinds` in `text`; a kind without any is left out.

        What could not be looked at is not free of personal data and counts as one find: a text on
        which a recogniser fails (some cannot read the digits of newer scripts), and a word longer
        than _LONGEST_WORD that may be an address.
        """
        found = {kind: self._finds(text, kind) for kind in kinds & PRESIDIO_ENTITIES.keys()}
        return {kind: count for kind, count in sorted(found.items()) if count}

    def count_alone(self, text: str, kinds: frozenset[str]) -> dict[str, int]:
        """Presidio's answer on the whole text, without any help: what `count` is measured by."""
        found = {kind: self._ask(text, kind) for kind in kinds & PRESIDIO_ENTITIES.keys()}
        return {kind: count for kind, count in sorted(found.items()) if count}

    def _finds(self, text: str, kind: str) -> int:
        if kind not in _WITHOUT_SPACES:
            return self._ask(text, kind)
        # Neither pattern takes a space, so the words have what the text has. The time for an e-mail
        # address grows with the square of a word, and after a minute Presidio would skip it.
        may_be_address = Prefilter(frozenset({kind})).candidates
        words = [word for word in text.split() if may_be_address(word)]
        short = [word for word in words if len(word) <= _LONGEST_WORD]
        return sum(self._ask(word, kind) for word in short) + len(words) - len(short)

    def _ask(self, text: str, kind: str) -> int:
        entity = PRESIDIO_ENTITIES[kind]
        try:
            found = self._analyser.analyze(
                text, language=_LANGUAGE, entities=[entity], score_threshold=SCORE_THRESHOLD
            )
        except ValueError:
            return 1
        return len(found)


class _OfflineEmailRecognizer(EmailRecognizer):  # type: ignore[misc] # Presidio is untyped here
    """The address must end in a public suffix, by the list in the package and no newer one."""

    _extract = TLDExtract(cache_dir=None, suffix_list_urls=())

    def validate_result(self, pattern_text: str) -> bool:
        return bool(self._extract(pattern_text).fqdn)


def _recognisers() -> list[EntityRecognizer]:
    return [
        _OfflineEmailRecognizer(),
        PhoneRecognizer(supported_regions=PHONE_REGIONS, leniency=PHONE_LENIENCY),
        UsSsnRecognizer(),
        UsItinRecognizer(),
        CreditCardRecognizer(),
        IbanRecognizer(),
        IpRecognizer(),
        MacAddressRecognizer(),
        UrlRecognizer(),
        CryptoRecognizer(),
        MedicalLicenseRecognizer(),
        NhsRecognizer(),
        DateRecognizer(),
    ]
