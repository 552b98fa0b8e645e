"""`Avatar.decode` of a trained avatar on a CUDA GPU: recorded once, then replayed.

Decoding is some two hundred small kernels, and starting each costs more than it takes to run. A
CUDA graph starts them all at once. What was recorded reads the avatar's tensors where they lay:
`Avatar` forgets it when it is trained again or moved. The plain decode is its readable twin.
"""

from collections.abc import Callable
from dataclasses import fields, replace
from typing import Any, Generic, TypeVar

from jaxtyping import Float
from torch import Tensor

from npga.core.device import recorded
from npga.core.similarity import Similarity

Decoded = TypeVar("Decoded")
"""A dataclass of tensors, or of such dataclasses."""


class RecordedDecode(Generic[Decoded]):
    """A decode under other codes and poses of the same shapes; ours."""

    def __init__(
        self,
        decode: Callable[[Tensor, Similarity, Similarity], Decoded],
        z_exp: Float[Tensor, " e"],
        head: Similarity,
        torso: Similarity,
    ) -> None:
        """Records `decode`, which must not wait for the GPU; tensors on one GPU, no gradients."""
        mine = self._code, self._head, self._torso = _copied(z_exp), _copied(head), _copied(torso)
        self._replay, self._decoded = recorded(lambda: decode(*mine), z_exp.device)

    def __call__(self, z_exp: Float[Tensor, " e"], head: Similarity, torso: Similarity) -> Decoded:
        """As the decode that was recorded; the result is the caller's own."""
        self._code.copy_(z_exp)
        for mine, given in ((self._head, head), (self._torso, torso)):
            mine.scale.copy_(given.scale)
            mine.rotation.copy_(given.rotation)
            mine.translation.copy_(given.translation)
        self._replay()
        return _copied(self._decoded)


def _copied(value: Any) -> Any:  # noqa: ANN401 - a tensor, or a dataclass of such
    if isinstance(value, Tensor):
        return value.clone()
    return replace(value, **{f.name: _copied(getattr(value, f.name)) for f in fields(value)})
