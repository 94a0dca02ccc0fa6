"""Patches, positions and masks, for any number of axes."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from vitaepp.errors import RecipeError
from vitaepp.nn.patches import patch_grid, patchify, random_masks, unpatchify
from vitaepp.nn.positions import axis_widths, sincos_positions

axes = st.integers(2, 3).flatmap(
    lambda n: st.tuples(
        st.lists(st.integers(1, 4), min_size=n, max_size=n),
        st.lists(st.integers(1, 5), min_size=n, max_size=n),
        st.integers(1, 3),
    )
)


@given(axes)
@settings(deadline=None)
def test_unpatchify_inverts_patchify(case):
    grid, patch, channels = case
    space = [g * p for g, p in zip(grid, patch, strict=True)]
    images = torch.randn(2, channels, *space)
    patches = patchify(images, patch)
    assert patches.shape[1] == patch_grid(space, patch)[0] * len(patches[0]) // grid[0]
    assert torch.equal(unpatchify(patches, grid, patch), images)


def test_a_patch_holds_its_own_voxels_channel_last():
    images = torch.arange(2 * 4 * 6 * 8.0).view(1, 2, 4, 6, 8)
    patches = patchify(images, (2, 3, 4))
    block = images[0, :, 2:4, 0:3, 4:8]  # grid position (1, 0, 1) of (2, 2, 2)
    assert torch.equal(patches[0, 5], block.movedim(0, -1).flatten())


def test_a_size_that_patches_do_not_divide_names_one_that_they_do():
    with pytest.raises(RecipeError, match="but images of 48,64,48 can"):
        patch_grid((48, 65, 50), (8, 8, 8))


@pytest.mark.parametrize("grid", [(4, 6), (3, 4, 5), (1, 2, 3)])
@pytest.mark.parametrize("width", [192, 512, 768, 100])
def test_positions_are_distinct_and_every_axis_has_its_share(grid, width):
    table = sincos_positions(grid, width)
    assert table.shape == (1 + torch.Size(grid).numel(), width)
    assert torch.equal(table[0], torch.zeros(width))
    rows = table[1:]
    distance = torch.cdist(rows, rows) + torch.eye(len(rows)) * 9
    assert distance.min() > 1e-2
    widths = axis_widths(width, len(grid))
    assert sum(widths) == width
    assert max(widths) - min(widths) <= 2
    # Features that change along an axis, and only they, are that axis's share.
    cube = rows.view(*grid, width)
    for axis, size in enumerate(grid):
        if size > 1:
            changing = (cube.diff(dim=axis).abs().flatten(0, -2) > 0).any(0).sum()
            share = widths[len(grid) - 1 - axis]
            assert share * 0.9 <= changing <= share


@given(
    st.integers(2, 60),
    st.floats(0.01, 0.99),
    st.integers(0, 2**31),
)
@settings(deadline=None)
def test_masks_keep_exactly_the_ratio_and_partition_the_patches(patches, ratio, seed):
    noise = torch.rand(5, patches, generator=torch.Generator().manual_seed(seed))
    mask = random_masks(noise, ratio)
    assert mask.visible.shape[1] == int(patches * (1 - ratio))
    both = torch.cat([mask.visible, mask.hidden], 1).sort(1).values
    assert torch.equal(both, torch.arange(patches).expand(5, -1))


def test_every_sample_has_its_own_mask_and_every_patch_its_chance():
    mask = random_masks(torch.rand(4000, 16, generator=torch.Generator().manual_seed(0)), 0.75)
    assert len({tuple(row) for row in mask.visible[:20].tolist()}) > 15
    chance = torch.bincount(mask.visible.flatten(), minlength=16) / 4000
    assert (chance - 0.25).abs().max() < 5 * (0.25 * 0.75 / 4000) ** 0.5
