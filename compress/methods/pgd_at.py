"""PGD-AT: adversarial training (Madry et al. 2018)."""

from pydantic import Field

from compress.methods.base import Method, Share, Supervised
from compress.methods.objective import Terms, Views, stateless
from compress.methods.scores import from_labels, smoothed_cross_entropy


class PgdAt(Supervised):
    """Adversarial training."""

    clean_weight: Share = Field(0.0, description="share of clean cross-entropy, the rest adversarial")


def pgd_at(views: Views, options: PgdAt) -> Terms:
    """PGD-AT (Madry et al. 2018, eq. 2.1): cross-entropy on the images that maximise it, nats.

    (1 − w) CE(S(x_adv), y) + w CE(S(x), y), w = `clean_weight`, 0 in the paper.
    """
    weight, smoothing = options.clean_weight, options.label_smoothing
    terms = {"adversarial": (1 - weight) * smoothed_cross_entropy(views.adversarial.logits, views.y, smoothing)}
    if weight:
        terms["clean"] = weight * smoothed_cross_entropy(views.clean.logits, views.y, smoothing)
    return terms


METHOD = Method("pgd-at", PgdAt, stateless(pgd_at, from_labels), teachers=0)
