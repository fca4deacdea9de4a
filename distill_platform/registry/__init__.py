"""The registry: which versions of a student exist, which one is the champion, and how one is loaded back.

log.py               the promotion log, the pointer that decides who is champion
mlflow_registry.py   versions in MLflow, and its aliases as a view of the log
manifest.py          hashes of every file of a version, so that a changed byte is refused
loader.py            a version back as a Student, by `load_student` or by `mlflow.pyfunc.load_model`
"""
