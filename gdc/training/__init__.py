"""Samples and a recipe -> a trained model and every sample's loss at every checkpoint.

- ``recipe``: what decides a run, and the batches, steps and learning rates that follow from it
- ``loop``: ``train`` and its ``Trainer`` (``train_step``, ``forward``, ``evaluate``, ``record``)
- ``recording``: what a run records, and the protocol for whoever takes the losses
- ``checkpoints``: the file from which a killed run resumes
- ``distributed``: rank, world size and collectives of processes that train together
- ``batches``: token ids, windows, padded batches
- ``losses``: losses of samples and of tokens
- ``models`` and ``transformer_models``: LSTM, GPT-2, pretrained models
- ``token_records``: one row for each predicted token, for the audits
"""
