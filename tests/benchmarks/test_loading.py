import numpy as np

from benchmarks.loading import loading_rows, textured


def test_both_recipes_are_measured_on_files_like_photographs() -> None:
    rows = loading_rows(runs=1, pairs=4)
    assert [row.recipe for row in rows] == ["university1652", "cvusa"]
    for row in rows:
        assert 40 < row.source_kib < 250, "a photograph of this size at quality 90"
        assert row.images_per_s_low <= row.images_per_s <= row.images_per_s_high


def test_made_images_are_seeded_and_use_the_whole_range() -> None:
    image = textured(64, 96, 1)
    assert image.shape == (64, 96, 3)
    assert np.array_equal(image, textured(64, 96, 1))
    assert not np.array_equal(image, textured(64, 96, 2))
    assert image.max() - image.min() > 150
