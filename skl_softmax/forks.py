"""What has to be seen to in processes that are forked from this one."""

import os

import torch


def use_one_thread_after_forks() -> None:
    """Let torch compute with one thread in forked children.

    GNU's OpenMP, torch's on Linux, waits without end in a child for threads that only its parent has.
    """
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=lambda: torch.set_num_threads(1))
