"""From a loss to a trained net.

optimizer    schedules, update rules, trained variables, weight decay; stops a training that diverged
metrics      loss and accuracy of each example; the exact pass over a split
evaluation   the result of an evaluation
reports      the reports of a training, TensorBoard among them
journal      metrics.jsonl
figures      confusion matrix, mistakes, curves
session      threads, determinism, signals
"""
