"""The one table of hand-set numbers that move a label.

    from DiffSegLungLib.decision.rules import rule

    EDGE_HU = rule("emphysema_below")

A number is here once, under the name that code, docs and `evaluate rules` call it by.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

SOURCE = re.compile(r"anatomy|literature: \S.*|set on [^\s,]+(, [^\s,]+)*")


@dataclass(frozen=True)
class Rule:
    """A number that somebody chose.

    Attributes:
        name: lower case, words joined by underscores.
        value: in `unit`.
        unit: ``HU``, ``mm``, ``ml``, ``%``; ``1`` for a share or a factor.
        stage: where it acts: ``lungs``, ``vessels``, ``naming`` and so on.
        source: ``anatomy``, ``literature: REFERENCE``, or ``set on CT, CT``: the cases it was tuned on.
        does: what becomes of a voxel by it, in a sentence.
    """

    name: str
    value: float
    unit: str
    stage: str
    source: str
    does: str

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[a-z][a-z0-9_]*", self.name):
            raise ValueError(f"rule {self.name!r}: a name is lower-case words joined by underscores")
        if not math.isfinite(self.value):
            raise ValueError(f"rule {self.name!r}: {self.value} is no number")
        if not (self.unit and self.stage and self.does):
            raise ValueError(f"rule {self.name!r}: unit, stage and what it does must be told")
        if not SOURCE.fullmatch(self.source):
            raise ValueError(
                f"rule {self.name!r}: {self.source!r} is no source; "
                "give 'anatomy', 'literature: REFERENCE' or 'set on CT, CT'"
            )


class UnknownRuleError(KeyError):
    """No rule has this name."""

    def __str__(self) -> str:
        return str(self.args[0])


def table_of(rules: Iterable[Rule]) -> Mapping[str, Rule]:
    """Rules by name.

    Raises:
        ValueError: two have one name.
    """
    table: dict[str, Rule] = {}
    for each in rules:
        if each.name in table:
            raise ValueError(f"rule {each.name!r} stands twice in the table")
        table[each.name] = each
    return table


RULES: Mapping[str, Rule] = table_of(())
"""Every rule by its name."""


def rule(name: str) -> float:
    """The value of a rule.

    Raises:
        UnknownRuleError: there is none of that name.
    """
    try:
        return RULES[name].value
    except KeyError:
        known = ", ".join(RULES) or "none"
        raise UnknownRuleError(f"no rule {name!r} in decision/rules.py; there are: {known}") from None
