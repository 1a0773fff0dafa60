"""Weights cross to transformers, to Salesforce's files and back without a bit changed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
import transformers
from PIL import Image
from safetensors.torch import load_file
from transformers import BlipProcessor

from lavis_lite import load_model
from lavis_lite.common.checkpoint.store import CheckpointError
from lavis_lite.common.config.schema import ConfigError
from lavis_lite.models.base_model import BaseModel
from lavis_lite.models.layers.text_config import TextConfig
from lavis_lite.models.layers.vit import VisionSizes
from lavis_lite.models.weights.adapters.salesforce import (
    double_cross_attention,
    encoder_from_decoder,
    fit_queues,
    momentum_from_online,
    to_salesforce,
)
from lavis_lite.models.weights.adapters.transformers import (
    CLASS_NAMES,
    from_transformers,
    kind_of,
    to_transformers,
)
from lavis_lite.models.weights.adapters.transformers_export import write_transformers_folder
from lavis_lite.models.weights.adapters.transformers_folder import read_transformers_folder
from lavis_lite.processors.image import BlipImageEvalProcessor

ARCHES = {"caption": "blip_caption", "vqa": "blip_vqa", "itm": "blip_image_text_matching"}
KINDS = tuple(ARCHES)
# No two sizes are alike, and none is a default of transformers.
SIZES = {
    "vit_type": {"embed_dim": 48, "depth": 2, "num_heads": 3, "patch_size": 8},
    "image_size": 32,
    "med_config": {
        "hidden_size": 48,
        "num_hidden_layers": 3,
        "num_attention_heads": 2,
        "intermediate_size": 80,
        "max_position_embeddings": 40,
        "layer_norm_eps": 1e-9,
    },
}


def build(arch: str, **settings: object) -> BaseModel:
    torch.manual_seed(0)
    model = load_model(arch, "tiny", is_eval=True, **{**SIZES, **settings})
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.2)
    return model


def same(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    return first.keys() == second.keys() and all(
        first[key].dtype == second[key].dtype and torch.equal(first[key], second[key]) for key in first
    )


@pytest.fixture(scope="module")
def ours() -> dict[str, BaseModel]:
    return {kind: build(arch) for kind, arch in ARCHES.items()}


@pytest.fixture(scope="module")
def folders(ours, tmp_path_factory) -> dict[str, Path]:
    return {kind: ours[kind].save_transformers(tmp_path_factory.mktemp(kind)) for kind in KINDS}


@pytest.fixture(scope="module")
def peers(folders) -> dict[str, transformers.PreTrainedModel]:
    loaded = {}
    for kind, folder in folders.items():
        peer_class = getattr(transformers, CLASS_NAMES[kind])
        peer, report = peer_class.from_pretrained(folder, output_loading_info=True)
        assert not any(report.values()), (kind, report)
        loaded[kind] = peer.eval()
    return loaded


def images() -> torch.Tensor:
    return torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("kind", KINDS)
def test_names_go_to_transformers_and_back_without_a_bit_changed(ours, kind):
    state_dict = ours[kind].state_dict()
    assert kind_of(state_dict) == kind
    assert same(from_transformers(to_transformers(state_dict)), state_dict)


@pytest.mark.parametrize("kind", KINDS)
def test_transformers_holds_the_very_weights_that_were_exported(ours, peers, kind):
    assert same(dict(peers[kind].state_dict()), to_transformers(ours[kind].state_dict()))


@pytest.mark.parametrize("kind", KINDS)
def test_an_exported_folder_reads_back_as_a_model_of_the_same_settings(ours, folders, kind):
    read = read_transformers_folder(folders[kind])
    assert (read.kind, same(read.state_dict, ours[kind].state_dict())) == (kind, True)
    again = type(ours[kind]).from_config(read.settings)
    again.load_weights(read.state_dict, source=kind)
    assert same(dict(again.state_dict()), dict(ours[kind].state_dict()))
    assert again.config.vision_sizes == ours[kind].config.vision_sizes
    dropout = {"hidden_dropout_prob": 0.1, "attention_probs_dropout_prob": 0.1, "initializer_range": 0.02}
    assert vars(again.text_config) == {**vars(ours[kind].text_config), **dropout}


@torch.inference_mode()
def test_an_exported_captioner_has_the_same_loss_and_says_the_same(ours, peers):
    model = ours["caption"]
    texts = ["a picture of a red circle", "a picture of two shapes and a star"]
    tokens = model.tokenizer(texts, padding=True, return_tensors="pt")
    labels = tokens.input_ids.masked_fill(tokens.attention_mask == 0, -100)
    labels[:, :4] = -100
    tokens.input_ids[:, 0] = model.dec_token_id
    inputs = {"input_ids": tokens.input_ids, "attention_mask": tokens.attention_mask}
    loss = peers["caption"](pixel_values=images(), labels=labels, **inputs).loss
    torch.testing.assert_close(
        model({"image": images(), "text_input": texts}).loss, loss, atol=1e-4, rtol=1e-4
    )
    captions = model.generate({"image": images()}, num_beams=1, max_length=12, min_length=0)
    prompt = model.tokenizer(["a picture of"] * 2, return_tensors="pt").input_ids
    said = peers["caption"].generate(images(), prompt, do_sample=False, num_beams=1, max_length=12)
    assert model.tokenizer.batch_decode(said[:, 4:], skip_special_tokens=True) == captions


@torch.inference_mode()
def test_an_exported_answerer_says_the_same_to_questions_with_enc(ours, peers):
    model = ours["vqa"]
    questions = ["is the star red", "is the star big"]
    samples = {"image": images(), "text_input": questions}
    settings = {"inference_method": "generate", "num_beams": 1, "max_len": 8, "min_len": 0}
    tokens = model.tokenizer(questions, padding=True, return_tensors="pt")
    assert tokens.attention_mask.all()  # transformers forgets about padding when it answers
    tokens.input_ids[:, 0] = model.enc_token_id
    said = peers["vqa"].generate(tokens.input_ids, images(), do_sample=False, num_beams=1, max_length=8)
    answers = model.tokenizer.batch_decode(said, skip_special_tokens=True)
    assert model.predict_answers(samples, **settings) == answers
    assert all(answers)


@torch.inference_mode()
def test_an_exported_matcher_scores_the_same(peers):
    model = build("blip_image_text_matching", itm_first_token="cls")
    texts = ["a red circle", "a small star"]
    tokens = model.tokenizer(texts, padding=True, return_tensors="pt").to("cpu")
    inputs = {"input_ids": tokens.input_ids, "attention_mask": tokens.attention_mask}
    theirs = peers["itm"](pixel_values=images(), **inputs).itm_score
    scores = model({"image": images(), "text_input": texts}, match_head="itm")
    torch.testing.assert_close(scores, theirs, atol=1e-4, rtol=1e-4)


def test_an_exported_folder_has_the_processor_that_the_model_was_trained_with(ours, folders):
    processor = BlipProcessor.from_pretrained(folders["caption"])
    text = "two stars"
    assert processor.tokenizer(text).input_ids == ours["caption"].tokenizer(text).input_ids
    assert processor.tokenizer.bos_token_id == ours["caption"].dec_token_id
    assert processor.tokenizer.convert_tokens_to_ids("[ENC]") == ours["caption"].enc_token_id
    picture = Image.effect_noise((70, 50), 80).convert("RGB")
    pixels = BlipImageEvalProcessor.from_config({"image_size": 32})(picture)
    theirs = processor(images=picture, return_tensors="pt").pixel_values[0]
    assert theirs.shape == (3, 32, 32)
    # Their torchvision may round a pixel to the next of 256 steps, which is 0.0146 after scaling.
    assert (pixels - theirs).abs().max() < 0.03


def test_exporting_leaves_the_tokenizer_of_the_model_as_it_was(ours, folders):
    assert "token_type_ids" in ours["caption"].tokenizer("a star")


def test_the_files_of_the_tied_head_are_not_written_twice(folders):
    names = load_file(folders["vqa"] / "model.safetensors").keys()
    assert not [name for name in names if ".predictions.decoder." in name or "position_ids" in name]


def test_an_exported_config_names_what_the_defaults_of_transformers_would_get_wrong(ours, folders):
    config = json.loads((folders["itm"] / "config.json").read_text())
    assert config["architectures"] == ["BlipForImageTextRetrieval"]
    assert config["vision_config"]["layer_norm_eps"] == 1e-6
    assert config["text_config"]["num_attention_heads"] == 2
    assert config["text_config"]["eos_token_id"] == ours["itm"].tokenizer.sep_token_id
    assert config["image_text_hidden_size"] == config["projection_dim"] == ours["itm"].config.embed_dim


@pytest.mark.parametrize("kind", KINDS)
def test_shards_read_as_the_whole(ours, peers, kind, tmp_path):
    peers[kind].save_pretrained(tmp_path, max_shard_size="100KB")
    assert len(list(tmp_path.glob("model-*.safetensors"))) > 2
    assert same(read_transformers_folder(tmp_path).state_dict, ours[kind].state_dict())


def test_a_missing_shard_is_named(peers, tmp_path):
    peers["caption"].save_pretrained(tmp_path, max_shard_size="100KB")
    lost = sorted(tmp_path.glob("model-*.safetensors"))[1]
    lost.unlink()
    with pytest.raises(CheckpointError, match=lost.name):
        read_transformers_folder(tmp_path)


def test_an_index_cannot_point_out_of_its_folder(folders, tmp_path):
    (tmp_path / "config.json").write_bytes((folders["caption"] / "config.json").read_bytes())
    index = {"weight_map": {"itm_head.bias": f"../{folders['itm'].name}/model.safetensors"}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(CheckpointError, match="no file beside it"):
        read_transformers_folder(tmp_path)


def test_an_old_repository_with_a_pickle_and_position_ids_reads_the_same(ours, peers, folders, tmp_path):
    old = dict(peers["vqa"].state_dict())  # with the tied head, as they were written before safetensors
    positions = torch.arange(40)[None]
    old["text_encoder.embeddings.position_ids"] = positions
    old["text_decoder.bert.embeddings.position_ids"] = positions
    torch.save(old, tmp_path / "pytorch_model.bin")
    config = json.loads((folders["vqa"] / "config.json").read_text())
    del config["text_config"]["encoder_hidden_size"]
    config["text_config"] |= {"add_cross_attention": False, "torch_dtype": None, "length_penalty": 1.0}
    config |= {"_commit_hash": None, "torch_dtype": "float32", "transformers_version": None}
    (tmp_path / "config.json").write_text(json.dumps(config))
    read = read_transformers_folder(tmp_path)
    assert same(read.state_dict, ours["vqa"].state_dict())
    assert "tokenizer" not in read.settings


def test_a_config_without_heads_means_the_default_of_transformers(folders, tmp_path):
    config = json.loads((folders["caption"] / "config.json").read_text())
    del config["text_config"]["num_attention_heads"]
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "model.safetensors").write_bytes((folders["caption"] / "model.safetensors").read_bytes())
    settings = read_transformers_folder(tmp_path).settings
    assert settings["med_config"]["num_attention_heads"] == 8


def test_the_published_sizes_are_called_by_their_name(folders, tmp_path):
    config = json.loads((folders["caption"] / "config.json").read_text())
    config["vision_config"] |= {
        "hidden_size": 1024,
        "num_hidden_layers": 24,
        "num_attention_heads": 16,
        "intermediate_size": 4096,
        "patch_size": 16,
    }
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "model.safetensors").write_bytes((folders["caption"] / "model.safetensors").read_bytes())
    assert read_transformers_folder(tmp_path).settings["vit_type"] == "large"


@pytest.mark.parametrize(
    "config",
    [
        b"[" * 99999,
        b"\xff{}",
        b"null",
        b'{"model_type": "blip", "architectures": {"a": 1}}',
        b'{"model_type": ["blip"]}',
        b'{"model_type": "blip", "text_config": [1]}',
        b'{"model_type": "blip", "text_config": {"hidden_size": "wide"}}',
        b'{"model_type": "blip", "vision_config": {"patch_size": 0}}',
        b'{"model_type": "blip", "vision_config": {"image_size": 0}}',
        b'{"model_type": "blip", "text_config": {"num_attention_heads": 0}}',
    ],
)
def test_damaged_configs_are_refused_in_one_error(folders, tmp_path, config):
    (tmp_path / "config.json").write_bytes(config)
    (tmp_path / "model.safetensors").write_bytes((folders["caption"] / "model.safetensors").read_bytes())
    with pytest.raises((CheckpointError, ConfigError)):
        load_model("blip_caption", "tiny", checkpoint=tmp_path)


@pytest.mark.parametrize(
    "index", ["[1]", "{}", '{"weight_map": {}}', '{"weight_map": {"a": 1}}', "[" * 99999]
)
def test_damaged_indexes_are_refused_in_one_error(folders, tmp_path, index):
    (tmp_path / "config.json").write_bytes((folders["caption"] / "config.json").read_bytes())
    (tmp_path / "model.safetensors.index.json").write_text(index)
    with pytest.raises(CheckpointError, match="index"):
        read_transformers_folder(tmp_path)


@pytest.mark.parametrize(
    ("config", "complaint"),
    [
        ({"model_type": "bert", "architectures": ["BertModel"]}, "BertModel of type 'bert'"),
        ({"model_type": "blip", "architectures": ["BlipModel"]}, "BlipModel of type 'blip'"),
        ([], "is not the JSON of a config"),
    ],
)
def test_folders_of_other_models_are_refused(tmp_path, config, complaint):
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match=complaint):
        read_transformers_folder(tmp_path)


def test_a_pickle_of_something_else_is_refused(folders, tmp_path):
    (tmp_path / "config.json").write_bytes((folders["caption"] / "config.json").read_bytes())
    torch.save({"model": {}}, tmp_path / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match=r"pytorch_model\.bin: holds no state dict"):
        read_transformers_folder(tmp_path)


def test_a_folder_without_weights_is_refused(folders, tmp_path):
    (tmp_path / "config.json").write_bytes((folders["caption"] / "config.json").read_bytes())
    with pytest.raises(CheckpointError, match=r"no weights; expected one of model\.safetensors"):
        read_transformers_folder(tmp_path)


def test_a_pretrained_model_exports_as_the_kind_that_is_asked_for(tmp_path):
    model = build("blip_pretrain", queue_size=8)
    with pytest.raises(ValueError, match="say which: kind = 'caption', 'vqa', 'itm'"):
        to_transformers(model.state_dict())
    peer_class = transformers.BlipForImageTextRetrieval
    model.save_transformers(tmp_path, kind="itm")
    peer, report = peer_class.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(report.values())
    assert torch.equal(peer.itm_head.weight, model.itm_head.weight)


@pytest.mark.parametrize(
    ("kind", "width", "depth", "heads", "entries"),
    [
        ("caption", 768, 12, 12, 474),
        ("caption", 1024, 24, 16, 618),
        ("vqa", 768, 12, 12, 791),
        ("itm", 768, 12, 12, 473),
        ("itm", 1024, 24, 16, 617),
    ],
)
def test_the_published_sizes_have_as_many_entries_as_the_published_files(kind, width, depth, heads, entries):
    vision = {
        "hidden_size": width,
        "intermediate_size": 4 * width,
        "num_hidden_layers": depth,
        "num_attention_heads": heads,
    }
    config = transformers.BlipConfig(text_config={"num_attention_heads": 12}, vision_config=vision)
    with torch.device("meta"):
        theirs = getattr(transformers, CLASS_NAMES[kind])(config).state_dict()
    ours = from_transformers(theirs)
    assert len(ours) == entries
    assert to_transformers(ours).keys() == theirs.keys()


def test_a_part_that_the_kind_needs_is_named_when_it_is_not_there(ours):
    with pytest.raises(ValueError, match="no text_encoder"):
        to_transformers(ours["caption"].state_dict(), kind="vqa")


def test_weights_of_no_known_kind_are_refused():
    with pytest.raises(ValueError, match="no class for weights of visual_encoder"):
        kind_of({"visual_encoder.cls_token": torch.zeros(1)})


def test_answers_from_a_wider_vision_transformer_cannot_be_exported(tmp_path):
    model = build("blip_vqa", vit_type={"embed_dim": 60, "depth": 1, "num_heads": 3, "patch_size": 8})
    with pytest.raises(ValueError, match="one width for all"):
        model.save_transformers(tmp_path / "folder")
    assert not (tmp_path / "folder").exists()


def test_a_head_that_is_not_tied_cannot_be_exported(ours, tmp_path):
    state_dict = dict(ours["caption"].state_dict())
    head = "text_decoder.cls.predictions.decoder.weight"
    state_dict[head] = state_dict[head] + 1
    with pytest.raises(ValueError, match=r"decoder\.weight differs"):
        write_transformers_folder(
            state_dict,
            tmp_path,
            vision_sizes=VisionSizes(48, 2, 3, 8),
            text_config=TextConfig(),
            image_size=32,
            tokenizer=ours["caption"].tokenizer,
        )


# Salesforce's files: state dicts of shapes alone, with the names that their models give.


def test_the_queue_pointer_is_known_by_both_its_names():
    pointer = torch.tensor([3])
    own = {"queue_ptr": torch.zeros(1, dtype=torch.long)}
    assert fit_queues({"ptr_queue": pointer}, own) == {"queue_ptr": pointer}
    assert fit_queues({"queue_ptr": pointer}, own) == {"queue_ptr": pointer}


@pytest.mark.parametrize("change", ["another size", "no ids"])
def test_queues_that_do_not_fit_are_left_out_together(change):
    own = {
        "image_queue": torch.zeros(4, 8),
        "text_queue": torch.zeros(4, 8),
        "idx_queue": torch.zeros(1, 8),
        "queue_ptr": torch.zeros(1),
    }
    held = dict(own, temp=torch.ones(()))
    if change == "no ids":
        del held["idx_queue"]
    else:
        held["text_queue"] = torch.zeros(4, 9)
    assert list(fit_queues(held, own)) == ["temp"]


def test_momentum_copies_are_made_only_where_there_are_none():
    held = {
        "text_proj.bias": torch.ones(2),
        "vision_proj.bias": torch.ones(3),
        "vision_proj_m.bias": torch.zeros(3),
    }
    made = momentum_from_online(held, ("text_proj", "vision_proj"))
    assert made["text_proj_m.bias"].tolist() == [1, 1]
    assert made["vision_proj_m.bias"].tolist() == [0, 0, 0]


def test_cross_attention_to_one_image_becomes_attention_to_each_of_two():
    layer = "text_encoder.encoder.layer.7."
    held = {
        layer + "crossattention.self.key.weight": torch.ones(2, 2),
        layer + "crossattention.output.dense.bias": torch.ones(2),
        layer + "crossattention.output.LayerNorm.bias": torch.ones(2),
        layer + "attention.self.key.weight": torch.ones(2, 2),
    }
    assert set(double_cross_attention(held)) == {
        layer + "crossattention.self0.key.weight",
        layer + "crossattention.self1.key.weight",
        layer + "crossattention.output.dense0.bias",
        layer + "crossattention.output.dense1.bias",
        layer + "crossattention.output.LayerNorm.bias",
        layer + "attention.self.key.weight",
    }


def test_a_decoder_gives_the_encoder_that_a_file_lacks(ours):
    encoder = {key for key in ours["vqa"].state_dict() if key.startswith("text_encoder.")}
    made = encoder_from_decoder(ours["caption"].state_dict())
    assert {key for key in made if key.startswith("text_encoder.")} == encoder
    held = ours["vqa"].state_dict()
    assert same(encoder_from_decoder(held), held)


def load(arch: str, state_dict: dict[str, torch.Tensor], **settings: object) -> BaseModel:
    model = build(arch, **settings)
    model.load_weights(state_dict, source="the file")
    return model


def test_a_captioner_starts_every_model_that_may_start_from_one(ours):
    state_dict = ours["caption"].state_dict()
    for arch in ("blip_nlvr", "blip_classification"):
        model = load(arch, state_dict)
        embeddings = model.text_encoder.embeddings.word_embeddings.weight
        assert torch.equal(embeddings, ours["caption"].text_decoder.bert.embeddings.word_embeddings.weight)


def test_a_pretrained_model_starts_every_other_one():
    pretrained = build("blip_pretrain", queue_size=8)
    state_dict = pretrained.state_dict()
    for arch in (*ARCHES.values(), "blip_retrieval", "blip_nlvr", "blip_classification"):
        model = load(arch, state_dict, image_size=48)  # other positions, too
        assert torch.equal(model.visual_encoder.cls_token, pretrained.visual_encoder.cls_token), arch
        if arch != "blip_caption":
            start = pretrained.text_encoder.embeddings.word_embeddings.weight
            assert torch.equal(model.text_encoder.embeddings.word_embeddings.weight, start), arch


def test_a_retrieval_checkpoint_of_blip_is_a_matcher():
    retrieval = build("blip_retrieval", queue_size=8)
    file = to_salesforce(retrieval.state_dict(), pointer="ptr_queue")["model"]
    assert "ptr_queue" in file and "queue_ptr" not in file
    matcher = load("blip_image_text_matching", file)
    assert torch.equal(matcher.itm_head.weight, retrieval.itm_head.weight)
    again = load("blip_retrieval", file, queue_size=8)
    assert same(dict(again.state_dict()), dict(retrieval.state_dict()))


def test_what_is_missing_or_of_another_shape_is_named_all_at_once(ours):
    state_dict = dict(ours["itm"].state_dict())
    del state_dict["itm_head.bias"]
    state_dict["vision_proj.weight"] = torch.zeros(3, 3)
    with pytest.raises(CheckpointError) as caught:
        load("blip_image_text_matching", state_dict)
    assert "1 keys missing: itm_head.bias" in str(caught.value)
    assert "vision_proj.weight (3, 3)" in str(caught.value)


def test_files_without_position_ids_load(ours):
    state_dict = {
        key: tensor for key, tensor in ours["vqa"].state_dict().items() if "position_ids" not in key
    }
    assert same(dict(load("blip_vqa", state_dict).state_dict()), dict(ours["vqa"].state_dict()))
