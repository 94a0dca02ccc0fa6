"""Training on a store in which modalities are missing."""

import numpy as np
import pandas as pd
import pytest
import torch
import zarr
from safetensors.torch import load_file

from tests.conftest import TINY
from vitaepp.data.store import Store
from vitaepp.training.pretrain import pretrain


def weights(run):
    return load_file(run / "encoder" / "model.safetensors")


@pytest.mark.parametrize("settings", [(), ("views.modality_dropout=0.5",)])
def test_what_stands_in_a_missing_modality_does_not_reach_the_encoder(
    make_store, tmp_path, settings
):
    present = np.arange(16).reshape(8, 2) % 5 != 0
    make_store(name="all")
    for name, value in (("zero", 0), ("other", 99)):
        store = make_store(name=name)
        table = pd.read_parquet(store.path / "table.parquet")
        table["modality_present"] = present.tolist()
        table.to_parquet(store.path / "table.parquet", index=False)
        images = zarr.open_array(store.path / "images.zarr", mode="r+")
        images[:] = np.where(present[..., None, None, None], images[:], value)
        assert (Store(store.path).present == present).all()
    options = (*TINY, "optim.epochs=1", *settings)
    zero, other, whole = (
        weights(pretrain(tmp_path / name, tmp_path / f"run-{name}", settings=options))
        for name in ("zero", "other", "all")
    )
    assert all(torch.equal(zero[k], other[k]) for k in zero)
    assert any(not torch.equal(zero[k], whole[k]) for k in zero)
