"""Why the image of an image-text pair may not be used, as one fixed word, or None.

In order: it can be decoded, its perceptual hash is on no list, and LAION's scores for it stay
within the contract. A missing score is no evidence and refuses nothing: the licence already does
where nothing is known.
"""

from dataclasses import dataclass

from data_contracts.dataset.contract.terms import ImagePolicy
from data_contracts.dataset.examples import Example
from data_contracts.dataset.image_hashes import ImageHashRegistry, hash_image, matches
from data_contracts.dataset.pdq import PdqHash

UNSAFE_WORDS = frozenset({"nsfw", "unsafe", "true", "1", "yes"})
"""What LAION's NSFW column says of an image that is not fit for work; UNLIKELY and UNSURE pass."""


@dataclass(frozen=True)
class ImageCheck:
    """The contract's image policy with the registry of hashes that it names, if any."""

    policy: ImagePolicy
    registry: ImageHashRegistry | None

    def refusal(self, example: Example) -> str | None:
        """`unreadable`, `listed`, `unsafe`, `watermark`, or None."""
        if example.image is None:
            return "unreadable"
        hashed = hash_image(example.image)
        if not isinstance(hashed, PdqHash):
            return "unreadable"
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
