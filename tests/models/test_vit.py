"""The vision transformer is timm's, however it computes attention."""

from __future__ import annotations

import pytest
import torch
from timm.models.vision_transformer import Attention

from lavis_lite.models.layers.vit import BlipVisionTransformer, VisionSizes


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 2e-2)])
@pytest.mark.parametrize("autocast", [False, True])
@torch.no_grad()
def test_attention_without_gradients_is_that_of_timm(dtype, tolerance, autocast):
    torch.manual_seed(0)
    vision = BlipVisionTransformer(VisionSizes(48, 2, 3, 8), image_size=32).eval()
    images = torch.randn(3, 3, 32, 32)
    if not autocast:
        vision, images = vision.to(dtype), images.to(dtype)
    with torch.autocast("cpu", dtype, enabled=autocast and dtype != torch.float32):
        ours = vision(images)
        for block in vision.blocks:
            block.attn.__class__ = Attention
        expected = vision(images)
    torch.testing.assert_close(ours.float(), expected.float(), atol=tolerance, rtol=tolerance)
