"""From a loss to a trained checkpoint.

optimizer    learning rate schedules and update rules
metrics      loss and accuracy of each example; the exact pass over a split
checkpoint   saves that survive a crash; the newest valid checkpoint; where --ckpt PATH points
summaries    TensorBoard
journal      metrics.jsonl and curves.png
session      threads, determinism, signals
"""
