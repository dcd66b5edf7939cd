"""DGAD: what the teacher gets wrong is learnt on clean images, its labels put right (Park & Min 2024)."""

from pydantic import Field

from compress.methods.base import Method, Taught, Tensor, Weight, torch
from compress.methods.objective import Terms, Views, stateless
from compress.methods.scores import divergences, from_teacher_there


class Dgad(Taught):
    """Dynamic guidance adversarial distillation."""

    beta: Weight = Field(1.0, description="weight of the squared difference of scores on clean and adversarial images")


def dgad(views: Views, options: Dgad) -> Terms:
    """KL(T̃(x_adv) ‖ S(x_adv)) where T(x) is right, KL(T̃(x) ‖ S(x)) where it is wrong, + β MSE of S's scores, nats.

    T̃: the largest logit and the true one change places (`put_right`). MSE of softmax S(x_adv) and softmax S(x) is a
    mean over classes, as published; β = 1. x_adv maximises KL(T(x') ‖ S(x')). Differs from the published code in the
    attack's start (uniform in the ball, where the code adds 1e-3 · N(0, 1)), passes S(x_adv) before S(x), and follows
    the paper where the code's branch for MobileNet-V2 has its parentheses elsewhere.
    """
    right = (views.taught_clean.logits.argmax(1) == views.y).to(views.x.dtype)
    adversarial = divergences(put_right(views.taught_adversarial.logits, views.y), views.adversarial.logits)
    clean = divergences(put_right(views.taught_clean.logits, views.y), views.clean.logits)
    terms = {"kl_adversarial": right * adversarial, "kl_clean": (1 - right) * clean}
    if options.beta:
        apart = views.adversarial.logits.softmax(1) - views.clean.logits.softmax(1)
        terms["consistency"] = options.beta * apart.square().mean(1)
    return terms


def put_right(logits: Tensor, y: Tensor) -> Tensor:
    """The logits (B,K), a copy, the largest one and that of the label y (B,) swapped: the prediction is y."""
    highest, top = torch.max(logits, 1, keepdim=True)
    true = logits.gather(1, y[:, None])
    return logits.scatter(1, y[:, None], highest).scatter(1, top, true)


METHOD = Method("dgad", Dgad, stateless(dgad, from_teacher_there))
