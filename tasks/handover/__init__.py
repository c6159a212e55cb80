"""A finished night in other hands.

mlflow_run      the night as a run of an MLflow tracking server: `run.log_to`
published_copy  the night's folder at an address, s3://bucket/prefix and the like, verified: `run.publish_to`
"""
