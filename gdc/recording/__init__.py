"""The loss trace: its format, its tables, and the recorder for any training loop.

- ``trace``: the format and its tables
- ``trace_files``: the files of a trace under way, for our loop and for any other
- ``recorder``: ``TraceRecorder``
- ``transformers``: ``TraceCallback``, for ``transformers.Trainer`` and TRL's ``SFTTrainer``
- ``trainer_samples``, ``loaders``: which sample of the user's each row of a Trainer is
- ``sample_ids``, ``sample_losses``, ``probe``: what it asks of a data set, a batch and a model
"""
