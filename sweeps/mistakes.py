"""Mistakes collected over several checks, so that all of them are told at once."""

from __future__ import annotations

import itertools

from carcls.errors import InputError, SpecError
from sweeps.spec_mistakes import shortened


class Mistakes:
    """What is wrong so far: ``with mistakes:`` around a check notes what it raises, and goes on.

    Attributes:
        found: in the order in which they were found.
    """

    def __init__(self) -> None:
        self.found: list[InputError] = []

    def __enter__(self) -> None:
        """Begin a check."""

    def __exit__(self, _: object, error: BaseException | None, __: object) -> bool:
        """Note the mistake that the check has found."""
        if isinstance(error, InputError):
            self.found.append(error)
        return isinstance(error, InputError)

    def tell(self) -> None:
        """Raise what was found, each sentence once.

        Raises:
            InputError: the only mistake, or all of them as a SpecError.
        """
        if len(self.found) == 1:
            raise self.found[0]
        if self.found:
            several = (error.mistakes if isinstance(error, SpecError) else (str(error),) for error in self.found)
            raise SpecError(shortened(itertools.chain.from_iterable(several)))
