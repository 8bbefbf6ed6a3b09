# SPDX-License-Identifier: Apache-2.0
import pytest


@pytest.fixture(scope="session")
def plain_llama(tmp_path_factory):
    """A tiny model of transformers, made here: 2 layers, 14 projections, F32."""
    import torch
    import transformers
    torch.manual_seed(0)
    config = transformers.LlamaConfig(hidden_size=128, intermediate_size=256, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
                                      vocab_size=64, tie_word_embeddings=False)
    folder = tmp_path_factory.mktemp("llama")
    transformers.LlamaForCausalLM(config).save_pretrained(folder)
    return folder
