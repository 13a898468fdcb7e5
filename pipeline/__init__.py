"""From files on disk to batches of tensors.

convert      raw pictures to TFRecord shards and dataset.json: python -m pipeline.convert NAME --out DIR
sources      the data sets that convert knows, one function each
images       checks, decodes and encodes picture files
records      shards, dataset.json and the index of record offsets
preprocess   what a decoded picture becomes in training and in evaluation, one family a function
dataset      the tf.data graph: batches whose order is a function of (seed, epoch, position)
"""
