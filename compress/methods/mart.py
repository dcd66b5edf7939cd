"""MART: adversarial training that minds what is misclassified (Wang et al. 2020)."""

from pydantic import Field

from compress.methods.base import Method, MethodOptions, Tensor, Weight, torch
from compress.methods.objective import Terms, Views, stateless
from compress.methods.scores import divergences, from_labels


class Mart(MethodOptions):
    """Misclassification-aware adversarial training."""

    beta: Weight = Field(
        5.0, description="weight of KL between the predictions on clean and on adversarial images (the paper's lambda)"
    )


def mart(views: Views, options: Mart) -> Terms:
    """BCE(S(x_adv), y) + λ (1 − p_y(x)) KL(S(x) ‖ S(x_adv)), nats; x_adv maximises CE(S(x'), y); λ = 5.

    As in the published code, the update follows the gradient through S(x) and p_y(x) as well. Differs from it in the
    attack's start: uniform in the ball, where the code adds 1e-3 · N(0, 1).
    """
    logits = views.clean.logits
    missing = 1 - _of(logits.softmax(1), views.y)
    return {
        "boosted": boosted_cross_entropy(views.adversarial.logits, views.y),
        "stability": options.beta * missing * divergences(logits, views.adversarial.logits),
    }


def boosted_cross_entropy(logits: Tensor, y: Tensor) -> Tensor:
    """−log p_y − log (1 − max_{k ≠ y} p_k) of each image, (B,), for logits (B,K)."""
    log_p = logits.log_softmax(1)
    others = torch.ones_like(log_p, dtype=torch.bool).scatter(1, y[:, None], False)
    runner_up = log_p.masked_fill(~others, -torch.inf).argmax(1)
    kept = torch.ones_like(others).scatter(1, runner_up[:, None], False)
    # log (1 − p) as the logarithm of what the other classes add up to: finite where p rounds to 1
    return -_of(log_p, y) - log_p.masked_fill(~kept, -torch.inf).logsumexp(1)


def _of(rows: Tensor, y: Tensor) -> Tensor:
    return rows.gather(1, y[:, None])[:, 0]


METHOD = Method("mart", Mart, stateless(mart, from_labels), teachers=0)
