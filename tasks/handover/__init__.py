"""A finished night in other hands.

mlflow_run      the night as a run of an MLflow tracking server: `run.log_to`
late_warning    what went wrong with it, as a warning of the night
published_copy  the night's folder at an address, s3://bucket/prefix and the like, verified: `run.publish_to`
"""
