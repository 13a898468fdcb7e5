"""TensorBoard's tags and the rows of metrics.jsonl."""

import numpy as np
import pytest

from config import Config
from engine.journal import VALIDATION, Journal
from engine.metrics import PerExample
from engine.reports import Reports
from engine.summaries import groups, weight_summary
from tfcompat import tf


def tags(directory):
    return [
        value.tag
        for file in directory.glob("events*")
        for event in tf.train.summary_iterator(str(file))
        for value in event.summary.value
    ]


@pytest.mark.parametrize(("classes", "top5"), [(3, None), (5, None), (6, 1.0)])
def test_top5_is_reported_for_more_than_five_classes(classes, top5, tmp_path, capsys):
    labels = np.arange(classes)
    table = PerExample(*[np.ones(classes, np.float32)] * 3, labels, labels, *[np.ones(classes, np.float32)] * 3)
    journal = Journal(str(tmp_path / "metrics.jsonl"), 0)
    with tf.Graph().as_default() as graph:
        reports = Reports(Config.of(run_dir=str(tmp_path)), journal, 0, graph)
        reports.log_validation(1, {"": table, "ema_": table}, [str(i) for i in labels], None)
        reports.close()
    (row,) = Journal(str(tmp_path / "metrics.jsonl"), 1).of(VALIDATION)
    assert (row["top5"], row["ema_top5"]) == (top5, top5)
    assert row.keys() == {
        *("step", "split", "examples", "loss", "top1", "top5"),
        *("ema_loss", "ema_top1", "ema_top5"),
    }
    named = {tag for tag in tags(tmp_path / "val") if "top5" in tag}
    assert named == ({"accuracy/top5", "accuracy/ema_top5"} if top5 else set())
    assert ("top-5" in capsys.readouterr().out) == bool(top5)


NAMES = ["net/block1/unit_1/conv1/weights", "net/block1/unit_2/weights", "net/fc/biases", "weights", "own/weights"]


def test_norms_are_by_block_or_by_variable():
    assert groups(NAMES, "block") == {"block1": [0, 1], "fc": [2], "weights": [3], "own": [4]}
    assert groups(NAMES, "variable") == {name: [i] for i, name in enumerate(NAMES)}


def test_the_norm_of_a_block_is_that_of_all_its_weights():
    with tf.Graph().as_default(), tf.Session() as session:
        variables = [tf.get_variable(f"net/a/{i}/weights", initializer=value) for i, value in enumerate((3.0, 4.0))]
        variables.append(tf.get_variable("net/b/weights", initializer=[2.0, 0.0]))
        session.run(tf.global_variables_initializer())
        written = tf.Summary.FromString(session.run(weight_summary(variables, "block", 3)))
    scalars = {value.tag: value.simple_value for value in written.value if value.WhichOneof("value") == "simple_value"}
    assert scalars == {"weight_norm/a": 5.0, "weight_norm/b": 2.0}
    assert [v.tag for v in written.value if v.WhichOneof("value") == "histo"] == [
        *("weight_histogram/net/a/0/weights", "weight_histogram/net/a/1/weights", "weight_histogram/net/b/weights")
    ]
