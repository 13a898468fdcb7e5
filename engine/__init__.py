"""From a loss to a trained checkpoint.

optimizer    schedules, update rules, what is trained and what decays
metrics      loss and accuracy of each example; the exact pass over a split
checkpoint   saves that survive a crash
finite       what diverged is neither saved nor told
reports      what a run tells of itself, by means of the next three
journal      metrics.jsonl and curves.png
summaries    TensorBoard
figures      confusion matrix and mistakes
session      threads, determinism, signals
"""
