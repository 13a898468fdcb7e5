"""From files on disk to batches of tensors.

convert       raw pictures to TFRecord shards and dataset.json: python -m pipeline.convert NAME --out DIR
check         checks every record of a data set and draws samples: python -m pipeline.check DIR
prepare       the data of a run, made where they are missing

dataset       a directory of shards: classes, splits, statistics
index         shard and byte offset of each record of a split
examples      the record of a picture, parsed
batches       the tf.data graph: batches whose order is a function of (seed, epoch, position)
corruption    corrupt records: examined, named, replaced
pictures      the decoder and the resize
preprocess    from a picture to the net's input: cut and normalization, one row for each family
normalize     normalization of pixel values
augmentation  the random changes of training
montage       sheets of pictures

images        decodes and encodes picture files, without TensorFlow
tfrecord      writes and reads TFRecord files, without TensorFlow
shard_index   offsets and faults of the records of a shard, found once
statistics    statistics of the training pictures
"""
