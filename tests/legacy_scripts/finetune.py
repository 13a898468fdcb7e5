"""Odd or even: a new head on the frozen layers of train_slim.py, under a Supervisor."""
from __future__ import absolute_import
from __future__ import division
from __future__ import print_function

import os
import time

import numpy as np
import tensorflow as tf
from tensorflow.contrib import layers
from tensorflow.contrib import slim
from tensorflow.contrib.framework import arg_scope, assign_from_checkpoint_fn, get_or_create_global_step
from tensorflow.contrib.slim.nets import vgg
from tensorflow.python.ops import control_flow_ops

from digits_net import digits_arg_scope, digits_net

tf.app.flags.DEFINE_string('data', None, 'Arrays of images [N, 8, 8] and labels [N].')
tf.app.flags.DEFINE_string('checkpoint_path', None, 'The checkpoint to start from.')
tf.app.flags.DEFINE_string('log_dir', '/tmp/finetune', 'Where this training goes.')
tf.app.flags.DEFINE_integer('max_steps', 150, 'Number of steps.')
tf.app.flags.DEFINE_boolean('restore', True, 'Whether to start from the checkpoint.')
FLAGS = tf.app.flags.FLAGS


def head(net):
  """Two layers in the manner of VGG's last ones."""
  with arg_scope(vgg.vgg_arg_scope(weight_decay=1e-4)):
    net = layers.conv2d(net, 16, [4, 4], padding='VALID', scope='fc6')
  net = tf.squeeze(net, squeeze_dims=[1, 2])
  return layers.fully_connected(
      net, 2, activation_fn=None, weights_initializer=layers.xavier_initializer(),
      weights_regularizer=layers.l2_regularizer(1e-4), scope='parity')


def main(unused_argv):
  arrays = np.load(FLAGS.data)
  images, labels = arrays['images'], arrays['labels'] % 2
  num_train = len(images) * 4 // 5
  tf.set_random_seed(2)

  with tf.device('/cpu:0'):
    image, label = tf.train.slice_input_producer(
        [images[:num_train].astype(np.float32), labels[:num_train].astype(np.int32)])
    image_batch, label_batch = tf.train.batch([image, label], batch_size=32)
  x = tf.placeholder_with_default(image_batch, [None, 8, 8])
  inputs = tf.expand_dims(x * (1. / 255) - 0.5, dim=3)
  with slim.arg_scope(digits_arg_scope(is_training=False)):
    _, end_points = digits_net(inputs, 10)
  logits = head(end_points['digits_net/conv2'])

  predictions = tf.argmax(logits, dimension=1)
  variables_to_restore = slim.get_variables_to_restore(exclude=['fc6', 'parity'])
  loss = tf.losses.sparse_softmax_cross_entropy(label_batch, logits)
  total_loss = tf.losses.get_total_loss()
  global_step = get_or_create_global_step()
  train_op = layers.optimize_loss(
      total_loss, global_step, learning_rate=0.01, optimizer='Adam', clip_gradients=5.0,
      variables=slim.get_trainable_variables('fc6') + slim.get_trainable_variables('parity'))
  train_op = control_flow_ops.with_dependencies([tf.assert_non_negative(loss)], train_op)

  init_fn = None
  if FLAGS.restore:
    restore = assign_from_checkpoint_fn(FLAGS.checkpoint_path, variables_to_restore)
    init_fn = lambda sess: restore(sess)
  sv = tf.train.Supervisor(logdir=FLAGS.log_dir, init_fn=init_fn, global_step=global_step, save_model_secs=600)
  with sv.managed_session() as sess:
    started = time.time()
    while not sv.should_stop():
      value, step = sess.run([train_op, global_step])
      if step % 50 == 0:
        tf.logging.warn('step %d loss %.4f (%.1f s)', step, value, time.time() - started)
      if step >= FLAGS.max_steps:
        break
    predicted = sess.run(predictions, {x: images[num_train:]})
    print('test accuracy %g' % np.mean(predicted == labels[num_train:]))
    sv.saver.save(sess, os.path.join(FLAGS.log_dir, 'model.ckpt'), global_step=global_step)
    sv.stop()


if __name__ == '__main__':
  tf.app.run()
