"""From a loss to an update: schedules and rules of tf.train, what is trained, weight decay, clipping, averages.

Weight decay covers the kernels, that is the trained variables called `weights`, as in TF-Slim: neither biases, nor
batch norm's gamma and beta, nor MobileNet's depthwise kernels, unless it is asked to cover all. It is an L2 term of the
loss (slim.l2_regularizer), but for adamw, which shrinks the variables themselves.
"""

from collections.abc import Callable, Collection, Sequence
from typing import NamedTuple

from errors import UserError
from tfcompat import tf


def learning_rate(
    global_step: tf.Tensor,
    peak: float,
    schedule: str,
    total_steps: int,
    warmup_steps: int = 0,
    decay_at_steps: tuple[int, ...] = (),
    decay_steps: int | None = None,
    decay_rate: float = 0.1,
    end: float = 0.0,
    power: float = 1.0,
) -> tf.Tensor:
    """The rate of a step, a float32 scalar.

    Args:
        global_step: integer scalar, 0 at the first step.
        peak: rate after warm-up.
        schedule: 'constant'; 'step' multiplies by decay_rate at each of decay_at_steps; 'exponential' multiplies by
            decay_rate over decay_steps, smoothly; 'cosine' falls to `end` at total_steps (arXiv:1608.03983, §3, once);
            'polynomial' too, as (1 - progress) ** power.
        total_steps: where cosine and polynomial end.
        warmup_steps: linear rise before it, from peak / warmup_steps (arXiv:1706.02677, §2.2). All but 'step' count
            from its end; decay_at_steps are steps of the run.
        decay_at_steps: rising steps.
        decay_steps: steps of one exponential decay.
        decay_rate: factor.
        end: lowest rate of cosine and polynomial.
        power: of the polynomial; 1 is a straight line.
    """
    step = tf.cast(global_step, tf.float32)
    after_warmup = tf.maximum(step - warmup_steps, 0.0)
    rates = {
        "constant": lambda: tf.constant(peak),
        "step": lambda: tf.train.piecewise_constant(
            global_step,
            [boundary - 1 for boundary in decay_at_steps],  # piecewise_constant changes after its boundaries
            [peak * decay_rate**i for i in range(len(decay_at_steps) + 1)],
        ),
        "exponential": lambda: tf.train.exponential_decay(peak, after_warmup, decay_steps, decay_rate),
        "cosine": lambda: tf.train.cosine_decay(peak, after_warmup, total_steps - warmup_steps, alpha=end / peak),
        "polynomial": lambda: tf.train.polynomial_decay(peak, after_warmup, total_steps - warmup_steps, end, power),
    }
    rate = rates[schedule]()
    if warmup_steps:
        rate = tf.where(step < warmup_steps, peak * (step + 1.0) / warmup_steps, rate)
    return rate


def optimizer(
    name: str,
    rate: tf.Tensor,
    momentum: float = 0.9,
    nesterov: bool = False,
    adam_beta1: float = 0.9,
    adam_beta2: float = 0.999,
    rmsprop_decay: float = 0.9,
    epsilon: float = 1e-8,
) -> tf.train.Optimizer:
    """The update rule 'sgd', 'momentum', 'adam' (arXiv:1412.6980), 'adamw' (the same; `minimize` adds the decay) or
    'rmsprop' (with momentum, as TF-Slim's Inception)."""
    rules = {
        "sgd": lambda: tf.train.GradientDescentOptimizer(rate),
        "momentum": lambda: tf.train.MomentumOptimizer(rate, momentum, use_nesterov=nesterov),
        "adam": lambda: tf.train.AdamOptimizer(rate, adam_beta1, adam_beta2, epsilon),
        "rmsprop": lambda: tf.train.RMSPropOptimizer(rate, rmsprop_decay, momentum, epsilon),
    }
    return rules["adam" if name == "adamw" else name]()


def frozen_scopes(train_only: Collection[str], freeze: Collection[str], net_scope: str) -> Callable[[str], bool] | None:
    """From the name of a variable or a scope to whether it is left alone; None where all of the net is trained.

    Args:
        train_only: scopes that alone are trained, with all that lies below them; empty for no such limit.
        freeze: scopes that are not trained.
        net_scope: of the net. Scopes may be given with it or without: vgg_16/fc8 or fc8.
    """
    if not (train_only or freeze):
        return None

    def below(name: str, scopes: Collection[str]) -> bool:
        inner = name.removeprefix(f"{net_scope}/")
        return any(f"{place}/".startswith(f"{scope.strip('/')}/") for scope in scopes for place in (name, inner))

    return lambda name: below(name, freeze) or (bool(train_only) and not below(name, train_only))


def trained_variables(
    variables: Sequence[tf.Variable],
    train_only: Collection[str],
    freeze: Collection[str],
    net_scope: str,
) -> list[tf.Variable]:
    """Those of the trainable variables that frozen_scopes leaves.

    Raises UserError for a scope that matches none of them, and where none is left.
    """
    names = [variable.op.name for variable in variables]
    for flag, scopes in (("--train-only", train_only), ("--freeze", freeze)):
        for scope in scopes:
            matches = frozen_scopes((), [scope], net_scope)
            if not any(map(matches, names)):
                known = dict.fromkeys(name.removeprefix(f"{net_scope}/").split("/")[0] for name in names)
                raise UserError(f"{flag} '{scope}' matches no variable of the net; {net_scope} has {', '.join(known)}")
    frozen = frozen_scopes(train_only, freeze, net_scope)
    left = [variable for variable in variables if not (frozen and frozen(variable.op.name))]
    if not left:
        raise UserError(f"--freeze {' '.join(freeze)} leaves nothing to train; freeze less")
    return left


def decayed_variables(variables: Sequence[tf.Variable], biases: bool) -> list[tf.Variable]:
    """Those that weight decay covers: the kernels, or all of them with `biases`."""
    return [variable for variable in variables if biases or variable.op.name.endswith("/weights")]


class Update(NamedTuple):
    """The train op, and what came before it."""

    op: tf.Operation
    variables: list[tf.Variable]  # that it changes
    gradient_norms: tf.Tensor  # float32 [variables], L2, before clipping; infinite or NaN where the gradient is


def minimize(
    rule: tf.train.Optimizer,
    loss: tf.Tensor,
    variables: Sequence[tf.Variable],
    global_step: tf.Variable,
    clip_norm: float | None = None,
    shrink: tf.Tensor | None = None,
    shrunk: Collection[tf.Variable] = (),
) -> Update:
    """One step of the rule, together with batch norm's moving averages.

    Args:
        rule: what `optimizer` gives.
        loss: float32 scalar.
        variables: to train; those that the loss does not depend on stay as they are.
        global_step: is raised by one.
        clip_norm: gradients are scaled down together where their norm is above it (arXiv:1211.5063, §3.2).
        shrink: share by which the `shrunk` variables become smaller before the step, the rate times the decay: adamw's
            decoupled weight decay (arXiv:1711.05101, algorithm 2).
        shrunk: variables.
    """
    gradients = [(g, v) for g, v in rule.compute_gradients(loss, list(variables)) if g is not None]
    values, changed = [g for g, _ in gradients], [v for _, v in gradients]
    norms = tf.sqrt(2.0 * tf.stack([tf.nn.l2_loss(gradient) for gradient in values]), name="gradient_norms")
    if clip_norm:
        values, _ = tf.clip_by_global_norm(values, clip_norm, use_norm=tf.norm(norms))
    before = tf.get_collection(tf.GraphKeys.UPDATE_OPS)  # batch norm's moving averages
    if shrink is not None:
        with tf.control_dependencies(values):  # the gradients are those of the variables as they were
            before += [v.assign_sub(shrink * v) for v in shrunk]
    with tf.control_dependencies(before):
        op = rule.apply_gradients(zip(values, changed, strict=True), global_step)
    return Update(op, changed, norms)
