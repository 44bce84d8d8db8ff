"""DPO on this machine with TRL, in a worker process."""
