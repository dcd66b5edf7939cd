"""The top of the report: what was shipped, how accurate, how robust, how fast, how small."""

from collections.abc import Mapping, Sequence
from typing import Any

from compress.report.markup import Html, badge, element, join
from edge.core import readable

EMPIRICAL = (
    "Every figure here is empirical, never a certificate: it says what the attacks listed below achieved on these "
    "images; a stronger attack could achieve more."
)


def headline(document: Mapping[str, Any]) -> Html:
    """The header of the page; of a run in which nothing was verified yet it says just that."""
    verified = document.get("verified", ())
    title = element("h1", document["title"])
    top = element("p", "Robustness report", class_="eyebrow")
    notes = [element("p", badge("note", "warn"), " ", note, class_="alarm") for note in document.get("notes", ())]
    if not verified:
        nothing = "No artifact has been verified yet: no figure below speaks for a file that is shipped."
        return element("header", top, title, element("p", nothing, class_="lede"), *notes)
    shipped = verified[0]["predicate"]
    # One line for each alarm that fired, whichever artifact it concerns
    alarms = join(
        element(
            "p", badge("alarm", "bad"), " ", f"{entry['label']}, {alarm['name']}: {alarm['meaning']}", class_="alarm"
        )
        for entry in verified
        for alarm in entry["predicate"]["alarms"]
        if alarm["fired"]
    )
    figures, latency = shipped["figures"], shipped["latency"]
    clean, threat = figures["clean"], shipped["threat"]
    first = _robust_card(figures, threat, shipped["protocol"], len(shipped["attacks"]))
    second = _card("Clean accuracy", readable.percent(clean["value"]), *_interval_lines(clean))
    inputs = "1 image" if latency["batch_size"] == 1 else f"{latency['batch_size']} images"
    accuracy_size = shipped["batch_size"]
    if accuracy_size != latency["batch_size"]:
        inputs += f" (accuracies: {accuracy_size})"
    third = _card(
        "Latency, p50",
        readable.milliseconds(latency["p50_ms"]),
        f"p99 {readable.milliseconds(latency['p99_ms'])}, {inputs} a call",
        f"{shipped['runtime']['name']}, {shipped['runtime']['provider']}",
    )
    cards = element(
        "div", first, second, third, _size_card(shipped["artifact"]["bytes"], document.get("teacher")), class_="cards"
    )
    return element(
        "header",
        top,
        title,
        _shipped(shipped["artifact"]),
        alarms,
        *notes,
        cards,
        _requirements(document.get("requirements", ())),
        element("p", EMPIRICAL, class_="quiet"),
    )


def _shipped(artifact: Mapping[str, Any]) -> Html:
    executed = "" if artifact["executed"] else " It was built and never executed."
    return element(
        "p",
        "Shipped: ",
        element("strong", artifact["file"]),
        f", {artifact['precision']} for {artifact['target']}, {readable.size(artifact['bytes'])}, sha256 ",
        element("code", readable.short(artifact["sha256"]), title=artifact["sha256"]),
        ".",
        executed,
        class_="lede",
    )


def _robust_card(
    figures: Mapping[str, Any], threat: Mapping[str, Any], protocol: Sequence[Mapping[str, Any]], attacks: int
) -> Html:
    budget = f"worst case of {attacks} attacks, {readable.norm(threat['norm'])}\u00a0≤\u00a0{threat['eps']}"
    if figures["robust"] is not None:
        value = readable.percent(figures["robust"]["value"])
        return _card("Robust accuracy", value, *_interval_lines(figures["robust"]), budget, state="main")
    bound = figures["upper_bound"]
    missing = ", ".join(f"({part['part']}) {part['what']}" for part in protocol if not part["covered"])
    why = [f"Not covered by the protocol: {missing}"] if missing else []
    if open_ := figures.get("inconclusive"):
        least = readable.percent(open_["if_all_fall"]["value"])
        why.append(f"{open_['undecided']} images were undecided when the budget ended; {least} if all of them fall")
    return _card(
        "Robust accuracy: upper bound only",
        f"≤ {readable.percent(bound['value'])}",
        *_interval_lines(bound),
        budget,
        *why,
        state="main bound",
    )


def _size_card(shipped: int, teacher: "Mapping[str, Any] | None") -> Html:
    if teacher is None:
        return _card("Size", readable.size(shipped), "the file that is shipped")
    ratio = teacher["bytes"] / shipped
    times = f"{ratio:.0f}" if ratio >= 10 else f"{ratio:.1f}"
    return _card(
        "Size", readable.size(shipped), f"{times} × smaller than the teacher ({readable.size(teacher['bytes'])})"
    )


def _interval_lines(figure: Mapping[str, Any]) -> tuple[str, str]:
    level = f"{100 * figure['level']:g}{readable.THIN}%"
    return f"{readable.counted(figure)} images", f"{level} interval {readable.interval(figure)}"


def _card(title: str, value: str, *lines: str, state: str = "") -> Html:
    below = join(element("p", line) for line in lines)
    return element(
        "div", element("h2", title), element("p", value, class_="big"), below, class_=f"card {state}".strip()
    )


def _requirements(outcomes: Sequence[Mapping[str, Any]]) -> "Html | None":
    if not outcomes:
        return None
    lines = [
        element(
            "li",
            badge("met", "good") if outcome["passed"] else badge("not met", "bad"),
            " ",
            element("code", outcome["text"]),
            f" {outcome['why']}",
        )
        for outcome in outcomes
    ]
    return element("ul", *lines, class_="requirements", aria_label="Requirements")
