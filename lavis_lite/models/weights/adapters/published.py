"""Addresses of the published weights, and which of them hold the same ones.

No checksums were published. That two addresses hold the same weights is known from the hub's model
cards, from the script that made them, and from the captions that transformers' own tests expect.
"""

from __future__ import annotations

from collections.abc import Mapping

SERVER = "https://storage.googleapis.com/sfr-vision-language-research"
BLIP = f"{SERVER}/BLIP/models"
LAVIS = f"{SERVER}/LAVIS/models/BLIP"

# By name, all in Salesforce's layout.
URLS: Mapping[str, str] = {
    name: f"{folder}/{name}.pth"
    for folder, names in {
        BLIP: (
            "model_base_14M",
            "model_base",
            "model_base_capfilt_large",
            "model_large",
            "model_base_retrieval_coco",
            "model_base_retrieval_flickr",
            "model_large_retrieval_coco",
            "model_large_retrieval_flickr",
            "model_base_caption_capfilt_large",
            "model_large_caption",
            "model_vqa",
            "model_base_vqa_capfilt_large",
            "model_base_nlvr",
        ),
        LAVIS: (
            "blip_coco_caption_base",
            "blip_coco_retrieval",
            "blip_flickr_retrieval",
            "blip_okvqa",
            "blip_aokvqa",
        ),
    }.items()
    for name in names
}

# Hub repositories, in the layout of transformers. LAVIS's own training runs have none.
HUB_NAMES: Mapping[str, str] = {
    "model_base_caption_capfilt_large": "Salesforce/blip-image-captioning-base",
    "model_large_caption": "Salesforce/blip-image-captioning-large",
    "model_vqa": "Salesforce/blip-vqa-base",
    "model_base_vqa_capfilt_large": "Salesforce/blip-vqa-capfilt-large",
    "model_base_retrieval_coco": "Salesforce/blip-itm-base-coco",
    "model_large_retrieval_coco": "Salesforce/blip-itm-large-coco",
    "model_base_retrieval_flickr": "Salesforce/blip-itm-base-flickr",
    "model_large_retrieval_flickr": "Salesforce/blip-itm-large-flickr",
}


def same_weights(address: str) -> list[str]:
    """Return the other addresses of the weights at `address`, the URL of a file or a hub name.

    A hub repository has no momentum copies and no queues, which inference does not need.

    >>> same_weights("Salesforce/blip-vqa-base")
    ['https://storage.googleapis.com/sfr-vision-language-research/BLIP/models/model_vqa.pth']
    """
    twins = {URLS[name]: hub_name for name, hub_name in HUB_NAMES.items()}
    twins |= {hub_name: url for url, hub_name in twins.items()}
    return [twins[address]] if address in twins else []
