"""Learning rate schedules and update rules, from tf.train."""

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
) -> tf.Tensor:
    """The rate of a step, a float32 scalar.

    Args:
        global_step: integer scalar, 0 at the first step.
        peak: rate after warm-up.
        schedule: 'constant'; 'step' multiplies by decay_rate at each of decay_at_steps; 'exponential' multiplies by
            decay_rate over decay_steps, smoothly; 'cosine' falls to `end` at total_steps (arXiv:1608.03983, §3, once).
        total_steps: where the cosine ends.
        warmup_steps: linear rise before it, from peak / warmup_steps (arXiv:1706.02677, §2.2). Exponential and cosine
            count from its end; decay_at_steps are steps of the run.
        decay_at_steps: rising steps.
        decay_steps: steps of one exponential decay.
        decay_rate: factor.
        end: lowest rate of the cosine.
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
    }
    rate = rates[schedule]()
    if warmup_steps:
        rate = tf.where(step < warmup_steps, peak * (step + 1.0) / warmup_steps, rate)
    return rate


def optimizer(
    name: str,
    rate: tf.Tensor,
    momentum: float = 0.9,
    adam_beta1: float = 0.9,
    adam_beta2: float = 0.999,
    rmsprop_decay: float = 0.9,
    epsilon: float = 1e-8,
) -> tf.train.Optimizer:
    """The update rule 'momentum', 'adam' (arXiv:1412.6980) or 'rmsprop' (with momentum, as TF-Slim's Inception)."""
    rules = {
        "momentum": lambda: tf.train.MomentumOptimizer(rate, momentum),
        "adam": lambda: tf.train.AdamOptimizer(rate, adam_beta1, adam_beta2, epsilon),
        "rmsprop": lambda: tf.train.RMSPropOptimizer(rate, rmsprop_decay, momentum, epsilon),
    }
    return rules[name]()
