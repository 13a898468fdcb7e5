"""TensorBoard: scalars of train and validation under the same names, pictures, weight histograms, the graph."""

from tfcompat import tf

# raw_ops below, since tf.summary's own functions make tags unique among the graph's names: conv1/weights_1.


def add_scalars(writer: tf.summary.FileWriter, step: int, values: dict[str, float]) -> None:
    """Writes scalars by tag; TensorBoard groups them by what is before the slash."""
    tags = [tf.Summary.Value(tag=tag, simple_value=value) for tag, value in values.items()]
    writer.add_summary(tf.Summary(value=tags), step)
    writer.flush()


def pictures(images: tf.Tensor) -> tf.Tensor:
    """A summary op of the first eight pictures of a batch, as the net sees them."""
    return tf.raw_ops.ImageSummary(tag="pictures", tensor=images, max_images=8)


def histograms() -> tf.Tensor:
    """A summary op of the distribution of every trained variable, under its name."""
    return tf.summary.merge([tf.raw_ops.HistogramSummary(tag=v.op.name, values=v) for v in tf.trainable_variables()])


def open_writer(directory: str, step: int, graph: tf.Graph | None = None) -> tf.summary.FileWriter:
    """A writer for a run that goes on from `step`: TensorBoard then hides what a killed run wrote after it."""
    writer = tf.summary.FileWriter(directory, graph)
    if step:
        writer.add_session_log(tf.SessionLog(status=tf.SessionLog.START), step + 1)
    return writer
