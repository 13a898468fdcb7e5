"""The network that train_slim.py trains and finetune.py starts from."""
from __future__ import absolute_import
from __future__ import division
from __future__ import print_function

import tensorflow as tf
import tensorflow.contrib.slim as slim


def digits_arg_scope(is_training, weight_decay=0.0005):
  batch_norm_params = {'is_training': is_training, 'decay': 0.9, 'scale': True}
  with slim.arg_scope([slim.conv2d, slim.fully_connected],
                      weights_initializer=tf.contrib.layers.xavier_initializer(),
                      weights_regularizer=slim.l2_regularizer(weight_decay),
                      normalizer_fn=slim.batch_norm,
                      normalizer_params=batch_norm_params):
    with slim.arg_scope([slim.dropout], is_training=is_training) as sc:
      return sc


def digits_net(images, num_classes, scope='digits_net'):
  end_points_collection = scope + '_end_points'
  with tf.variable_scope(scope, 'digits_net', [images]):
    with slim.arg_scope([slim.conv2d, slim.max_pool2d], outputs_collections=end_points_collection):
      net = slim.repeat(images, 2, slim.conv2d, 16, [3, 3], scope='conv1')
      net = slim.max_pool2d(net, [2, 2], scope='pool1')
      net = slim.conv2d(net, 32, [3, 3], scope='conv2')
      net = slim.flatten(net)
      net = slim.dropout(net, 0.8, scope='dropout')
      logits = slim.fully_connected(net, num_classes, activation_fn=None, normalizer_fn=None, scope='logits')
  return logits, slim.utils.convert_collection_to_dict(end_points_collection)
