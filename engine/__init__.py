"""From a loss to a trained net.

optimizer    schedules, update rules, trained variables, weight decay
metrics      loss and accuracy of each example; the exact pass over a split
evaluation   the result of an evaluation
finite       stops a training that diverged before it saves or reports
reports      the reports of a training, by means of the next three
journal      metrics.jsonl and curves.png
summaries    TensorBoard
figures      confusion matrix and mistakes
session      threads, determinism, signals
"""
