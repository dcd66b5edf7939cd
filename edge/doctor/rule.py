"""One thing that is known not to work, as data."""

from collections.abc import Callable
from dataclasses import dataclass

from edge.doctor.found import Found

Words = Callable[[Found], str]


@dataclass(frozen=True)
class Rule:
    """`when` says whether it holds of a machine, `says` what was found and why it does not work, `fix` the command.

    `explains`: modules whose failing import is no news then. `blocks`: targets that cannot run here until it is mended.
    A `limit` is no fault, only less than there could be; `--strict` lets it pass.
    """

    name: str
    when: Callable[[Found], bool]
    says: Words
    fix: Words
    explains: tuple[str, ...] = ()
    blocks: tuple[str, ...] = ()
    limit: bool = False
