"""presidio-analyzer without a language model, for the texts that the prefilter lets through.

Importing this module takes a second or two, so only the scanner imports it, at the first text that
needs it, and without what Presidio and spaCy would load besides: see `scanner.py`. Nothing here
opens a connection: the engine has no model to download, and domains are judged by the public suffix
list that comes with tldextract.
"""

from collections.abc import Iterator

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
from data_contracts.dataset.personal_data.number_runs import PHONE_CHARACTERS, number_runs
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

_ASKED_CHARACTERS = 64 * 1024
"""Of one text, for one kind, in pieces that may have it: a few seconds of Presidio at most."""

_PIECE, _OVERLAP = 4096, 256
_MOST_FINDS = 10


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
        which a recogniser fails (some cannot read the digits of newer scripts), a word longer than
        _LONGEST_WORD that may be an address, and a text with more candidates than are asked for.
        Long texts are asked for in pieces, until there are _MOST_FINDS.
        """
        found = {kind: self._finds(text, kind) for kind in kinds & PRESIDIO_ENTITIES.keys()}
        return {kind: count for kind, count in sorted(found.items()) if count}

    def count_alone(self, text: str, kinds: frozenset[str]) -> dict[str, int]:
        """Presidio's answer on the whole text, without any help: what `count` is measured by."""
        found = {kind: self._ask(text, kind) for kind in kinds & PRESIDIO_ENTITIES.keys()}
        return {kind: count for kind, count in sorted(found.items()) if count}

    def _finds(self, text: str, kind: str) -> int:
        """Finds of `kind`, in a time that does not grow with the text beyond a bound."""
        if kind == "phone_number":
            return self._finds_among(number_runs(text), kind, PHONE_CHARACTERS)
        pieces = _pieces(text)
        if len(text) > _PIECE:
            may_be = Prefilter(frozenset({kind})).candidates
            pieces = (piece for piece in pieces if may_be(piece))
        return self._finds_among(pieces, kind, _ASKED_CHARACTERS)

    def _finds_among(self, pieces: Iterator[str], kind: str, characters: int) -> int:
        """As many as _MOST_FINDS; one more where `characters` of them do not decide."""
        found = 0
        for piece in pieces:
            characters -= len(piece)
            if characters < 0:
                return found + 1
            found += self._finds_in(piece, kind)
            if found >= _MOST_FINDS:
                break
        return found

    def _finds_in(self, text: str, kind: str) -> int:
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


def _pieces(text: str) -> Iterator[str]:
    """A text of up to _PIECE characters, else parts of it that overlap; what is cut between two
    words is whole in one of them."""
    begin = 0
    while begin + _PIECE < len(text):
        end = text.rfind(" ", begin + _PIECE - _OVERLAP, begin + _PIECE)
        end = end if end > 0 else begin + _PIECE
        yield text[begin:end]
        begin = end - _OVERLAP
        space = text.find(" ", begin, end)
        begin = space if space >= 0 else begin
    yield text[begin:]


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
