"""Tasks of one kind, and a record of each that is done, so that a run which starts again knows."""

from collections.abc import Callable, Sequence

from nat_dpo_pipeline.pairing.engines import Engine
from nat_dpo_pipeline.pairing.options import Progress
from nat_dpo_pipeline.pairing.tasks import Done, Task
from nat_dpo_pipeline.records.places import Place
from nat_dpo_pipeline.records.stored import restored, stored


class Stage:
    """The tasks called `name`; what came of them is in `folder`."""

    def __init__(self, folder: Place, name: str, told: Progress) -> None:
        self._folder = folder / name
        self._name = name
        self._told = told

    resumed = 0

    def run(self, engine: Engine, tasks: Sequence[Task], *, is_valid: Callable[[Done], bool]) -> list[Done]:
        """What came of all tasks, by number, or of one alone that found turns to be scattered.

        A record counts when it is valid.
        """
        self._folder.create_folder()
        done = {one.number: one for one in self._recorded() if is_valid(one)}
        self.resumed = len(done)
        missing = [task for task in tasks if task.number not in done]
        self._told(self._name, len(done), len(tasks))
        results = engine.run(missing) if missing else iter(())
        for one in results:
            if one.is_scattered:
                # Gives up the tasks that are left.
                results.close()  # type: ignore[attr-defined]
                return [one]
            done[one.number] = one
            (self._folder / f"{one.number:05}.json").write(stored(one))
            self._told(self._name, len(done), len(tasks))
        return [done[task.number] for task in tasks]

    def _recorded(self) -> list[Done]:
        names = (name for name in self._folder.files() if not name.startswith("."))
        return [restored(Done, (self._folder / name).read()) for name in names]
