"""TRADES: accuracy traded for stable predictions (Zhang et al. 2019, eq. 5)."""

from pydantic import Field

from compress.methods.base import Method, Supervised, Weight
from compress.methods.objective import Terms, Views, stateless
from compress.methods.scores import divergences, from_itself, smoothed_cross_entropy


class Trades(Supervised):
    """Clean cross-entropy and the divergence of predictions under attack."""

    beta: Weight = Field(6.0, description="weight of KL between the predictions on clean and on adversarial images")


def trades(views: Views, options: Trades) -> Terms:
    """CE(S(x), y) + β KL(S(x) ‖ S(x_adv)), nats; x_adv maximises the same divergence from a fixed S(x); β = 6.

    As in the published code, S(x) is in evaluation mode in the attack, and the update follows the gradient through
    both sides of the divergence. Differs from it in the attack's start: uniform in the ball, where the code adds
    1e-3 · N(0, 1); and in that S(x) is one pass, where the code makes a second for the divergence.
    """
    logits = views.clean.logits
    terms = {"clean": smoothed_cross_entropy(logits, views.y, options.label_smoothing)}
    if options.beta:
        terms["stability"] = options.beta * divergences(logits, views.adversarial.logits)
    return terms


METHOD = Method("trades", Trades, stateless(trades, from_itself), teachers=0)
