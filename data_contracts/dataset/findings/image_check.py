"""What one look at the image of an image-text pair finds: whether it may be used, which bytes these
are, and what they state against training.

In order: it can be decoded, its perceptual hash is on no list, and LAION's scores for it stay
within the contract. A missing score is no evidence and refuses nothing: the licence already does
where nothing is known. The file is read once: all of it is about the same bytes.
"""

from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from data_contracts.dataset.contract.terms import ImagePolicy
from data_contracts.dataset.examples import Example
from data_contracts.dataset.image_hashes import ImageHashRegistry, hash_picture, matches
from data_contracts.dataset.pdq import PdqHash
from data_contracts.dataset.pictures.picture_file import UnreadableImage, read_image
from data_contracts.dataset.pictures.stated_rights import stated_opt_outs

UNSAFE_WORDS = frozenset({"nsfw", "unsafe", "true", "1", "yes"})
"""What LAION's NSFW column says of an image that is not fit for work; UNLIKELY and UNSURE pass."""


@dataclass(frozen=True)
class JudgedImage:
    """`refused` is a fixed word: why no pixels were found (`picture_file`), `listed`, `unsafe` or
    `watermark`; None where nothing speaks against the image.

    `sha256` is of the bytes that were looked at (None: there were none), `opt_outs` are phrases.
    """

    refused: str | None
    sha256: str | None = None
    opt_outs: tuple[str, ...] = ()


@dataclass(frozen=True)
class ImageCheck:
    """The contract's image policy with the registry of hashes that it names, if any."""

    policy: ImagePolicy
    registry: ImageHashRegistry | None

    def judge(self, example: Example, path: Path) -> JudgedImage:
        """Of the file at `path`, which `example` is about."""
        data = read_image(path)
        if isinstance(data, UnreadableImage):
            return JudgedImage(_word(data))
        hashed = hash_picture(data)
        refused = self._refusal(example, hashed) if isinstance(hashed, PdqHash) else _word(hashed)
        return JudgedImage(refused, sha256(data).hexdigest(), stated_opt_outs(data))

    def _refusal(self, example: Example, hashed: PdqHash) -> str | None:
        if self.registry is not None and self._is_listed(hashed, self.registry):
            return "listed"
        if (example.nsfw or "").casefold() in UNSAFE_WORDS or self._beyond(
            example.punsafe, self.policy.max_unsafe_per_mille
        ):
            return "unsafe"
        watermarked = self._beyond(example.pwatermark, self.policy.max_watermark_per_mille)
        return "watermark" if watermarked else None

    def _is_listed(self, hashed: PdqHash, registry: ImageHashRegistry) -> bool:
        return matches(hashed, registry, max_distance=self.policy.max_hamming_distance)

    @staticmethod
    def _beyond(score: float | None, per_mille: int) -> bool:
        return score is not None and 1000 * score > per_mille


def _word(unreadable: UnreadableImage) -> str:
    return unreadable.rule.removeprefix("image.")
