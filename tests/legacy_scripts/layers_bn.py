"""tf.layers with batch normalization, trained in a MonitoredTrainingSession."""
import argparse
import os

import numpy as np
import tensorflow as tf


def model(images, is_training):
  net = tf.layers.conv2d(images, 16, 3, padding='same', use_bias=False, name='conv1')
  net = tf.nn.relu(tf.layers.batch_normalization(net, training=is_training, momentum=0.9, name='bn1'))
  net = tf.layers.max_pooling2d(net, 2, 2)
  net = tf.layers.conv2d(net, 32, 3, activation=tf.nn.relu, name='conv2',
                         kernel_regularizer=tf.contrib.layers.l2_regularizer(1e-4))
  net = tf.layers.dropout(tf.layers.flatten(net), rate=0.2, training=is_training)
  return tf.layers.dense(net, 10, name='logits')


def main():
  parser = argparse.ArgumentParser()
  parser.add_argument('--data')
  parser.add_argument('--logdir')
  parser.add_argument('--steps', type=int, default=150)
  args = parser.parse_args()
  tf.logging.set_verbosity(tf.logging.INFO)
  arrays = np.load(args.data)
  images, labels = arrays['images'][..., None] / 255., arrays['labels']
  num_train = len(images) * 4 // 5

  is_training = tf.placeholder_with_default(False, [], name='is_training')
  dataset = tf.data.Dataset.from_tensor_slices((images[:num_train].astype('float32'), labels[:num_train]))
  iterator = dataset.shuffle(2000, seed=3).repeat().batch(32).make_one_shot_iterator()
  batch_images, batch_labels = iterator.get_next()
  x = tf.placeholder_with_default(batch_images, [None, 8, 8, 1])
  y = tf.placeholder_with_default(batch_labels, [None])
  logits = model(x, is_training)
  loss = tf.losses.sparse_softmax_cross_entropy(labels=y, logits=logits) + tf.losses.get_regularization_loss()
  accuracy, update_accuracy = tf.metrics.accuracy(y, tf.argmax(logits, 1))
  global_step = tf.train.get_or_create_global_step()
  with tf.control_dependencies(tf.get_collection(tf.GraphKeys.UPDATE_OPS)):
    train_op = tf.train.AdamOptimizer(0.005).minimize(loss, global_step=global_step)
  tf.summary.scalar('loss', loss)

  hooks = [tf.train.StopAtStepHook(last_step=args.steps), tf.train.NanTensorHook(loss),
           tf.train.LoggingTensorHook({'loss': loss}, every_n_iter=50)]
  with tf.train.MonitoredTrainingSession(checkpoint_dir=args.logdir, hooks=hooks, save_summaries_steps=50) as sess:
    while not sess.should_stop():
      sess.run(train_op, {is_training: True})

  with tf.Session() as sess:
    sess.run(tf.local_variables_initializer())
    tf.train.Saver().restore(sess, tf.train.latest_checkpoint(args.logdir))
    sess.run(update_accuracy, {x: images[num_train:], y: labels[num_train:]})
    print('test accuracy %g' % sess.run(accuracy))
    print('moved %s' % np.abs(sess.run('bn1/moving_mean:0')).max())


if __name__ == '__main__':
  main()
