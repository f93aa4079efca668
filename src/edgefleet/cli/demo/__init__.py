"""``edgefleet demo``: a model's whole way on this machine, on real data, to real device processes.

``train_digits`` is the training script, plain Python; ``steps`` the story; ``load`` the requests
that go on while versions change; ``picture`` what came of it, drawn; ``command`` the command around
them.
"""
