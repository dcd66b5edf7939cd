"""The report: one HTML file that needs nothing beside it, no network and no script. Standard library and numpy.

A document is a mapping, every key but `title` optional; a section without data is left out.

    title         what the report is about: the run's name
    notes         sentences that belong at the top, such as that a stage was made anew since
    requirements  [{text, passed, why}]
    teacher       {bytes, parameters}: what the shipped file is compared with
    stages        [{label, detail, parameters, bytes, clean, pgd, pgd_steps, worst, bound, how}], clean, pgd and worst
                  each a FIGURE or None; `bound` marks `worst` as an upper bound
    verified      [{label, predicate, samples_ns, images, watched}], the shipped artifact first: the statement's
                  predicate, raw latencies, images as `page_images.choose` returns them, samples of the machine
    matrix        {attacks, models, n, robust (A, M), clean (M,), worst (M,)}: shares in [0, 1]
    analysis      {eps, n, steps, figure, models, across_models}: figure an image's address, models [{label, clean,
                  robust, variance_gap, variance, image_gram_gap, image_gram}], correlations as in `analysis.json`
    training      [{label, detail, clean, pgd, best_epoch}], clean and pgd [(epoch, share)]
    provenance    [{stage, identity, seed, finished, seconds, machine, command, versions}], all but two optional
    facts         {name: value}: the data and the threat

FIGURE = {value, count, n, interval, level}, as in the statement. The same document gives the same bytes.
"""

from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from compress.report.markup import Html, element
from compress.report.page_accuracy import by_attack, by_stage
from compress.report.page_analysis import analysis
from compress.report.page_device import device
from compress.report.page_evidence import latency, protocol
from compress.report.page_headline import headline
from compress.report.page_images import choose_images, images
from compress.report.page_origin import provenance, training
from edge.core import artifact
from edge.evidence.samples import FILE, Samples

REPORT = "report.html"
SECTIONS = {
    "stages": ("Stages", by_stage),
    "attacks": ("Attacks", by_attack),
    "protocol": ("Protocol", protocol),
    "latency": ("Latency", latency),
    "device": ("Machine", device),
    "images": ("Images", images),
    "analysis": ("Variance gap", analysis),
    "training": ("Training", training),
    "provenance": ("Provenance", provenance),
}


def render(document: Mapping[str, Any]) -> str:
    """The document as one HTML page; everything in it that is not markup is escaped."""
    parts = {anchor: write(document) for anchor, (_, write) in SECTIONS.items()}
    links = [element("a", SECTIONS[anchor][0], href=f"#{anchor}") for anchor, part in parts.items() if part is not None]
    style = Html(resources.files("compress.report").joinpath("page.css").read_text(encoding="utf-8"))
    head = element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("meta", name="color-scheme", content="light dark"),
        element("title", f"{document['title']}: robustness report"),
        element("style", style),
    )
    body = element(
        "body", headline(document), element("nav", *links, aria_label="Sections"), element("main", *parts.values())
    )
    return f"<!doctype html>\n{element('html', head, body, lang='en')}\n"


def verified_entry(
    label: str,
    statement: Mapping[str, Any],
    samples_ns: "npt.NDArray[np.int64]",
    evidence: "Mapping[str, Any] | None" = None,
    watched: "Samples | None" = None,
) -> dict[str, Any]:
    """One of `verified`: `samples_ns` (n,) raw latencies, `evidence` as `page_images.choose` takes it.

    `watched`: what was sampled of the machine.
    """
    entry = {"label": label, "predicate": statement["predicate"], "samples_ns": samples_ns}
    return {**entry, "images": [] if evidence is None else choose_images(evidence), "watched": watched}


def watched(folder: Path) -> "Samples | None":
    """What was sampled of the machine, from a verified folder; None of one that was made without."""
    path = Path(folder) / FILE
    return Samples.read(path) if path.is_file() else None


def artifact_name(statement: Mapping[str, Any]) -> str:
    """What an artifact is called in the report: `onnx int8`."""
    shipped = statement["predicate"]["artifact"]
    return f"{shipped['target']} {shipped['precision']}"


def stated_facts(statement: Mapping[str, Any]) -> dict[str, Any]:
    """The data and the threat that a statement speaks of."""
    data, threat = statement["predicate"]["data"], statement["predicate"]["threat"]
    return {
        "data": data["name"],
        "split": data["split"],
        "images": data["n"],
        "data fingerprint": data["fingerprint"],
        "norm": threat["norm"],
        "eps": threat["eps"],
        "radius on the 8-bit grid": threat["grid_radius"],
        "eps applied to": threat["applied_to"],
    }


def write_verified(
    folder: Path,
    statement: Mapping[str, Any],
    samples_ns: "npt.NDArray[np.int64]",
    evidence: "Mapping[str, Any] | None" = None,
) -> Path:
    """`folder/report.html` from a statement alone, no other stage needed: what a board can write by itself.

    `statement` is the whole of `statement.json`, `samples_ns` int64 (n,) the raw latencies; `evidence` the images and
    verdicts as `page_images.choose` takes them, or None for a report without images.
    """
    predicate = statement["predicate"]
    document = {
        "title": f"{predicate['artifact']['file']}, {artifact_name(statement)}",
        "verified": [verified_entry(artifact_name(statement), statement, samples_ns, evidence, watched(folder))],
        "provenance": predicate["lineage"],
        "facts": {**stated_facts(statement), "seed": predicate["seed"], "versions": predicate["versions"]},
    }
    path = Path(folder) / REPORT
    artifact.write_atomic(path, render(document))
    return path
