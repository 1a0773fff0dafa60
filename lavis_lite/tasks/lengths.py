"""Whether the lengths that a run asks for fit the model."""

from __future__ import annotations

from torch import nn

from lavis_lite.common.config.schema import ConfigError


def check_lengths(model: nn.Module, max_length: int, min_length: int, prompt: int) -> None:
    """Refuse lengths of generated texts that the model cannot make.

    Args:
        max_length: most tokens of a text, its prompt included; ``run.max_len``.
        min_length: fewest tokens; ``run.min_len``.
        prompt: tokens that every text starts with, [DEC] included.

    Raises:
        ConfigError: no room after the prompt, more tokens than positions, or a minimum above the maximum.
    """
    positions = getattr(getattr(model, "text_config", None), "max_position_embeddings", None)
    if positions is not None and max_length > positions:
        raise ConfigError(
            f"run.max_len: {max_length} tokens are more than the {positions} positions of the text model; "
            f"choose at most {positions} (or train a model with more max_position_embeddings)."
        )
    if max_length <= prompt:
        raise ConfigError(
            f"run.max_len: {max_length} tokens leave no room after the prompt "
            f"{getattr(model, 'prompt', '')!r}, which has {prompt} with [DEC]; choose more, or shorten "
            "model.prompt."
        )
    if min_length > max_length:
        raise ConfigError(
            f"run.min_len: {min_length} tokens are more than run.max_len ({max_length}) allows."
        )
