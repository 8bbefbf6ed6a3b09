# SPDX-License-Identifier: Apache-2.0
"""Whatever links say, a conversion never replaces or removes a file that its source was read from."""
import hashlib
import json
import os
import shutil

import numpy as np
import pytest

import breccia_c as brc
import checkpoint_files as files

INDEX = "model.safetensors.index.json"


def weights(path, name="w.weight"):
    return files.write(path, {name: np.full((4, 32), 0.5, np.float32)})


def indexed(folder, shards):
    """An index over shards that hold one tensor each, named after them."""
    places = {f"{shard}.weight": shard for shard in shards}
    (folder / INDEX).write_text(json.dumps({"metadata": {"total_size": 512 * len(shards)}, "weight_map": places}))


def indexed_link(s, d):
    """The destination's index names the only copy of the source, which the source's folder links to."""
    weights(d / "m.safetensors", "m.safetensors.weight")
    (s / "m.safetensors").symlink_to("../d/m.safetensors")
    indexed(s, ["m.safetensors"])
    indexed(d, ["m.safetensors"])
    return s, d


def single_link(s, d):
    """The source is a link to the file that the destination's weights are called."""
    weights(d / "model.safetensors")
    (s / "s.safetensors").symlink_to(d / "model.safetensors")
    return s / "s.safetensors", d


def hard_link(s, d):
    weights(s / "s.safetensors")
    os.link(s / "s.safetensors", d / "model.safetensors")
    return s / "s.safetensors", d


def destination_link(s, d):
    weights(s / "s.safetensors")
    (d / "out.safetensors").symlink_to(s / "s.safetensors")
    return s / "s.safetensors", d / "out.safetensors"


def shard_link(s, d):
    shards, target = ["a.safetensors", "b.safetensors"], d / "model-00002-of-00002.safetensors"
    for shard in shards:
        weights(s / shard, f"{shard}.weight")
    shutil.move(s / shards[1], target)
    (s / shards[1]).symlink_to(target)
    indexed(s, shards)
    return s, d


def config_link(s, d):
    weights(s / "model.safetensors")
    (d / "config.json").write_text('{"quantization_config": {}}')
    (s / "config.json").symlink_to(d / "config.json")
    return s, d


def index_link(s, d):
    weights(s / "m.safetensors", "m.safetensors.weight")
    indexed(d, ["m.safetensors"])
    (s / INDEX).symlink_to(d / INDEX)
    return s, d


def same_folder(s, d):
    weights(s / "model.safetensors")
    return s, s


def linked_folder(s, d):
    weights(s / "model.safetensors")
    d.rmdir()
    d.symlink_to(s)
    return s, d


def contents(folder):
    return {str(p): hashlib.sha256(p.read_bytes()).hexdigest() for p in sorted(folder.rglob("*")) if p.is_file()}


@pytest.mark.parametrize("overwrite", [True, False])
@pytest.mark.parametrize("lay", [indexed_link, single_link, hard_link, destination_link, shard_link, config_link, index_link, same_folder, linked_folder],
                         ids=lambda f: f.__name__)
def test_a_file_of_the_source_is_never_replaced(tmp_path, lay, overwrite):
    s, d = tmp_path / "s", tmp_path / "d"
    s.mkdir(), d.mkdir()
    source, destination = lay(s, d)
    before = contents(tmp_path)
    for convert in (lambda: files.quantize(source, destination, "int8", overwrite=overwrite),
                    lambda: files.dequantize(source, destination, overwrite=overwrite)):
        with pytest.raises(brc.Error, match="^ARGUMENT: .* is the source's own"):
            convert()
        assert contents(tmp_path) == before


def test_a_source_beside_its_destination_is_no_obstacle(tmp_path):
    source = weights(tmp_path / "s.safetensors")
    before = source.read_bytes()
    files.quantize(source, tmp_path, "int8")
    files.quantize(source, tmp_path, "mxfp4", overwrite=True)
    assert source.read_bytes() == before and (tmp_path / "model.safetensors").exists()
