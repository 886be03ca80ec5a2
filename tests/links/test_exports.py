import bottlefit_jax.links


def test_the_exported_names_are_these():
    names = (
        "BenchOptions Crossing DirectLink Link Row Sample ShapedLink Watts crossings find_meter measure_all open_link"
    )
    assert bottlefit_jax.links.__all__ == names.split()
    for name in bottlefit_jax.links.__all__:
        assert getattr(bottlefit_jax.links, name).__name__ == name
