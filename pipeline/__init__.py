"""From files on disk to batches of tensors.

convert      raw pictures to TFRecord shards and dataset.json: python -m pipeline.convert NAME --out DIR
check        every record of a data set looked at, and a sheet of samples: python -m pipeline.check DIR

sources      the data sets that convert knows, one function each
images       checks, decodes and encodes picture files
statistics   of the training pictures
regular      reads the user's files
tfrecord     shards written and walked without TensorFlow
shard_index  which records a shard holds and which are corrupt, found out once
records      dataset.json and the index of record offsets
pictures     the decoder: only the part of a picture that is needed
preprocess   what a picture becomes in training and in evaluation, one family a function
dataset      the tf.data graph: batches whose order is a function of (seed, epoch, position)
"""
