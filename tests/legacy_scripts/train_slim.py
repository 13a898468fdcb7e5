"""Trains on TFRecords through queues with slim.learning.train, then evaluates in a loop of its own."""
from __future__ import absolute_import
from __future__ import division
from __future__ import print_function

import os

import tensorflow as tf

from digits_net import digits_arg_scope, digits_net

slim = tf.contrib.slim

flags = tf.app.flags
flags.DEFINE_string('data_dir', '/tmp/digits', 'Where train.tfrecord and test.tfrecord are.')
flags.DEFINE_string('train_dir', '/tmp/digits_train', 'Where checkpoints and summaries go.')
flags.DEFINE_integer('batch_size', 32, 'Batch size.')
flags.DEFINE_integer('max_steps', 200, 'Number of steps.')
flags.DEFINE_float('learning_rate', 0.05, 'Initial learning rate.')
FLAGS = flags.FLAGS


def read_and_decode(filename_queue):
  reader = tf.TFRecordReader()
  _, serialized_example = reader.read(filename_queue)
  features = tf.parse_single_example(
      serialized_example,
      features={
          'image_raw': tf.FixedLenFeature([], tf.string),
          'label': tf.FixedLenFeature([], tf.int64),
      })
  image = tf.decode_raw(features['image_raw'], tf.uint8)
  image.set_shape([8 * 8])
  image = tf.to_float(tf.reshape(image, [8, 8, 1])) * (1. / 255) - 0.5
  return image, tf.cast(features['label'], tf.int32)


def inputs(name, batch_size, num_epochs):
  filename = os.path.join(FLAGS.data_dir, name + '.tfrecord')
  with tf.name_scope('input'):
    filename_queue = tf.train.string_input_producer([filename], num_epochs=num_epochs)
    image, label = read_and_decode(filename_queue)
    if name == 'train':
      return tf.train.shuffle_batch(
          [image, label], batch_size=batch_size, num_threads=2,
          capacity=500 + 3 * batch_size, min_after_dequeue=500)
    return tf.train.batch([image, label], batch_size=batch_size, allow_smaller_final_batch=True)


def train():
  with tf.Graph().as_default():
    tf.set_random_seed(1)
    global_step = slim.get_or_create_global_step()
    images, labels = inputs('train', FLAGS.batch_size, None)
    with slim.arg_scope(digits_arg_scope(is_training=True)):
      logits, end_points = digits_net(images, 10)
    one_hot = slim.one_hot_encoding(labels, 10)
    slim.losses.softmax_cross_entropy(logits, one_hot)
    total_loss = slim.losses.get_total_loss()
    learning_rate = tf.train.exponential_decay(FLAGS.learning_rate, global_step, 100, 0.5, staircase=True)
    optimizer = tf.train.MomentumOptimizer(learning_rate, 0.9)
    train_op = slim.learning.create_train_op(total_loss, optimizer, clip_gradient_norm=5.0, summarize_gradients=True)
    tf.summary.scalar('losses/total_loss', total_loss)
    for name, value in end_points.items():
      tf.summary.histogram('activations/' + name, value)
    return slim.learning.train(
        train_op, FLAGS.train_dir, number_of_steps=FLAGS.max_steps, log_every_n_steps=50,
        save_summaries_secs=1, save_interval_secs=600)


def evaluate():
  with tf.Graph().as_default():
    images, labels = inputs('test', 50, 1)
    with slim.arg_scope(digits_arg_scope(is_training=False)):
      logits, _ = digits_net(images, 10)
    correct = tf.nn.in_top_k(logits, labels, 1)
    saver = tf.train.Saver(slim.get_variables_to_restore())
    with tf.Session() as sess:
      sess.run([tf.global_variables_initializer(), tf.local_variables_initializer()])
      saver.restore(sess, tf.train.latest_checkpoint(FLAGS.train_dir))
      coord = tf.train.Coordinator()
      threads = tf.train.start_queue_runners(sess=sess, coord=coord)
      right = total = 0
      try:
        while not coord.should_stop():
          got = sess.run(correct)
          right += got.sum()
          total += got.size
      except tf.errors.OutOfRangeError:
        print('Done testing, %d pictures' % total)
      finally:
        coord.request_stop()
      coord.join(threads)
  print('test accuracy %g' % (right / total))


def main(_):
  tf.logging.set_verbosity(tf.logging.INFO)
  loss = train()
  print('final loss %g' % loss)
  evaluate()


if __name__ == '__main__':
  tf.app.run()
