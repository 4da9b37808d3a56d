"""The table of hand-set numbers: what it takes, and what it refuses."""

from __future__ import annotations

from typing import Any

import pytest

from DiffSegLungLib.decision import rules
from DiffSegLungLib.decision.rules import Rule, UnknownRuleError, rule, table_of

FACTS: dict[str, Any] = {
    "name": "emphysema_below",
    "value": -950.0,
    "unit": "HU",
    "stage": "naming",
    "source": "literature: Gevenois 1996, Am J Respir Crit Care Med 154:187",
    "does": "Aerated voxels below it are emphysema.",
}


def made(**changes: Any) -> Rule:
    return Rule(**(FACTS | changes))


def test_every_rule_has_its_own_name_as_key() -> None:
    assert all(name == each.name for name, each in rules.RULES.items())


def test_a_value_is_found_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rules, "RULES", table_of([made(), made(name="share", value=0.5, unit="1")]))
    assert (rule("emphysema_below"), rule("share")) == (-950.0, 0.5)


def test_an_unknown_name_says_what_there_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rules, "RULES", table_of([made()]))
    with pytest.raises(KeyError) as caught:
        rule("emphysema_bellow")
    assert isinstance(caught.value, UnknownRuleError)
    told = "no rule 'emphysema_bellow' in decision/rules.py; there are: emphysema_below"
    assert str(caught.value) == told


@pytest.mark.parametrize("source", ["anatomy", "literature: Hill 1992", "set on P001", "set on P001, cap001"])
def test_sources(source: str) -> None:
    assert made(source=source).source == source


@pytest.mark.parametrize(
    "changes",
    [{"source": ""}, {"source": "tried"}, {"source": "literature:"}, {"source": "literature: "},
     {"source": "set on"}, {"source": "set on P001,"}, {"source": "Anatomy"}, {"name": "Emphysema below"},
     {"name": ""}, {"value": float("nan")}, {"value": float("inf")},
     {"unit": ""}, {"stage": ""}, {"does": ""}],
)  # fmt: skip
def test_what_is_no_rule_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="^rule '"):
        made(**changes)


def test_a_name_stands_once() -> None:
    with pytest.raises(ValueError, match="'emphysema_below' stands twice"):
        table_of([made(), made(value=-940.0)])


def test_a_rule_does_not_change() -> None:
    with pytest.raises(AttributeError):
        made().value = 0.0  # type: ignore[misc]
