r"""An ImageNet classifier, split between device and server, taught by itself on any folder of images, without labels.

    python -m bottlefit_jax.main --config=configs/distil.py --workdir=runs/split \
        --config.teacher.weights=weights/efficientnet_lite0 --config.dataset.unlabelled=FRAMES
    python -m bottlefit_jax.main --config=configs/distil.py:evaluate --workdir=runs/split-224 \
        --config.teacher.weights=weights/efficientnet_lite0 --config.student.weights=runs/split/student \
        --config.dataset.unlabelled=FRAMES

The weights are any network that `bottlefit_jax.convert` wrote. FRAMES is any tree of images, such as a camera's own;
several folders are `"('A','B')"`. One image in ten, at most 1,000, is held out, and the report says how often student
and teacher agree on those. With `--config.dataset.eval_name=folder --config.dataset.eval_root=ROOT` it says how many of
the labelled images in ROOT/val they classify correctly.

Training uses crops of 128 px, the second command evaluates at 224 px, and its workdir is what to export. A network of
224 px enlarges an image of 160 px by 1.4, and a crop of 128 px enlarged as much shows 91 of its 160 pixels a side, a
third of the area; for larger images choose `crop_scale` accordingly. The receptive field of encoder and decoder is a
few dozen pixels, so these crops show them the same content as 224 px does, at a third of the cost.
"""
