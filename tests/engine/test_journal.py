import json

import cv2

from engine.figures import draw_curves
from engine.journal import METRICS, TRAIN, VALIDATION, Journal
from engine.reports import add_scalars, open_writer
from tfcompat import tf


def filled(path):
    journal = Journal(str(path), 0)
    for step in (10, 20, 30):
        journal.add(step, TRAIN, loss=1 / step, top1=step / 40)
        journal.add(step, VALIDATION, loss=2 / step, top1=0.5 if step > 10 else 0.1)
    return journal


def test_rows_after_the_restored_step_are_cut(tmp_path):
    path = tmp_path / "metrics.jsonl"
    filled(path)
    with path.open("a") as file:
        file.write('{"step": 4')
    journal = Journal(str(path), 20)
    assert [row["step"] for row in journal.rows] == [10, 10, 20, 20]
    assert len(path.read_text().splitlines()) == 7  # reading changes nothing
    journal.cut()
    journal.add(21, TRAIN, loss=0.0, top1=1.0)
    assert [json.loads(line)["step"] for line in path.read_text().splitlines()] == [10, 10, 20, 20, 21]


def test_best_prefers_the_lower_loss_among_equals(tmp_path):
    assert filled(tmp_path / "metrics.jsonl").best()["step"] == 30
    assert Journal(str(tmp_path / "metrics.jsonl"), 10).best()["step"] == 10
    assert Journal(str(tmp_path / "none.jsonl"), 0).best() is None


def test_the_metric_decides_what_is_best(tmp_path):
    path = str(tmp_path / "metrics.jsonl")
    journal = Journal(path, 0)
    rows = {10: (0.5, 0.3, 0.6, 0.5), 20: (0.6, 0.4, 0.6, 0.4), 30: (0.6, 0.5, 0.5, 0.9), 40: (0.2, 0.9, 0.1, 0.9)}
    for step, (top1, loss, ema_top1, ema_loss) in rows.items():
        journal.add(step, VALIDATION, top1=top1, loss=loss, ema_top1=ema_top1, ema_loss=ema_loss)
    best = {metric: Journal(path, 40, metric).best()["step"] for metric in METRICS}
    assert best == {"top1": 20, "loss": 10, "ema_top1": 20, "ema_loss": 20}
    assert [Journal(path, 40, "loss").should_stop(patience) for patience in (None, 2, 3, 4)] == [
        *(False, True, True, False)
    ]
    assert [Journal(path, step).should_stop(2) for step in (0, 20, 30, 40)] == [False, False, False, True]
    assert [journal.has_validation(step) for step in (10, 11, 40)] == [True, False, True]


def test_curves_are_a_picture(tmp_path):
    path = str(tmp_path / "curves.png")
    draw_curves(filled(tmp_path / "metrics.jsonl"), path, "run")
    picture = cv2.imread(path)
    assert picture.shape == (400, 1100, 3)
    assert len({tuple(pixel) for pixel in picture.reshape(-1, 3)}) > 20
    draw_curves(Journal(str(tmp_path / "empty.jsonl"), 0), path, "empty")  # nothing logged yet


def test_a_resumed_run_hides_what_a_killed_one_wrote(tmp_path):
    with tf.Graph().as_default():
        add_scalars(open_writer(str(tmp_path), 0), 30, {"loss/total": 1.5})
        open_writer(str(tmp_path / "resumed"), 20).close()
    first = [event for file in tmp_path.glob("events*") for event in tf.train.summary_iterator(str(file))]
    second = [e for file in (tmp_path / "resumed").glob("events*") for e in tf.train.summary_iterator(str(file))]
    assert [(v.tag, v.simple_value) for event in first for v in event.summary.value] == [("loss/total", 1.5)]
    assert [e.step for e in second if e.session_log.status == tf.SessionLog.START] == [21]
