"""The target task: labelled pictures in splits, from folders, archives, tables, arrays and data sets."""

from reprogram.tasks.divide import stratified
from reprogram.tasks.load import load_task, task_refs
from reprogram.tasks.split import Split
from reprogram.tasks.task import Task

__all__ = ["Split", "Task", "load_task", "stratified", "task_refs"]
