"""Published weights: their addresses, and downloading them into the cache as checkpoints.

TF-Slim's archives hold a V1 checkpoint, which is one file, or a V2 one among other files. Keras's .h5 files are
converted after the download. TF-Slim never published checksums. The sums here are those that other projects pin for the
same addresses: SHA-256 and SHA-384 by OpenVINO's model zoo, Nix and Yocto recipes; the MD5 of inception_resnet_v2 by a
converter to Keras. The other MD5 sums are Keras's own. Without a checksum, only the checkpoint's own CRCs are checked.
"""

import re
import shutil
import sys
import tarfile
from pathlib import Path
from typing import NamedTuple

import pooch

from checkpoints import damage
from errors import UserError, unknown, why_not_fetched
from files import MOST_BYTES, atomic_directory
from nets.weights.keras_files import import_keras

pooch.get_logger().setLevel("WARNING")  # by default it prints checksums to copy into code

_SLIM = "http://download.tensorflow.org/models/{net}_{}.tar.gz"
_MOBILENET = "http://download.tensorflow.org/models/mobilenet_v1_2018_02_22/mobilenet_v1_{}_224.tgz"
_MOBILENET_V2 = "https://storage.googleapis.com/mobilenet_v2/checkpoints/mobilenet_v2_{}_224.tgz"
_MOBILENET_V3 = "https://storage.googleapis.com/mobilenet_v3/checkpoints/v3-{}_float.tgz"
_NASNET = "https://storage.googleapis.com/download.tensorflow.org/models/{}.tar.gz"
_KERAS = "https://storage.googleapis.com/tensorflow/keras-applications/{}"
_KERAS_KERNELS = _KERAS.format("{}_weights_tf_dim_ordering_tf_kernels.h5")
_KERAS_MOBILENET = _KERAS.format("mobilenet/mobilenet_{}_224_tf.h5")
_KERAS_MOBILENET_V2 = _KERAS.format("mobilenet_v2/mobilenet_v2_weights_tf_dim_ordering_tf_kernels_{}_224.h5")
_KERAS_MOBILENET_V3 = _KERAS.format("mobilenet_v3/weights_mobilenet_v3_{}_float.h5")
_ROWS = {  # the address, its variable part, and the checksum
    "vgg_16": (_SLIM, "2016_08_28", None),
    "vgg_19": (_SLIM, "2016_08_28", None),
    "inception_v1": (_SLIM, "2016_08_28", "sha256:7a620c430fcaba8f8f716241f5148c4c47c035cce4e49ef02cfbe6cd1adf96a6"),
    "inception_v2": (
        *(_SLIM, "2016_08_28"),
        "sha384:c0b2efbae8fc5e237ae67637dca3f311d4b4f7da576b56067e83d95c398a2fccd50baff9cc0de64335f4d7b78e1adb07",
    ),
    "inception_v3": (_SLIM, "2016_08_28", None),
    "inception_v4": (_SLIM, "2016_09_09", None),
    "inception_resnet_v2": (_SLIM, "2016_08_30", "md5:9e0f18e1259acf943e30690460d96123"),
    "resnet_v1_50": (_SLIM, "2016_08_28", "sha256:91a0dc25289e7ef648df304b15f06c43ce6f4446d08eb0168479dd2295101c73"),
    "resnet_v1_101": (_SLIM, "2016_08_28", "sha256:5d813fcf5e56e7c9c2483d73b46644394cdbb31f9f4bf7140fb2809f7aa11a19"),
    "resnet_v1_152": (_SLIM, "2016_08_28", "sha256:c89b549ada486d9c0db6d90e874a1a652d899f9b541ae9c430fee8251572181d"),
    "resnet_v2_50": (_SLIM, "2017_04_14", None),
    "resnet_v2_101": (_SLIM, "2017_04_14", None),
    "resnet_v2_152": (_SLIM, "2017_04_14", None),
    "mobilenet_v1": (_MOBILENET, "1.0", "sha256:1ccb74dbd9c5f7aea879120614e91617db9534bdfaa53dfea54b7c14162e126b"),
    "mobilenet_v1_075": (_MOBILENET, "0.75", "sha256:bf61b3ce7ca2d045bb35fa6ab9a68732e3531291266db4a8c7715227d7425657"),
    "mobilenet_v1_050": (_MOBILENET, "0.5", "sha256:0eb9be8d18dcf9466a2a2d2157e71c83cd70dc168255d76d72bfe965318db725"),
    "mobilenet_v1_025": (_MOBILENET, "0.25", "sha256:eee166d4d1de004e2ee5de19a4f5045574d764ef59569dc284545f805a295074"),
    "mobilenet_v2_140": (
        *(_MOBILENET_V2, "1.4"),
        "sha384:fd257f73e8ee5280328903afa6bbd646dcf4e8ae7c090e3424cf05d973c0940fe02ee220a3a5a20ea51cb9caacbf4961",
    ),
    "mobilenet_v2_130": (_MOBILENET_V2, "1.3", None),
    "mobilenet_v2": (_MOBILENET_V2, "1.0", "sha256:318084bc1b63d6d7b854553e09cdf77078b1c0168be27c59a0d44253b5ed49dc"),
    "mobilenet_v2_075": (_MOBILENET_V2, "0.75", None),
    "mobilenet_v2_050": (_MOBILENET_V2, "0.5", None),
    "mobilenet_v2_035": (_MOBILENET_V2, "0.35", None),
    "mobilenet_v3_large": (_MOBILENET_V3, "large_224_1.0", None),
    "mobilenet_v3_large_075": (_MOBILENET_V3, "large_224_0.75", None),
    "mobilenet_v3_small_075": (_MOBILENET_V3, "small_224_0.75", None),
    "mobilenet_v3_small": (
        *(_MOBILENET_V3, "small_224_1.0"),
        "sha256:e60ad9f450f892ae56f8b9122ffc750d88940d9e6b63f6dc70649179fb3a9065",
    ),
    "mobilenet_v3_large_minimalistic": (_MOBILENET_V3, "large-minimalistic_224_1.0", None),
    "mobilenet_v3_small_minimalistic": (_MOBILENET_V3, "small-minimalistic_224_1.0", None),
    "nasnet_mobile": (_NASNET, "nasnet-a_mobile_04_10_2017", None),
    "nasnet_large": (_NASNET, "nasnet-a_large_04_10_2017", None),
    "pnasnet_mobile": (_NASNET, "pnasnet-5_mobile_2017_12_13", None),
    "pnasnet_large": (_NASNET, "pnasnet-5_large_2017_12_13", None),
    "keras_vgg_16": (_KERAS_KERNELS, "vgg16/vgg16", "md5:64373286793e3c8b2b4e3219cbf3544b"),
    "keras_vgg_19": (_KERAS_KERNELS, "vgg19/vgg19", "md5:cbe5617147190e668d6c5d5026f83318"),
    "keras_inception_v3": (_KERAS_KERNELS, "inception_v3/inception_v3", "md5:9a0d58056eeedaa3f26cb7ebd46da564"),
    "keras_inception_resnet_v2": (
        *(_KERAS_KERNELS, "inception_resnet_v2/inception_resnet_v2"),
        "md5:e693bd0210a403b3192acc6073ad2e96",
    ),
    "keras_resnet50": (_KERAS_KERNELS, "resnet/resnet50", "md5:2cb95161c43110f7111970584f804107"),
    "keras_resnet_v2_50": (_KERAS_KERNELS, "resnet/resnet50v2", "md5:3ef43a0b657b3be2300d5770ece849e0"),
    "keras_resnet_v2_101": (_KERAS_KERNELS, "resnet/resnet101v2", "md5:6343647c601c52e1368623803854d971"),
    "keras_resnet_v2_152": (_KERAS_KERNELS, "resnet/resnet152v2", "md5:a49b44d1979771252814e80f8ec446f9"),
    "keras_densenet_121": (_KERAS_KERNELS, "densenet/densenet121", "md5:9d60b8095a5708f2dcce2bca79d332c7"),
    "keras_densenet_169": (_KERAS_KERNELS, "densenet/densenet169", "md5:d699b8f76981ab1b30698df4c175e90b"),
    "keras_densenet_201": (_KERAS_KERNELS, "densenet/densenet201", "md5:1ceb130c1ea1b78c3bf6114dbdfd8807"),
    "keras_mobilenet_v1": (_KERAS_MOBILENET, "1_0", None),
    "keras_mobilenet_v1_075": (_KERAS_MOBILENET, "7_5", None),
    "keras_mobilenet_v1_050": (_KERAS_MOBILENET, "5_0", None),
    "keras_mobilenet_v1_025": (_KERAS_MOBILENET, "2_5", None),
    "keras_mobilenet_v2_140": (_KERAS_MOBILENET_V2, "1.4", None),
    "keras_mobilenet_v2_130": (_KERAS_MOBILENET_V2, "1.3", None),
    "keras_mobilenet_v2": (_KERAS_MOBILENET_V2, "1.0", None),
    "keras_mobilenet_v2_075": (_KERAS_MOBILENET_V2, "0.75", None),
    "keras_mobilenet_v2_050": (_KERAS_MOBILENET_V2, "0.5", None),
    "keras_mobilenet_v2_035": (_KERAS_MOBILENET_V2, "0.35", None),
    "keras_mobilenet_v3_large": (_KERAS_MOBILENET_V3, "large_224_1.0", "md5:59e551e166be033d707958cf9e29a6a7"),
    "keras_mobilenet_v3_large_075": (_KERAS_MOBILENET_V3, "large_224_0.75", "md5:765b44a33ad4005b3ac83185abf1d0eb"),
    "keras_mobilenet_v3_small": (_KERAS_MOBILENET_V3, "small_224_1.0", "md5:8768d4c2e7dee89b9d02b2d03d65d862"),
    "keras_mobilenet_v3_small_075": (_KERAS_MOBILENET_V3, "small_224_0.75", "md5:cb65d4e5be93758266aa0a7f2c6708b7"),
    "keras_mobilenet_v3_large_minimalistic": (
        *(_KERAS_MOBILENET_V3, "large_minimalistic_224_1.0"),
        "md5:675e7b876c45c57e9e63e6d90a36599c",
    ),
    "keras_mobilenet_v3_small_minimalistic": (
        *(_KERAS_MOBILENET_V3, "small_minimalistic_224_1.0"),
        "md5:99cd97fb2fcdad2bf028eb838de69e37",
    ),
    "keras_nasnet_mobile": (_KERAS, "nasnet/NASNet-mobile.h5", "md5:020fb642bf7360b370c678b08e0adf61"),
    "keras_nasnet_large": (_KERAS, "nasnet/NASNet-large.h5", "md5:11577c9a518f0070763c2b964a382f17"),
}


class Published(NamedTuple):
    """A published file with weights."""

    net: str  # key of nets.NETS
    url: str
    checksum: str | None  # as pooch takes it


PUBLISHED: dict[str, Published] = {}
for _name, (_url, _part, _checksum) in _ROWS.items():
    _net = "resnet50_keras" if _name == "keras_resnet50" else _name.removeprefix("keras_")
    PUBLISHED[_name] = Published(_net, _url.format(_part, net=_net), _checksum)


def fetch(name: str) -> str:
    """Downloads published weights into the cache, and returns the prefix of their checkpoint. Converts Keras files.

    A file that is there already is checked and kept. Raises UserError for a name that is not in PUBLISHED, no network,
    a wrong checksum, a damaged file, an archive without a checkpoint.
    """
    if name not in PUBLISHED:
        raise unknown("file or name of published weights", name, PUBLISHED)
    net, url, checksum = PUBLISHED[name]
    directory, file_name = Path(pooch.os_cache("slimgraph")) / "weights", url.rpartition("/")[2]
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(
            f"the cache {directory} cannot be made ({error}); set XDG_CACHE_HOME to another directory"
        ) from None
    try:
        path = Path(pooch.retrieve(url, checksum, file_name, directory, progressbar=sys.stderr.isatty()))
    except (OSError, ValueError) as error:  # no network, or a wrong checksum
        use = "python -m nets.weights import" if file_name.endswith(".h5") else "--init-from, unpacked"
        raise UserError(
            f"{url} could not be downloaded ({why_not_fetched(error)}); if you have the file, give it to {use}"
        ) from None
    if path.suffix == ".h5":
        prefix = directory / name / "model.ckpt-0"
        if not prefix.parent.exists():
            import_keras(path, net, prefix.parent)
    else:
        prefix = _unpacked(path, directory / name)
    if wrong := damage(str(prefix)):
        raise UserError(f"{prefix} cannot be read ({wrong}); remove {prefix.parent} and {path}, and fetch it again")
    return str(prefix)


def _unpacked(archive: Path, directory: Path) -> Path:
    """Unpacks the checkpoint of an archive: a V1 file, or the prefix of a V2 one. The directory appears complete."""
    if not directory.is_dir():
        try:
            with atomic_directory(directory) as partial, tarfile.open(archive) as tar:
                for member in _checkpoint_of(tar.getmembers()):
                    member.name = Path(member.name).name  # without the archive's folders
                    if member.size > MOST_BYTES:
                        raise tarfile.TarError(f"{member.name} is larger than {MOST_BYTES >> 30} GiB")
                    tar.extract(member, partial, filter="data")
        except (tarfile.TarError, EOFError, OSError) as error:
            raise UserError(f"{archive} cannot be unpacked ({error}); remove it and fetch it again") from None
    for path in sorted(directory.iterdir()):
        if path.name.endswith((".ckpt", ".index")):
            return path.with_suffix("") if path.suffix == ".index" else path
    shutil.rmtree(directory)
    raise UserError(f"{archive} holds no checkpoint (NAME.ckpt, or NAME.ckpt.index and .data)")


def _checkpoint_of(members: list[tarfile.TarInfo]) -> list[tarfile.TarInfo]:
    """The files of the only checkpoint among an archive's members, or of the only one in a folder `ema`.

    MobileNet v3's archives hold EMA weights under the variables' own names in `ema`, and a training in `pristine`.
    Raises TarError for several checkpoints; none is an empty list.
    """
    files = [member for member in members if member.isfile() and not Path(member.name).name.startswith("._")]
    prefixes = [member.name.removesuffix(".index") for member in files if member.name.endswith((".index", ".ckpt"))]
    prefixes = [prefix for prefix in prefixes if "ema" in Path(prefix).parts] or prefixes
    if len(prefixes) > 1:
        raise tarfile.TarError(f"it holds several checkpoints: {', '.join(prefixes)}")
    parts = re.compile(rf"{re.escape(prefixes[0])}(\.index|\.data-\d+-of-\d+)?$") if prefixes else None
    return [member for member in files if parts and parts.match(member.name)]
