"""From files on disk to batches of tensors.

Picture files (images) are converted (convert) to shards of records (tfrecord) with their statistics. A data set
(dataset) finds and parses its records (index). Batches (batches) decode pictures (pictures) and
preprocess them (preprocess, augmentation); corrupt records are replaced (corruption). prepare makes the data of a run,
check examines every record, montage draws sheets of pictures.
"""
