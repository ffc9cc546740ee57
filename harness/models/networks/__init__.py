"""Trained networks: the registered models, and what they share.

``base`` has the parameters of all networks, ``encoding`` turns perturbations and contexts into
arrays, ``data_loader`` streams training cells. None of them needs PyTorch; the subpackage ``torch``
does. A registered model imports it when it is fitted, so that listing models needs no PyTorch.

To make a network of your own, copy ``decoder_only.py`` here and in ``torch``.
"""
