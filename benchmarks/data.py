"""Images a second of the training data pipeline, on one core: ours and plain torchvision's.

    python benchmarks/data.py --images 256 --json data.json

Both read the same JPEG files, crop, flip, resize to 384, normalise and collate in one worker. From files
and from tar shards; BLIP's RandomAugment is timed apart, for torchvision's pipeline has none.
"""

from __future__ import annotations

import argparse
import io
import json
import tarfile
import tempfile
from collections.abc import Callable
from pathlib import Path

import torch
from PIL import Image
from side_by_side import add_common_arguments, print_table, save, time_side_by_side
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms
from torchvision.datasets.folder import default_loader

from lavis_lite.datasets.caption import CaptionDataset
from lavis_lite.datasets.loading import TrainLoader
from lavis_lite.datasets.web.dataset import WebDataset
from lavis_lite.datasets.web.loader import WebTrainLoader
from lavis_lite.datasets.web.shards import list_shards
from lavis_lite.processors import load_processor
from lavis_lite.processors.image import CLIP_MEAN, CLIP_STD

SIDE = 384


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    add_common_arguments(parser)
    parser.add_argument("--images", type=int, default=256)
    parser.add_argument("--width", type=int, default=640, help="of the files; three quarters of it high")
    parser.add_argument("--batch-size", type=int, default=16)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        annotations = write_images(Path(folder), arguments)
        ways = {
            "torchvision and DataLoader": plain_way(Path(folder), annotations, arguments),
            "lavis_lite, files": files_way(Path(folder), annotations, arguments, random_augment=False),
            "lavis_lite, shards": shards_way(Path(folder), annotations, arguments),
            "lavis_lite, files, RandomAugment": files_way(
                Path(folder), annotations, arguments, random_augment=True
            ),
        }
        title = (
            f"read, augment and collate {arguments.images} JPEG files of {arguments.width} pixels, one worker"
        )
        timings = time_side_by_side(ways, arguments.repeats)
    print_table(title, timings, against="torchvision and DataLoader")
    for timing in timings:
        print(f"  {timing.name}: {arguments.images / timing.median_seconds:.1f} images a second")
    save(arguments.json, {title: timings})


def write_images(folder: Path, arguments: argparse.Namespace) -> list[dict[str, str]]:
    size = (arguments.width, arguments.width * 3 // 4)
    annotations = []
    for number in range(arguments.images):
        noise = Image.effect_noise((size[0] // 8, size[1] // 8), 90).resize(size, Image.Resampling.BICUBIC)
        Image.merge("RGB", (noise, noise.rotate(180), noise)).save(folder / f"{number}.jpg", quality=90)
        annotations.append({"image": f"{number}.jpg", "caption": f"picture number {number}"})
    return annotations


class Plain(Dataset):
    """What a tutorial would write."""

    def __init__(self, folder: Path, annotations: list[dict[str, str]]) -> None:
        self.folder, self.annotations = folder, annotations
        self.transform = transforms.Compose(
            [
                transforms.RandomResizedCrop(
                    SIDE, scale=(0.5, 1.0), interpolation=transforms.InterpolationMode.BICUBIC
                ),
                transforms.RandomHorizontalFlip(),
                transforms.ToTensor(),
                transforms.Normalize(CLIP_MEAN, CLIP_STD),
            ]
        )

    def __len__(self) -> int:
        return len(self.annotations)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, str]:
        annotation = self.annotations[index]
        return self.transform(default_loader(str(self.folder / annotation["image"]))), annotation["caption"]


def plain_way(
    folder: Path, annotations: list[dict[str, str]], arguments: argparse.Namespace
) -> Callable[[], int]:
    loader = DataLoader(
        Plain(folder, annotations),
        arguments.batch_size,
        shuffle=True,
        num_workers=1,
        persistent_workers=True,
        drop_last=True,
    )
    return lambda: sum(len(images) for images, _ in loader)


def processors(random_augment: bool) -> tuple[Callable, Callable]:
    vision = load_processor("blip_image_train", {"image_size": SIDE, "random_augment": random_augment})
    return vision, load_processor("blip_caption")


def files_way(
    folder: Path, annotations: list[dict[str, str]], arguments: argparse.Namespace, random_augment: bool
) -> Callable[[], int]:
    dataset = CaptionDataset(annotations, folder, *processors(random_augment))
    loader = TrainLoader(dataset, arguments.batch_size, seed=0, num_workers=1)
    epochs = iter(range(1 << 30))
    return lambda: sum(len(batch["image"]) for batch in loader.epoch(next(epochs)))


def shards_way(
    folder: Path, annotations: list[dict[str, str]], arguments: argparse.Namespace
) -> Callable[[], int]:
    shard = folder / "all.tar"
    with tarfile.open(shard, "w") as tar:
        for number, annotation in enumerate(annotations):
            about = json.dumps(annotation).encode()
            for suffix, content in (
                ("jpg", (folder / annotation["image"]).read_bytes()),
                ("json", about),
                ("txt", annotation["caption"].encode()),
            ):
                member = tarfile.TarInfo(f"{number:06d}.{suffix}")
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))
    dataset = WebDataset(list_shards([str(shard)]), *processors(random_augment=False), shuffle_buffer=64)
    loader = WebTrainLoader(dataset, arguments.batch_size, seed=0, num_workers=1)
    epochs = iter(range(1 << 30))
    return lambda: sum(len(batch["image"]) for batch in loader.epoch(next(epochs)))


if __name__ == "__main__":
    main()
