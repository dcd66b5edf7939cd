"""One list of checks: the table in docs is generated from it, and each verb asks what the list says."""

from pathlib import Path

from edge.validity import rules

LOGITS_ALONE = {rule.name for rule in rules.RULES if rule.needs == "logits"}
DOCS = Path(__file__).parent.parent / "docs"


def test_the_table_in_docs_is_the_list() -> None:
    assert rules.rules_table() in (DOCS / "validity.md").read_text(encoding="utf-8")


def test_names_are_unique_and_each_verb_asks_what_needs_logits_alone() -> None:
    assert len({rule.name for rule in rules.RULES}) == len(rules.RULES)
    for verb in rules.VERBS:
        assert {rule.name for rule in rules.rules_of(verb)} >= LOGITS_ALONE
