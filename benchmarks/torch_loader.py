"""The PyTorch part of input_pipeline.py: reads the same records and decodes them with OpenCV in two workers.

Reads a line of JSON (places, size, batch_size, seconds) from standard input and prints "ready". Then it answers each
further line with the measured pictures per second.
"""

import json
import math
import random
import struct
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

WORKERS = 2


def example_class() -> type:
    """The message class of tf.train.Example, without TensorFlow."""
    file = descriptor_pb2.FileDescriptorProto(name="example.proto", package="records", syntax="proto3")
    for name, field, kind in (("BytesList", "value", 12), ("Int64List", "value", 3)):
        file.message_type.add(name=name).field.add(name=field, number=1, type=kind, label=3)
    feature = file.message_type.add(name="Feature")
    feature.field.add(name="bytes_list", number=1, type=11, type_name=".records.BytesList", label=1)
    feature.field.add(name="int64_list", number=3, type=11, type_name=".records.Int64List", label=1)
    features = file.message_type.add(name="Features")
    entry = features.nested_type.add(name="FeatureEntry")
    entry.options.map_entry = True
    entry.field.add(name="key", number=1, type=9, label=1)
    entry.field.add(name="value", number=2, type=11, type_name=".records.Feature", label=1)
    features.field.add(name="feature", number=1, type=11, type_name=".records.Features.FeatureEntry", label=3)
    example = file.message_type.add(name="Example")
    example.field.add(name="features", number=1, type=11, type_name=".records.Features", label=1)
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("records.Example"))


class Pictures(Dataset):
    """The records at (file, offset) places, repeated endlessly, with random crop, resize and flip."""

    def __init__(self, places: list, size: int):
        self.places, self.size, self.files, self.example = places, size, {}, None

    def __len__(self) -> int:
        return 10**9

    def __getitem__(self, i: int) -> tuple[torch.Tensor, int]:
        self.example = self.example or example_class()
        path, offset = self.places[i % len(self.places)]
        if path not in self.files:
            self.files[path] = open(path, "rb")  # noqa: SIM115 (open as long as the worker runs)
        file = self.files[path]
        file.seek(offset)
        (length,) = struct.unpack("<Q4x", file.read(12))
        features = self.example.FromString(file.read(length)).features.feature
        data = features["image/encoded"].bytes_list.value[0]
        picture = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR_RGB)
        top, left, height, width = self.box(*picture.shape[:2])
        picture = cv2.resize(picture[top : top + height, left : left + width], (self.size, self.size))
        if random.random() < 0.5:
            picture = picture[:, ::-1]
        values = picture.astype(np.float32) / 127.5 - 1
        return torch.from_numpy(values), features["image/class/label"].int64_list.value[0]

    def box(self, height: int, width: int) -> tuple[int, int, int, int]:
        """A random crop (top, left, height, width), chosen as by torchvision's RandomResizedCrop."""
        for _ in range(10):
            area = height * width * random.uniform(0.08, 1)
            aspect = math.exp(random.uniform(math.log(3 / 4), math.log(4 / 3)))
            w, h = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
            if 0 < w <= width and 0 < h <= height:
                return random.randint(0, height - h), random.randint(0, width - w), h, w
        return 0, 0, height, width


def start_worker(_: int) -> None:
    """Limits OpenCV to one thread, so that two workers use two cores."""
    cv2.setNumThreads(0)


def main() -> None:
    """Reads requests from standard input and prints the results."""
    settings = json.loads(sys.stdin.readline())
    order = np.random.default_rng(0).permutation(len(settings["places"])).tolist()
    pictures = Pictures([settings["places"][i] for i in order], settings["size"])
    batches = iter(DataLoader(pictures, settings["batch_size"], num_workers=WORKERS, worker_init_fn=start_worker))
    next(batches)
    print("ready", flush=True)
    for _ in sys.stdin:
        for _ in range(2 * WORKERS):  # batches prepared while the others were measured
            next(batches)
        began, count = time.perf_counter(), 0
        while time.perf_counter() - began < settings["seconds"]:
            next(batches)
            count += settings["batch_size"]
        print(count / (time.perf_counter() - began), flush=True)


if __name__ == "__main__":
    main()
