"""What the fork server of `run_workers` imports when it starts: nothing else may, it changes the process."""

from calls_assets.run_workers import prepare_to_fork

prepare_to_fork()
