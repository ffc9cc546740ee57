"""Trained networks: what they share, and the modules that need PyTorch.

``settings`` and ``encoding`` are plain NumPy. ``loop`` trains any network, ``fitted`` asks it, and
one module for each network says what it is made of. The registered models beside this package
import them when they are fitted, so that listing models needs no PyTorch.

To make one of your own, copy ``decoder_only.py`` here and in the folder above: a network is a
`torch.nn.Module` with two methods. ``loss(inputs)`` is one number for a batch, ``respond(inputs)``
are the predicted cells.
"""
