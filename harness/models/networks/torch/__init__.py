"""The networks themselves: the only modules that import PyTorch.

``training`` trains any network, ``fitted`` fits one to a view and queries it, ``inputs`` is a batch
on the device. Each other module defines one network, a `torch.nn.Module` with two methods:
``loss(inputs)`` is one number for a batch, ``respond(inputs)`` are the predicted cells.
"""
