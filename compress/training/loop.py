"""The loop itself: epochs of steps, validation, selection, and a checkpoint that a kill cannot hurt."""

import math
import time
from collections.abc import Callable, Iterator
from typing import Any, NoReturn

import torch
from torch import Tensor

from compress.attacks.pgd import accuracy, standing
from compress.config import Quantize, Training
from compress.data.dataset import Dataset
from compress.data.extra import ExtraImages
from compress.data.split import Split, named_augmentation
from compress.methods.objective import Objective
from compress.networks.base import Classifier
from compress.networks.distributed import sharded
from compress.numerics import precision, ranks
from compress.training import checkpoint, passes, schedule, watch
from compress.training.average import Average, copied
from compress.training.diagnose import Diagnosis
from compress.training.passes import Guide, Passes
from compress.training.schedule import TIMED_STEPS, Clock
from compress.training.update import Supply, Update, build_optimizer, optimizer_hint
from edge.core import interrupt
from edge.core.artifact import Work
from edge.core.errors import CompressError
from edge.core.progress import Progress, say

#: Steps between two looks at whether the losses are finite, where looking means to wait for the device.
LOOK_EVERY = 50


def fit(
    student: Classifier,
    objective: Objective,
    teacher: "Classifier | None",
    data: Dataset,
    config: Training,
    *,
    eps: float,
    seed: int,
    work: Work,
    label: str,
    measure: "Callable[[], dict[str, Any]] | None" = None,
    clean_teacher: "Classifier | None" = None,
    extra: "ExtraImages | None" = None,
) -> dict[str, Any]:
    """Train `student` in place and leave it at the epoch that the validation split chose; the manifest's metrics.

    Selection is by PGD accuracy on the validation split, by clean accuracy for methods that do not attack. A method
    that asks the teacher itself should hold the same `Guide`, so that its passes are in the loop's precision too.
    `measure` is called with the student at the chosen epoch ("test") and, where that is another, at the last one
    ("test_last"); nothing is chosen by what it says. `extra` images have their share of every batch.
    """
    teachers = (teacher, clean_teacher)
    loop = _Loop(student, objective, teachers, data, config, eps=eps, seed=seed, work=work, label=label, extra=extra)
    with interrupt.deferred():
        loop.begin()
        with Progress(label, config.epochs * loop.update.supply.steps, done=loop.steps_done()) as loop.bar:
            while not loop.done():
                loop.train_epoch()
                loop.validate()
        if loop.events is not None:
            loop.events.close()
    return loop.finish(measure)


class _Loop:
    def __init__(
        self,
        student: Classifier,
        objective: Objective,
        teachers: "tuple[Classifier | None, Classifier | None]",
        data: Dataset,
        config: Training,
        *,
        eps: float,
        seed: int,
        work: Work,
        label: str,
        extra: "ExtraImages | None",
    ) -> None:
        self.student, self.objective, self.config = student, objective, config
        self.eps, self.seed, self.work, self.label = eps, seed, work, label
        self.where = next(student.parameters()).device
        train, self.validation = Split.of(data, "train", self.where), Split.of(data, "val", self.where)
        if config.batch_size > len(train.labels):
            raise CompressError(
                f"batch_size {config.batch_size} is larger than the {len(train.labels)} training images of "
                f"{data.name}; give at most {len(train.labels)}"
            )
        if config.precision == precision.BFLOAT16 and isinstance(config, Quantize):
            raise CompressError("precision bfloat16: fake quantizers need float32; give auto or float32")
        self.chance = float(self.validation.labels.bincount().max()) / len(self.validation.labels)
        optimizer = build_optimizer(config, student, objective)
        teacher, clean_teacher = (each if each is None or isinstance(each, Guide) else Guide(each) for each in teachers)
        self.update = Update(
            student=student,
            passes=Passes(student),
            objective=objective,
            teacher=teacher,
            clean_teacher=clean_teacher,
            supply=Supply(train, config.batch_size, seed, extra),
            vary=named_augmentation(config.augment, data.name),
            optimizer=optimizer,
            average=Average(config.average, config.ema_decay, student),
            finite=watch.Finite(),
            config=config,
            eps=eps,
            seed=seed,
            diagnosis=Diagnosis(config.diagnose),
        )
        self.parts: dict[str, checkpoint.Part] = {
            "student": student,
            "objective": objective,
            "optimizer": optimizer,
            "average": self.update.average,
            "diagnosis": self.update.diagnosis,
        }
        self.compiled = False
        self.step_seconds: list[float] = []  # of this process
        self.bar: Progress

    # ------------------------------------------------------------------------------------------ from start to end

    def begin(self) -> None:
        """Where a killed attempt has stopped, in the arithmetic of its beginning; or afresh."""
        self.state = checkpoint.resume(self.work, self.parts, self.where)
        if self.state.changed:
            changed = ", ".join(f"{name} {change}" for name, change in self.state.changed.items())
            say(f"{self.label}: resumed under other conditions ({changed}), so not to the bit of an undisturbed run")
        if hint := optimizer_hint(self.config, self.student):
            say(f"{self.label}: {hint}")
        self.clock = Clock(self.config.budget_s, self.state.spent)
        self._choose_arithmetic()
        self.clock.reserve = self.state.validation_seconds
        self.saved = time.monotonic()
        self.events = watch.opened(self.config.tensorboard and ranks.rank() == 0, self.work, self.label)

    def finish(self, measure: "Callable[[], dict[str, Any]] | None") -> dict[str, Any]:
        """Leave the student at its best epoch; what the manifest says of the training."""
        state, config, n = self.state, self.config, len(self.validation.labels)
        tests = {} if measure is None else self._tests(measure)
        self.student.load_state_dict(state.best)
        self.student.eval()
        self.work.add_record(checkpoint.METRICS)
        for name in checkpoint.epoch_files(config.keep_epochs * state.epoch):
            if self.work.file(name).exists():  # else its epoch ended before they were wanted
                self.work.add_record(name)
        overfitted = {"since": state.epoch - state.below + 1, "best": state.best_score}
        return {
            "epochs": state.epoch,
            "best_epoch": state.best_epoch,
            "validation": {"n": n, **state.best_validation},
            "validation_last": {"n": n, **state.last_validation},
            **({"catastrophic_overfitting": state.collapse} if state.collapse else {}),
            **({"robust_overfitting": overfitted} if state.below >= watch.OVERFIT_EPOCHS else {}),
            **({"bit_identical": False, "resumed_under": state.changed} if state.changed else {}),
            **({"budget_seconds": config.budget_s} if config.budget_s else {}),
            "seconds": round(state.spent, 1),
            "precision": str(self.update.arithmetic),
            **({"compiled": self.compiled} if config.compile else {}),
            "device": self.where.type,
            "threads": torch.get_num_threads(),
            **tests,
        }

    def _tests(self, measure: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """The last weights where they are not the chosen ones, then the chosen ones."""
        last = {}
        if self.state.best_epoch != self.state.epoch:
            with self.update.average.worn(self.student):
                self.student.eval()
                last = {"test_last": measure()}
        self.student.load_state_dict(self.state.best)
        self.student.eval()
        test = measure()
        return {"test": test, **(last or {"test_last": test})}

    def _choose_arithmetic(self) -> None:
        """Once a stage: a resumed run computes as it began."""
        update, state = self.update, self.state
        x = update.images(torch.arange(self.config.batch_size))
        if not state.arithmetic:
            state.arithmetic = ranks.broadcast(vars(self._arithmetic(x)))
        update.compute_in(passes.Arithmetic(**state.arithmetic))
        if self.config.compile:
            if self.config.diagnose:
                passes.keep_graphs()
            self.compiled = passes.compile_passes(update.passes, update.arithmetic.image(x), self.label)
            if update.teacher is not None and self.compiled:
                passes.compile_passes(update.teacher, update.arithmetic.image(x), self.label)

    def _arithmetic(self, x: Tensor) -> passes.Arithmetic:
        if isinstance(self.config, Quantize):
            return passes.PLAIN
        allowed = precision.resolve(self.config.precision, self.where)
        if self.config.precision != "auto" or allowed == precision.FLOAT32:
            return passes.fixed(allowed, self.where)
        self.student.eval()
        chosen = torch.arange(len(x), device=self.where)
        search = self.objective.search(self.update.passes, self.update.batch(x, chosen))
        steps = 1 if self.objective.single_step(self.config.attack) else self.config.attack.steps
        return passes.fastest(self.update.passes, search, x, steps * self.objective.attacks)

    def done(self) -> bool:
        """The last epoch is over, or the budget, or robustness has collapsed."""
        state = self.state
        if state.collapse or state.epoch >= self.config.epochs:
            return True
        return bool(state.best) and state.step == 0 and self.clock.over()

    # ------------------------------------------------------------------------------------------ one epoch

    def train_epoch(self) -> None:
        """What is left of an epoch over the training images, or as much of it as the budget allows."""
        update, state, steps = self.update, self.state, self.update.supply.steps
        all_steps = self.config.epochs * steps
        while state.step < steps:
            began = time.monotonic()
            chosen = update.supply.chosen(state.epoch, state.step)
            position = self.clock.position(self.steps_done(), all_steps)
            lr = self.config.lr * schedule.share(self.config, position, all_steps)
            parts: dict[str, Tensor] | None = None
            try:
                parts = update(chosen, state.epoch, state.step, lr, position / all_steps)
            except RuntimeError as fault:
                if not watch.exhausted(fault):
                    raise
            if parts is None:  # out of the handler, whose traceback would keep the batch that did not fit
                self._refuse_batch(chosen, lr, position / all_steps)
            self._add(parts)
            self._look()
            state.step += 1
            self.step_seconds.append(time.monotonic() - began)
            state.epoch_seconds += self.step_seconds[-1]
            self.bar.step(1, note=self._note(), most_s=self.clock.left())
            self._judge_budget()
            self._keep()
            if self.clock.over():
                break
        update.finite.check(state.epoch, self.config.lr)

    def _refuse_batch(self, chosen: Tensor, lr: float, progress: float) -> NoReturn:
        """A batch that memory cannot hold is answered with the size that it can."""
        if ranks.world() > 1:  # the others are in an exchange that this one does not come to
            raise CompressError(f"batch_size {len(chosen)}: out of memory on rank {ranks.rank()}; give less")
        epoch, step = self.state.epoch, self.state.step
        fits = watch.largest(lambda size: self.update(chosen[:size], epoch, step, lr, progress), len(chosen))
        raise CompressError(watch.message(len(chosen), fits))

    def _add(self, parts: dict[str, Tensor]) -> None:
        totals = self.state.totals
        for name, part in parts.items():
            totals[name] = totals.get(name, torch.zeros((), device=self.where)) + part

    def _note(self) -> str:
        images_per_s = self.state.step * self.config.batch_size / max(self.state.epoch_seconds, 1e-9)
        parts = [
            f"epoch {self.state.epoch + 1}/{self.config.epochs}",
            f"{images_per_s:,.0f} images/s",
            self._validated(),
        ]
        return "  ".join(part for part in parts if part)

    def _validated(self) -> str:
        accuracies = self.state.last_validation
        return "  ".join(f"validation {name} {value:.1%}" for name, value in accuracies.items())

    def steps_done(self) -> int:
        return self.state.epoch * self.update.supply.steps + self.state.step

    def _look(self) -> None:
        if self.where.type == "cpu" or len(self.step_seconds) % LOOK_EVERY == 0:
            self.update.finite.check(self.state.epoch, self.config.lr)

    def _keep(self) -> None:
        """A checkpoint when one is due or a signal asks to stop."""
        stop = int(ranks.largest(interrupt.asked() or 0)) or None
        if stop is None and ranks.largest(time.monotonic() - self.saved) < 60 * self.config.checkpoint_minutes:
            return
        self.update.finite.check(self.state.epoch, self.config.lr)
        self._save()
        if stop is not None:
            raise interrupt.Interrupted(stop)

    def _save(self) -> None:
        self.state.spent = self.clock.spent()
        if ranks.rank() == 0:
            checkpoint.save(self.work, self.parts, self.state)
        self.saved = time.monotonic()

    def _judge_budget(self) -> None:
        """Once the first steps of all are timed, or time is up before that: whether the budget lasts for an epoch."""
        done, timed = len(self.step_seconds), min(TIMED_STEPS, self.update.supply.steps)
        if self.clock.budget is None or done != self.steps_done() or done > timed:
            return
        if done < timed and not self.clock.over():
            return
        began, size = time.monotonic(), self.config.batch_size
        self._accuracies(Split(self.validation.images[:size], self.validation.labels[:size]))
        batches = math.ceil(len(self.validation.labels) / size)
        self.clock.reserve = self.state.validation_seconds = ranks.largest(batches * (time.monotonic() - began))
        counted = self.step_seconds[1:] or self.step_seconds  # the first step warms up
        self.clock.judge(ranks.largest(sum(counted) / len(counted)), self.update.supply.steps)

    # ------------------------------------------------------------------------------------------ after an epoch

    def validate(self) -> None:
        """Validate, select, write the row and the checkpoint."""
        state, average = self.state, self.update.average
        began = time.monotonic()
        all_steps = self.config.epochs * self.update.supply.steps
        if schedule.reached(self.config.swa_start, self.clock.position(self.steps_done(), all_steps), all_steps):
            average.after_epoch(self.student, self._clean_batches)
        with average.worn(self.student):
            accuracies, stands = self._accuracies(self.validation)
            self._select(accuracies, stands)
            if self.config.keep_epochs and ranks.rank() == 0:
                checkpoint.keep_epoch(self.work, state.epoch + 1, self.student)
        state.validation_seconds = self.clock.reserve = ranks.largest(time.monotonic() - began)
        row = {
            "epoch": state.epoch + 1,
            **{name: float(value) / state.step for name, value in state.totals.items()},
            **self.update.diagnosis.taken(),
            "lr": self.update.optimizer.param_groups[0]["lr"],
            **{f"validation_{name}": value for name, value in accuracies.items()},
            "images_per_s": round(state.step * self.config.batch_size / state.epoch_seconds, 1),
            "seconds": round(state.epoch_seconds + state.validation_seconds, 2),
        }
        state.epoch, state.step, state.totals, state.epoch_seconds = state.epoch + 1, 0, {}, 0.0
        if ranks.rank() == 0:
            checkpoint.write_row(self.work, row)
        self._save()
        if self.events is not None:
            self.events.write(row)
        self.bar.step(0, note=self._validated(), most_s=self.clock.left())

    def _accuracies(self, split: Split) -> tuple[dict[str, float], "Tensor | None"]:
        """Clean and, of a method that attacks, robust accuracy, and which images stand, (N,); always in float32."""
        self.student.eval()
        whole, size, steps = sharded(self.student), self.config.batch_size, self.config.validate_steps
        with precision.full():
            accuracies = {"clean": accuracy(whole, split, size)}
            if not self.objective.attacks:  # nothing is chosen by it, so it is not measured
                return accuracies, None
            stands = standing(whole, split, size, eps=self.eps, steps=steps, seed=self.seed)
        return {**accuracies, "robust": int(stands.sum()) / len(stands)}, stands

    def _select(self, accuracies: dict[str, float], stands: "Tensor | None") -> None:
        """Keep the weights if they are the best so far, and look for the two ways in which robustness is lost."""
        state, epoch = self.state, self.state.epoch + 1
        best, told = state.best_stands, state.below >= watch.OVERFIT_EPOCHS
        fell = stands is not None and best is not None and watch.fallen(best, stands, epoch)
        single = self.objective.single_step(self.config.attack)
        if fell and single and watch.collapsed(state.best_validation, accuracies, self.chance):
            state.collapse = {"epoch": epoch, "robust": accuracies["robust"], "best": state.best_score}
            say(
                f"{self.label}: catastrophic overfitting in epoch {epoch}, stopped (validation robust "
                f"{accuracies['robust']:.1%}, best {state.best_score:.1%}); kept epoch {state.best_epoch}"
            )
        state.last_validation = accuracies
        score = accuracies["robust" if self.objective.attacks else "clean"]
        if score >= state.best_score:  # of equals the later, which has seen more
            state.best_epoch, state.best_score, state.best_validation = epoch, score, accuracies
            state.best, state.best_stands = copied(self.student), stands
        state.below = state.below + 1 if fell else 0
        compared = f"validation robust {score:.1%}, best {state.best_score:.1%} in epoch {state.best_epoch}"
        if state.below == watch.OVERFIT_EPOCHS:
            say(
                f"{self.label}: robust overfitting, {state.below} epochs in a row below the best by more than chance "
                f"({compared}); average swa or awp helps"
            )
        elif told and not state.below:
            say(f"{self.label}: robust overfitting withdrawn, epoch {epoch} is not below the best ({compared})")

    def _clean_batches(self) -> Iterator[Tensor]:
        """Training images as they are, in batches of full size."""
        for chosen in torch.arange(len(self.update.supply.train.labels)).split(self.config.batch_size):
            if len(chosen) == self.config.batch_size:
                yield self.update.images(chosen)
