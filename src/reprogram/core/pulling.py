"""What an edit may offer to a neural tangent kernel: its own derivative, in closed form."""

from typing import Protocol, runtime_checkable

from torch import Tensor


@runtime_checkable
class Pulling(Protocol):
    """An edit that can pull a gradient at its output back to its learned numbers, sample by sample.

    Optional: kernels of edits without it go through autograd, which is right for every edit, and slower.
    """

    def pull(self, value: Tensor, cotangent: Tensor) -> tuple[Tensor, Tensor | None]:
        """The gradient of every sample's T outputs with respect to the learned numbers.

        Args:
            value: [B, ...], what went into the edit.
            cotangent: [B, T, ...], gradients of the T outputs at what came out of it.

        Returns:
            Rows [B, T, R], and a factor [B, Q] or None. Without a factor the rows are the gradients (R learned
            numbers, in the order of `parameters()`); with one they are the outer products of each row and the sample's
            factor (R * Q numbers), which are never formed: their Gram matrix is a product of two small ones.
        """
        ...
