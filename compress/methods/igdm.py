"""IGDM: the teacher's gradient by the image, matched through differences of logits (Lee et al. 2023)."""

from pydantic import Field

from compress.methods.base import Added, Host, Method, Tensor, Weight
from compress.methods.objective import Addition, Terms, Views
from compress.methods.scores import divergences

HOST = "adaad"


class Igdm(Added):
    """Indirect gradient matching."""

    host: Host = Field(HOST, description="the method that this one is added to")
    alpha: Weight = Field(1.0, description="weight at the end of the run, rising from 0; 10 for 100 classes or more")


class GradientMatching(Addition):
    """α · progress · KL(T(x + d) − T(x − d) ‖ S(x + d) − S(x − d)), softmax of each, nats; d = x_adv − x; α = 1.

    To first order the differences are 2 ∇T·d and 2 ∇S·d. x − d may leave [0, 1], as in the published code. Differs from
    it in that progress rises step by step, not epoch by epoch, and in that S(x − d) moves no BatchNorm statistics.
    """

    def __init__(self, options: Igdm) -> None:
        super().__init__()
        self.options = options

    def terms(self, views: Views) -> Terms:
        if not self.options.alpha:
            return {}
        return {"gradients": self.options.alpha * views.batch.progress * gradient_misfit(views)}


def gradient_misfit(views: Views) -> Tensor:
    """The divergence of `GradientMatching` for each image, (B,), without its weight.

    The passes that are subtracted are in float32 in every precision of the training: in bfloat16 rounding is a sixth of
    the difference's gradient. What was seen of x_adv in less is asked once more.
    """
    from compress.numerics import precision

    mirrored = 2 * views.x - views.x_adv
    with precision.exact():
        taught, own = views.taught_adversarial, views.adversarial
        if taught.rounded:
            taught = views.batch.teach(views.x_adv)
        teacher = taught.logits - views.batch.teach(mirrored).logits
        if own.rounded:
            own = views.student.forward_features(views.x_adv)
        student = own.logits - views.student.forward_features(mirrored).logits
    return divergences(teacher, student)


METHOD = Method("igdm", Igdm, lambda options, preparation: GradientMatching(options), host=HOST)
