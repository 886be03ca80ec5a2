"""compare.md and compare.json: the table, and sentences that follow from it whichever way it goes."""

import errno
import json
import os

import numpy as np
import pytest

from bottlefit_jax.compare.report import _settings, best, within_goal, write_comparison
from bottlefit_jax.errors import UserError
from tests.compare.example import codec, comparison, everything, failed, local, row

BOTTLEFIT = row("bottlefit", "BottleFit", "8 channels", top1=84.7, std=0.2, sent=656.0)


def text_of(folder, *rows, command=None, **changes):
    write_comparison(folder, comparison(*rows) | changes, command=command)
    return (folder / "compare.md").read_text()


def test_json_holds_what_was_given_as_plain_numbers(tmp_path):
    given = everything()
    given["rows"][0]["bytes"]["p95"] = np.float32(0.5)
    write_comparison(tmp_path, given, command=None)
    assert json.loads((tmp_path / "compare.json").read_text()) == given
    assert sorted(path.name for path in tmp_path.iterdir()) == ["compare.json", "compare.md"]


def test_a_row_has_everything_that_was_measured(tmp_path):
    text = text_of(tmp_path, local(), *codec("jpeg", "JPEG", (95, 85.1, 2968.2)), BOTTLEFIT)
    assert text.startswith("# resnet18 on imagenette160: what else a user could do\n")
    table = [line for line in text.splitlines() if line.startswith("|")]
    assert table[0].count("|") == 13
    assert table[2:] == [
        "| local | – | 85.10 | 98.00 | 0.00 | 0 | 0 | 100.0 | 12.3 k | 18 M | 2.40 | 0.00 |",
        "| JPEG | quality 95 | 85.10 | 98.00 | 0.00 | 2,968 | 3,710 | 0.0 | 12.3 k | 18 M | 0.30 | 2.20 |",
        "| BottleFit | 8 channels | 84.70 ± 0.20 | 98.00 ± 0.10 | 0.40 | 656 | 820 | 77.9 "
        "| 12.3 k | 18 M | 0.30 | 2.20 |",
    ]
    assert "3,925 images of imagenette160 at 64 pixels" in text
    assert "85.10 % top-1 (95 % interval for so many images: 83.95 to 86.18)" in text
    assert "over the seeds 0, 1 and 2" in text
    assert "- SPINN sends nothing where its exit is sure." in text
    assert "python 3.11.7, device cpu" in text


def test_a_failed_method_is_a_row_with_the_reason(tmp_path):
    text = text_of(tmp_path, BOTTLEFIT, failed("webp", "WebP", "quality 5", "no WebP in\nthis Pillow | 11"))
    dashes = " | ".join("–" * 9)
    assert f"| WebP | quality 5 | failed: no WebP in this Pillow \\| 11 | {dashes} |" in text
    assert "Not measured, see the table for the reason: WebP, quality 5." in text


def test_a_missing_value_is_a_dash_and_never_none(tmp_path):
    unmeasured = BOTTLEFIT | {"ms": {"device": 123.4, "server": None}, "params": None, "macs": None}
    text = text_of(tmp_path, unmeasured, notes=[], seeds=[3])
    assert "| – | – | 123 | – |" in text
    assert "Trained rows are from seed 3 alone." in text
    assert "None" not in text
    assert "\n- " not in text


def test_the_headline_names_the_methods_near_the_teacher_and_the_smallest(tmp_path):
    jpeg = codec("jpeg", "JPEG", (50, 78.1, 1270), (90, 84.5, 2350), (95, 85.0, 2968.2))
    text = text_of(tmp_path, local(), *jpeg, BOTTLEFIT)
    assert (
        "Within 0.6 points of the teacher (85.10 % top-1) lie JPEG (quality 90, 95) and BottleFit, 8 channels; "
        "of these **BottleFit, 8 channels sends the fewest bytes, 656 per image**, 77.9 % less than JPEG at "
        "quality 95 (2,968 bytes)." in text
    )
    assert "No other method sends as little." in text
    assert "beaten" not in text


def test_methods_of_equal_size_share_the_headline(tmp_path):
    text = text_of(tmp_path, row("ghnd", "GHND", top1=84.6, std=0.1, sent=656.2), BOTTLEFIT)
    assert "**GHND and BottleFit, 8 channels send the fewest bytes, 656 per image**" in text
    assert "No other method with as few bytes is more accurate; the nearest is GHND (656 bytes, 84.60 %), 0.10" in text
    assert "0.10 points less, which is **within the seeds' spread** (± 0.10 and ± 0.20)." in text


def test_without_a_method_near_the_teacher_the_headline_says_so(tmp_path):
    poor = row("bottlefit", "BottleFit", top1=80.0, std=0.2, sent=6000.0)
    text = text_of(tmp_path, local(), poor, *codec("jpeg", "JPEG", (5, 15.0, 690)))
    assert (
        "**No method that uses a link stays within 0.6 points of the teacher (85.10 % top-1)**; the nearest is" in text
    )
    assert "BottleFit, which loses 5.10 points with 6,000 bytes per image, 102.1 % **more** than JPEG" in text
    assert "lies" not in text


@pytest.mark.parametrize(
    ("top1", "std", "sent", "sentence"),
    [
        (
            84.9,
            0.05,
            656.0,
            "**It is beaten** with no more bytes by GHND (656 bytes, 84.90 %), 0.20 points more, which is",
        ),
        (85.0, 0.05, 600.0, "**It is beaten** with no more bytes by GHND (600 bytes, 85.00 %), 0.30 points more."),
        (84.7, 0.05, 600.0, "the nearest is GHND (600 bytes, 84.70 %), equally accurate, which is **within"),
        (84.0, 0.05, 600.0, "the nearest is GHND (600 bytes, 84.00 %), 0.70 points less."),
        (85.0, 0.05, 657.0, "No other method sends as little."),
    ],
)
def test_the_text_says_whether_bottlefit_is_beaten(tmp_path, top1, std, sent, sentence):
    text = text_of(tmp_path, local(), row("ghnd", "GHND", top1=top1, std=std, sent=sent), BOTTLEFIT)
    assert sentence in text
    assert ("beaten" in text) == ("beaten" in sentence)


def test_a_lead_is_stated_with_its_multiply_adds(tmp_path):
    expensive = row("cr-bq", "CR+BQ", top1=86.0, std=0.1, sent=600.0) | {"macs": 45_000_000}
    text = text_of(tmp_path, local(), expensive, BOTTLEFIT)
    assert "(600 bytes, 86.00 %), 1.30 points more, for 2.5 times the multiply-adds on the device." in text


def test_bottlefit_is_compared_neither_with_its_own_patches_nor_with_local(tmp_path):
    patches = row("bottlefit-patch", "BottleFit, patches", top1=84.4, std=0.1, sent=700.0)
    text = text_of(tmp_path, local(), patches, BOTTLEFIT)
    assert "BottleFit's best row is BottleFit, 8 channels: 656 bytes" in text
    assert "No other method that uses a link was measured." in text


def test_differences_within_the_spread_are_called_undecided(tmp_path):
    winner, near, behind = (
        row(name, name.upper(), top1=top1, std=0.1, sent=600.0)
        for name, top1 in (("spinn", 86.0), ("kd", 84.5), ("vanilla", 84.3))
    )
    text = text_of(tmp_path, winner, near, behind, BOTTLEFIT)
    assert "**It is beaten** with no more bytes by SPINN (600 bytes, 86.00 %), 1.30 points more." in text
    assert (
        "Undecided: KD (600 bytes, 84.50 %), 0.20 points less, which is **within the seeds' spread** "
        "(± 0.10 and ± 0.20)." in text
    )
    assert "VANILLA (600" not in text


def test_every_method_that_beats_bottlefit_is_named_once_at_its_best(tmp_path):
    spinn = [row("spinn", "SPINN", f"threshold {t}", top1=top1, sent=9.0) for t, top1 in ((0.5, 84.9), (0.6, 85.0))]
    text = text_of(
        tmp_path, *spinn, *codec("webp", "WebP", (5, 84.8, 600)), BOTTLEFIT | {"top1": {"mean": 84.7, "std": None}}
    )
    assert (
        "by SPINN, threshold 0.6 (9 bytes, 85.00 %), 0.30 points more (one seed: the spread is not known); and by"
        in text
    )
    assert "and by WebP, quality 5 (600 bytes, 84.80 %), 0.10 points more" in text


def test_a_comparison_without_bottlefit_or_without_measurements_has_a_text(tmp_path):
    assert "BottleFit" not in text_of(tmp_path, local(), *codec("jpeg", "JPEG", (95, 85.0, 2968.2)))
    assert "No method that uses a link was measured." in text_of(tmp_path, failed("jpeg", "JPEG", "", "no JPEG"))
    assert "none of them sends anything" in text_of(tmp_path, row("spinn", "SPINN", top1=85.0, sent=0))


def test_only_plots_that_exist_are_shown_around_the_table(tmp_path):
    assert ".png" not in text_of(tmp_path, BOTTLEFIT)
    for name in ("compare_rate_accuracy.png", "compare_latency.png"):
        (tmp_path / name).touch()
    text = text_of(tmp_path, BOTTLEFIT)
    assert text.index("(compare_rate_accuracy.png)") < text.index("| method |") < text.index("(compare_latency.png)")


def test_accuracies_at_the_same_bytes_have_a_table_of_their_own(tmp_path):
    assert "same bytes" not in text_of(tmp_path, BOTTLEFIT)
    at = {"mean": 84.56, "std": 0.1}
    row_at = {"method": "bottlefit", "title": "BottleFit", "macs": 5_500_000, "top1": [None, at]}
    groups = [{"heading": "an encoder of its own", "rows": [row_at]}]
    text = text_of(tmp_path, BOTTLEFIT, same_bytes={"bytes": [60, 1200], "groups": groups})
    assert "| top-1 %, at bytes per image: | multiply-adds on the device | 60 | 1,200 |" in text
    assert "| **an encoder of its own** |  |  |  |\n| BottleFit | 5.5 M | – | 84.56 |" in text
    assert text.index("| method |") < text.index("## Accuracy at the same bytes") < text.index("## Reproduce")


def test_the_command_is_shown_where_there_is_one(tmp_path):
    command = "python -m bottlefit_jax.compare --workdir=runs/compare"
    assert f"## Reproduce\n\n```sh\n{command}\n```" in text_of(tmp_path, BOTTLEFIT, command=command)
    assert "```" not in text_of(tmp_path, BOTTLEFIT)


def test_nan_is_refused_and_nothing_is_written(tmp_path):
    with pytest.raises(ValueError, match="not JSON compliant"):
        text_of(tmp_path, BOTTLEFIT | {"drop_points": float("nan")})
    assert not list(tmp_path.iterdir())


def test_a_full_disk_or_a_missing_folder_is_one_line(tmp_path, monkeypatch):
    with pytest.raises(UserError, match=r"cannot write .*compare\.md: No such file"):
        text_of(tmp_path / "missing", BOTTLEFIT)

    def full(_descriptor):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(UserError, match=r"cannot write .*compare\.md: no space left on the disk"):
        text_of(tmp_path, BOTTLEFIT)
    assert not list(tmp_path.iterdir())


def test_the_best_row_is_the_smallest_within_the_goal_or_else_the_nearest():
    jpeg = codec("jpeg", "JPEG", (50, 78.1, 1270), (90, 84.5, 2350), (95, 85.0, 2968))
    assert [within_goal(one) for one in jpeg] == [False, True, True]
    assert best(jpeg)["setting"] == "quality 90"
    assert best(jpeg[:1])["setting"] == "quality 50"


def test_settings_are_listed_without_repeating_their_unit():
    assert _settings(["quality 70", "quality 90"]) == "quality 70, 90"
    assert _settings(["4 channels", "8 channels"]) == "4, 8 channels"
    assert _settings(["8 channels", "quality 5"]) == "8 channels, quality 5"
    assert _settings(["quality 5", "quality 10", "quality 50", "quality 95"]) == "4 settings"
