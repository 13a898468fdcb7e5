"""From a loss to an update: schedules and rules of tf.train, trained variables, weight decay, clipping, and checks for
values that are not finite.

Weight decay covers the kernels, that is the trained variables called `weights`, as in TF-Slim: not biases, batch norm's
gamma and beta, or MobileNet's depthwise kernels, unless decay_biases includes all. It is an L2 term of the loss
(slim.l2_regularizer); adamw shrinks the variables themselves instead.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from config import NetworkOptions, ScheduleOptions, UpdateOptions
from engine.accumulation import Parts
from errors import TrainingError, UserError
from tfcompat import slim, tf


def learning_rate(global_step: tf.Tensor, options: ScheduleOptions) -> tf.Tensor:
    """The learning rate of a step, a float32 scalar; global_step is an integer scalar, 0 at the first step.

    'constant' keeps learning_rate; 'step' multiplies it by decay_rate at each of decay_at_steps; 'exponential'
    multiplies by decay_rate over decay_steps, smoothly; 'cosine' falls to end_learning_rate at total_steps
    (arXiv:1608.03983, §3, once); 'polynomial' too, as (1 - progress) ** polynomial_power. During warm-up the rate rises
    linearly from learning_rate / warmup_steps (arXiv:1706.02677, §2.2). All but 'step' count from its end;
    decay_at_steps are steps of the run.
    """
    peak, end, at = options.learning_rate, options.end_learning_rate, options.decay_at_steps
    step, length = tf.cast(global_step, tf.float32), options.total_steps - options.warmup_steps
    after_warmup = tf.maximum(step - options.warmup_steps, 0.0)
    rates = {
        "constant": lambda: tf.constant(peak),
        "step": lambda: tf.train.piecewise_constant(
            global_step,
            [boundary - 1 for boundary in at],  # piecewise_constant changes after its boundaries
            [peak * options.decay_rate**i for i in range(len(at) + 1)],
        ),
        "exponential": lambda: tf.train.exponential_decay(peak, after_warmup, options.decay_steps, options.decay_rate),
        "cosine": lambda: tf.train.cosine_decay(peak, after_warmup, length, alpha=end / peak),
        "polynomial": lambda: tf.train.polynomial_decay(peak, after_warmup, length, end, options.polynomial_power),
    }
    rate = rates[options.schedule]()
    if options.warmup_steps:
        rate = tf.where(step < options.warmup_steps, peak * (step + 1.0) / options.warmup_steps, rate)
    return rate


def update_rule(options: UpdateOptions, rate: tf.Tensor) -> tf.train.Optimizer:
    """The update rule 'sgd', 'momentum', 'adam' (arXiv:1412.6980), 'adamw' (the same; `minimize` adds the decay) or
    'rmsprop' (with momentum, as TF-Slim's Inception)."""
    epsilon, momentum = options.optimizer_epsilon, options.momentum
    rules = {
        "sgd": lambda: tf.train.GradientDescentOptimizer(rate),
        "momentum": lambda: tf.train.MomentumOptimizer(rate, momentum, use_nesterov=options.nesterov),
        "adam": lambda: tf.train.AdamOptimizer(rate, options.adam_beta1, options.adam_beta2, epsilon),
        "rmsprop": lambda: tf.train.RMSPropOptimizer(rate, options.rmsprop_decay, momentum, epsilon),
    }
    return rules["adam" if options.optimizer == "adamw" else options.optimizer]()


def is_below(name: str, scopes: Collection[str], net_scope: str) -> bool:
    """Whether a variable or scope is one of the scopes or lies in one. Scopes may be given with the net's or without:
    vgg_16/fc8 or fc8."""
    inner = name.removeprefix(f"{net_scope}/")
    return any(f"{place}/".startswith(f"{scope.strip('/')}/") for scope in scopes for place in (name, inner))


def frozen_scopes(options: NetworkOptions, net_scope: str) -> Callable[[str], bool] | None:
    """A function from the name of a variable or scope to whether it is not trained; None where all of it is."""
    only, freeze = options.train_only, options.freeze
    if not (only or freeze):
        return None
    return lambda name: is_below(name, freeze, net_scope) or (bool(only) and not is_below(name, only, net_scope))


def trained_variables(variables: Sequence[tf.Variable], options: NetworkOptions, net_scope: str) -> list[tf.Variable]:
    """The variables that train_only and freeze select.

    Raises UserError for a scope that matches none of them, and where none is left.
    """
    names = [variable.op.name for variable in variables]
    if not names:
        raise UserError("the net has no variables to train; make them with slim's layers or tf.get_variable")
    for flag, scopes in (("--train-only", options.train_only), ("--freeze", options.freeze)):
        for scope in scopes:
            if not any(is_below(name, [scope], net_scope) for name in names):
                known = dict.fromkeys(name.removeprefix(f"{net_scope}/").split("/")[0] for name in names)
                raise UserError(f"{flag} '{scope}' matches no variable of the net; {net_scope} has {', '.join(known)}")
    is_frozen = frozen_scopes(options, net_scope)
    left = [variable for variable in variables if not (is_frozen and is_frozen(variable.op.name))]
    if not left:
        raise UserError(f"--freeze {' '.join(options.freeze)} leaves nothing to train; freeze less")
    return left


def decayed_variables(variables: Sequence[tf.Variable], biases: bool) -> list[tf.Variable]:
    """The variables that weight decay covers: the kernels, or with `biases` all."""
    return [variable for variable in variables if biases or variable.op.name.endswith("/weights")]


class DecoupledDecay(NamedTuple):
    """The weight decay of adamw (arXiv:1711.05101, algorithm 2)."""

    share: tf.Tensor  # by which the variables shrink before the step: the rate times the decay
    variables: Collection[tf.Variable]


class Update(NamedTuple):
    """The train op and its gradients."""

    op: tf.Operation
    variables: list[tf.Variable]  # that it changes
    gradient_norms: tf.Tensor  # float32 [variables], L2, before clipping; infinite or NaN as the gradient


def minimize(
    rule: tf.train.Optimizer,
    loss: tf.Tensor,
    variables: Sequence[tf.Variable],
    global_step: tf.Variable,
    *,
    clip_norm: float | None = None,
    decay: DecoupledDecay | None = None,
    parts: Parts | None = None,
) -> Update:
    """One step of the rule, which increases global_step, together with batch norm's moving averages.

    Variables that the loss, a float32 scalar, does not depend on stay unchanged. Raises UserError where it depends on
    none. All gradients are scaled down where their global norm is above clip_norm (arXiv:1211.5063, §3.2). decay
    shrinks its variables before the step. The gradients are those of the last of the `parts` of a batch and of the
    parts before it.
    """
    with tf.name_scope("update"):
        gradients = [(g, v) for g, v in rule.compute_gradients(loss, list(variables)) if g is not None]
        if not gradients:
            names = ", ".join(variable.op.name for variable in variables[:3])
            raise UserError(
                f"the loss depends on none of the {len(variables)} trained variables ({names}, …): the net leaves them "
                "out or stops their gradients; train others with --train-only, or correct the net"
            )
        values, changed = [g for g, _ in gradients], [v for _, v in gradients]
        before = tf.get_collection(tf.GraphKeys.UPDATE_OPS)  # batch norm's moving averages
        values = parts.mean(values, before) if parts else values
        norms = tf.sqrt(2.0 * tf.stack([tf.nn.l2_loss(gradient) for gradient in values]), name="gradient_norms")
        if clip_norm:
            values, _ = tf.clip_by_global_norm(values, clip_norm, use_norm=tf.norm(norms))
        if decay is not None:
            with tf.control_dependencies(values):  # the gradients are of the variables before they shrink
                before += [v.assign_sub(decay.share * v) for v in decay.variables]
    # Outside of the scope, which would become a part of the names of Adam's beta powers; by name, its ops are in it.
    with tf.control_dependencies(before):
        op = rule.apply_gradients(zip(values, changed, strict=True), global_step, name="update/apply")
    return Update(op, changed, norms)


def average_weights(
    train_op: tf.Operation, decay: float | None, global_step: tf.Variable
) -> tuple[tf.Operation, tf.train.ExponentialMovingAverage | None]:
    """The train op followed by that of the EMA weights of slim's model variables, and the EMA; None without decay."""
    if not decay:
        return train_op, None
    average = tf.train.ExponentialMovingAverage(decay, global_step)
    with tf.control_dependencies([train_op]), tf.name_scope("ema"):
        return average.apply(slim.get_model_variables()), average


def check_step(values: Mapping, trained: Sequence[str], step: int) -> None:
    """Raises TrainingError where the loss of a step or one of its gradient_norms, of the `trained` variables, is not
    finite."""
    wrong = [] if np.isfinite(values["loss"]) else [f"the loss is {values['loss']}"]
    finite = np.isfinite(values["gradient_norms"])
    if not finite.all():
        wrong.append(f"the gradient of {trained[int(np.argmin(finite))]} is not finite")
    if wrong:
        raise _diverged(" and ".join(wrong), step, values["learning_rate"])


def check_variables(finite: np.ndarray, names: Sequence[str], step: int, rate: float) -> None:
    """Raises TrainingError where `finite` is false for one of the variables: a NaN in a checkpoint ends a run."""
    if not finite.all():
        raise _diverged(f"{names[int(np.argmin(finite))]} is not finite", step, rate)


def _diverged(what: str, step: int, rate: float) -> TrainingError:
    return TrainingError(
        f"{what} at step {step}, learning rate {rate:.3g}; earlier checkpoints stay. Try a lower --learning-rate, "
        "more --warmup-steps, or gradients clipped by --clip-norm 1, with another --run-dir"
    )
