import sys

from benchmarks import input as benchmark


def test_missing_torchvision_is_one_line(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "torchvision", None)
    assert benchmark.main([]) == 2
    assert capsys.readouterr().err == (
        "this comparison needs torch and torchvision: pip install 'bottlefit-jax[bench]'\n"
    )


def test_generated_images_are_500_by_375(tmp_path, monkeypatch):
    monkeypatch.setattr(benchmark, "IMAGES", 3)
    source = benchmark.open_source("folder", split="train", root=benchmark.make_images(str(tmp_path), ""))
    assert len(source) == 3 * benchmark.NAMES
    assert source[0]["image"].shape == (375, 500, 3)
