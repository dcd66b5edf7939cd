"""TRADES: accuracy traded for stable predictions (Zhang et al. 2019, eq. 5)."""

from compress.methods.batch import Views
from compress.methods.kl import divergences
from compress.methods.objective import Terms
from compress.methods.options import Trades
from compress.methods.supervised import cross_entropy


def trades(views: Views, options: Trades) -> Terms:
    """CE(S(x), y) + β KL(S(x) ‖ S(x_adv)), nats; x_adv maximises the same divergence from a fixed S(x); β = 6.

    As in the published code, S(x) is in evaluation mode in the attack, and the update follows the gradient through
    both sides of the divergence. Differs from it in the attack's start: uniform in the ball, where the code adds
    1e-3 · N(0, 1).
    """
    logits = views.clean.logits
    terms = {"clean": cross_entropy(logits, views.y, options.label_smoothing)}
    if options.beta:
        terms["stability"] = options.beta * divergences(logits, views.adversarial.logits)
    return terms
