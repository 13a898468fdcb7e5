"""A convolutional MNIST classifier, in the manner of TensorFlow's tutorial of 2017.

Trains with placeholders and a feed_dict, saves, and restores from the meta graph by the tensors' names.
"""
from __future__ import absolute_import
from __future__ import division
from __future__ import print_function

import argparse
import os
import sys

from tensorflow.examples.tutorials.mnist import input_data

import tensorflow as tf

FLAGS = None


def weight_variable(shape, name):
  initial = tf.truncated_normal(shape, stddev=0.1)
  return tf.Variable(initial, name=name)


def bias_variable(shape, name):
  initial = tf.constant(0.1, shape=shape)
  return tf.Variable(initial, name=name)


def conv2d(x, W):
  return tf.nn.conv2d(x, W, strides=[1, 1, 1, 1], padding='SAME')


def max_pool(x, k):
  return tf.nn.max_pool(x, ksize=[1, k, k, 1], strides=[1, k, k, 1], padding='SAME')


def variable_summaries(var):
  with tf.name_scope('summaries'):
    mean = tf.reduce_mean(var)
    tf.summary.scalar('mean', mean)
    stddev = tf.sqrt(tf.reduce_mean(tf.square(var - mean), reduction_indices=[0]))
    tf.summary.scalar('stddev', tf.reduce_mean(stddev))
    tf.summary.histogram('histogram', var)


def deepnn(x, keep_prob):
  with tf.name_scope('reshape'):
    x_image = tf.reshape(x, [-1, 28, 28, 1])
    tf.summary.image('input', x_image, 3)
  with tf.name_scope('conv1'):
    W_conv1 = weight_variable([5, 5, 1, 8], 'W')
    variable_summaries(W_conv1)
    h_conv1 = tf.nn.relu(conv2d(max_pool(x_image, 2), W_conv1) + bias_variable([8], 'b'))
    h_pool1 = max_pool(h_conv1, 2)
  with tf.name_scope('conv2'):
    h_conv2 = tf.nn.relu(conv2d(h_pool1, weight_variable([5, 5, 8, 16], 'W')) + bias_variable([16], 'b'))
  with tf.name_scope('fc1'):
    h_flat = tf.reshape(h_conv2, [-1, 7 * 7 * 16])
    h_fc1 = tf.nn.relu(tf.matmul(h_flat, weight_variable([7 * 7 * 16, 64], 'W')) + bias_variable([64], 'b'))
  h_fc1_drop = tf.nn.dropout(h_fc1, keep_prob)
  with tf.name_scope('fc2'):
    return tf.add(tf.matmul(h_fc1_drop, weight_variable([64, 10], 'W')), bias_variable([10], 'b'), name='logits')


def main(_):
  tf.set_random_seed(1)
  mnist = input_data.read_data_sets(FLAGS.data_dir, one_hot=True)
  x = tf.placeholder(tf.float32, [None, 784], name='x')
  y_ = tf.placeholder(tf.float32, [None, 10], name='y_')
  keep_prob = tf.placeholder(tf.float32, name='keep_prob')
  y_conv = deepnn(x, keep_prob)

  with tf.name_scope('loss'):
    cross_entropy = tf.reduce_mean(
        tf.nn.softmax_cross_entropy_with_logits(labels=y_, logits=y_conv))
  tf.summary.scalar('cross_entropy', cross_entropy)
  train_step = tf.train.AdamOptimizer(2e-3).minimize(cross_entropy)
  with tf.name_scope('accuracy'):
    correct_prediction = tf.equal(tf.argmax(y_conv, 1), tf.argmax(y_, 1))
    accuracy = tf.reduce_mean(tf.cast(correct_prediction, tf.float32), name='value')

  merged = tf.summary.merge_all()
  saver = tf.train.Saver()
  path = os.path.join(FLAGS.log_dir, 'model.ckpt')
  if tf.gfile.Exists(FLAGS.log_dir):
    tf.gfile.DeleteRecursively(FLAGS.log_dir)
  tf.gfile.MakeDirs(FLAGS.log_dir)
  with tf.Session() as sess:
    writer = tf.summary.FileWriter(FLAGS.log_dir, sess.graph)
    sess.run(tf.global_variables_initializer())
    i = 0
    while mnist.train.epochs_completed < FLAGS.epochs:
      batch = mnist.train.next_batch(50)
      if i % 50 == 0:
        summary, train_accuracy = sess.run(
            [merged, accuracy], feed_dict={x: batch[0], y_: batch[1], keep_prob: 1.0})
        writer.add_summary(summary, i)
        print('step %d, training accuracy %g' % (i, train_accuracy))
      train_step.run(feed_dict={x: batch[0], y_: batch[1], keep_prob: 0.5})
      i += 1
    saver.save(sess, path, global_step=i)
    writer.close()

  tf.reset_default_graph()
  with tf.Session() as sess:
    latest = tf.train.latest_checkpoint(FLAGS.log_dir)
    tf.train.import_meta_graph(latest + '.meta').restore(sess, latest)
    graph = tf.get_default_graph()
    print('first weights %s' % sess.run(graph.get_tensor_by_name('conv1/W:0')).shape.__str__())
    print('test accuracy %g' % sess.run('accuracy/value:0', feed_dict={
        'x:0': mnist.test.images, 'y_:0': mnist.test.labels, 'keep_prob:0': 1.0}))


if __name__ == '__main__':
  parser = argparse.ArgumentParser()
  parser.add_argument('--data_dir', type=str, default='/tmp/tensorflow/mnist/input_data')
  parser.add_argument('--log_dir', type=str, default='/tmp/tensorflow/mnist/logs')
  parser.add_argument('--epochs', type=int, default=2)
  FLAGS, unparsed = parser.parse_known_args()
  tf.app.run(main=main, argv=[sys.argv[0]] + unparsed)
